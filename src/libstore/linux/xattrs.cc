#include "libstore/store/xattrs.hh"

#include <cerrno>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "libutil/error.hh"
#include "libutil/file-descriptor.hh"

namespace firn {

namespace {

bool hasNoAttributes(int number) {
    return number == ENOTSUP || number == ENODATA;
}

std::vector<std::string> splitNames(const std::string &text) {
    std::vector<std::string> names;
    for (size_t begin = 0; begin < text.size();) {
        names.emplace_back(text.c_str() + begin);
        begin += names.back().size() + 1;
    }
    return names;
}

/// A path by which an entry relative to a directory can be given to calls that have no "at" form.
std::string procPath(int dir, const std::string &name) {
    return fmt::format("/proc/self/fd/{}/{}", dir, name);
}

template<typename List>
std::vector<std::string> readNames(const std::string &what, List list) {
    while (true) {
        auto size = list(nullptr, 0);
        if (size == 0 || (size < 0 && hasNoAttributes(errno))) {
            return {};
        }
        std::string buffer(size > 0 ? static_cast<size_t>(size) : 0, '\0');
        auto filled = size < 0 ? size : list(buffer.data(), buffer.size());
        if (filled >= 0) {
            buffer.resize(static_cast<size_t>(filled));
            return splitNames(buffer);
        }
        if (errno != ERANGE) {
            throwErrno("listing the extended attributes of {}", what);
        }
    }
}

} // namespace

std::vector<std::string> listXattrs(int fd) {
    return readNames("an open file", [&](char *buffer, size_t size) { return flistxattr(fd, buffer, size); });
}

bool removeXattr(int fd, const std::string &name) {
    if (fremovexattr(fd, name.c_str()) == 0) {
        return true;
    }
    if (hasNoAttributes(errno)) {
        return false;
    }
    throwErrno("removing the extended attribute '{}'", name);
}

std::vector<std::string> listLinkXattrs(int dir, const std::string &name) {
    auto path = procPath(dir, name);
    return readNames("'" + name + "'",
                     [&](char *buffer, size_t size) { return llistxattr(path.c_str(), buffer, size); });
}

void removeLinkXattr(int dir, const std::string &name, const std::string &xattr) {
    if (lremovexattr(procPath(dir, name).c_str(), xattr.c_str()) != 0 && !hasNoAttributes(errno)) {
        throwErrno("removing the extended attribute '{}' of '{}'", xattr, name);
    }
}

const char *const aclRemoval = "setfacl -b";

bool aclLetsOthersReplace(int dir) {
    struct stat st;
    if (fstat(dir, &st) != 0) {
        throwErrno("reading the mode of an open directory");
    }
    if (!(st.st_mode & S_IWGRP) || (st.st_mode & S_ISVTX)) {
        return false;
    }
    // One that says no more than the mode is not kept by the kernel, so it need not be read.
    if (fgetxattr(dir, "system.posix_acl_access", nullptr, 0) >= 0) {
        return true;
    }
    if (hasNoAttributes(errno)) {
        return false;
    }
    throwErrno("asking for the ACL of an open directory");
}

void changeModeAt(int dir, const std::string &name, unsigned mode) {
    UniqueFd fd(openat(dir, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    struct stat st;
    if (!fd || fstat(fd.get(), &st) != 0) {
        throwErrno("opening '{}'", name);
    }
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) {
        throw Error(ErrorKind::badInput, "'{}' is neither a regular file nor a directory", name);
    }
    // An O_PATH descriptor takes no fchmod, but its entry in /proc leads to the very same inode.
    if (chmod(fmt::format("/proc/self/fd/{}", fd.get()).c_str(), mode) != 0) {
        throwErrno("changing the mode of '{}'", name);
    }
}

} // namespace firn
