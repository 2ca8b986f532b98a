#include "libstore/store/xattrs.hh"

#include <cerrno>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "libutil/error.hh"
#include "libutil/file-descriptor.hh"

namespace firn {

std::vector<std::string> listXattrs(int fd) {
    auto size = flistxattr(fd, nullptr, 0, 0);
    if (size <= 0) {
        return {};
    }
    std::string buffer(static_cast<size_t>(size), '\0');
    size = flistxattr(fd, buffer.data(), buffer.size(), 0);
    if (size < 0) {
        throwErrno("listing the extended attributes of an open file");
    }
    std::vector<std::string> names;
    for (size_t begin = 0; begin < static_cast<size_t>(size);) {
        names.emplace_back(buffer.c_str() + begin);
        begin += names.back().size() + 1;
    }
    return names;
}

bool removeXattr(int fd, const std::string &name) {
    if (fremovexattr(fd, name.c_str(), 0) == 0) {
        return true;
    }
    if (errno == ENOATTR || errno == ENOTSUP) {
        return false;
    }
    throwErrno("removing the extended attribute '{}'", name);
}

// Symlinks are opened themselves by O_SYMLINK.
std::vector<std::string> listLinkXattrs(int dir, const std::string &name) {
    UniqueFd fd(openat(dir, name.c_str(), O_SYMLINK | O_CLOEXEC));
    return fd ? listXattrs(fd.get()) : std::vector<std::string>();
}

void removeLinkXattr(int dir, const std::string &name, const std::string &xattr) {
    UniqueFd fd(openat(dir, name.c_str(), O_SYMLINK | O_CLOEXEC));
    if (!fd) {
        throwErrno("opening '{}'", name);
    }
    removeXattr(fd.get(), xattr);
}

void changeModeAt(int dir, const std::string &name, unsigned mode) {
    if (fchmodat(dir, name.c_str(), static_cast<mode_t>(mode), AT_SYMLINK_NOFOLLOW) != 0) {
        throwErrno("changing the mode of '{}'", name);
    }
}

} // namespace firn
