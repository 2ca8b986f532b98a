#include "libstore/store/extended-attributes.hh"

#include <sys/xattr.h>

#include "libutil/error.hh"

namespace firn {

namespace {

/// Names of all attributes, each ended by a zero byte.
std::string listAttributes(int fd) {
    for (;;) {
        ssize_t size = flistxattr(fd, nullptr, 0);
        if (size <= 0) {
            if (size < 0 && errno != ENOTSUP && errno != ENOSYS && errno != ENODATA) {
                throwErrno("listing extended attributes");
            }
            return {};
        }
        std::string names(static_cast<size_t>(size), '\0');
        size = flistxattr(fd, names.data(), names.size());
        if (size >= 0) {
            names.resize(static_cast<size_t>(size));
            return names;
        }
        if (errno != ERANGE) {
            throwErrno("listing extended attributes");
        }
    }
}

} // namespace

bool removeExtendedAttributes(int fd, const struct stat &st, const std::set<std::string> &keep) {
    bool removed = false;
    std::string names = listAttributes(fd);
    for (size_t begin = 0; begin < names.size(); begin = names.find('\0', begin) + 1) {
        std::string name = names.c_str() + begin;
        if (keep.contains(name)) {
            continue;
        }
        // Only who may write a file may remove its user attributes.
        if (!removed && (st.st_mode & 0200) == 0 && fchmod(fd, (st.st_mode & 0777) | 0200) != 0) {
            throwErrno("making a file writable");
        }
        if (fremovexattr(fd, name.c_str()) != 0) {
            throwErrno("removing the extended attribute '{}'", escapeForDisplay(name));
        }
        removed = true;
    }
    return removed;
}

} // namespace firn
