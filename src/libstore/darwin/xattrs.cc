#include "libstore/store/xattrs.hh"

#include <cerrno>
#include <memory>
#include <type_traits>

#include <fcntl.h>
#include <sys/acl.h>
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

namespace {

using Acl = std::unique_ptr<std::remove_pointer_t<acl_t>, int (*)(void *)>;

bool letsChange(acl_entry_t entry) {
    acl_tag_t tag;
    acl_permset_t permissions;
    if (acl_get_tag_type(entry, &tag) != 0 || acl_get_permset(entry, &permissions) != 0) {
        throwErrno("reading an entry of an ACL");
    }
    for (acl_perm_t permission :
         {ACL_ADD_FILE, ACL_ADD_SUBDIRECTORY, ACL_DELETE_CHILD, ACL_WRITE_SECURITY, ACL_CHANGE_OWNER}) {
        if (tag == ACL_EXTENDED_ALLOW && acl_get_perm_np(permissions, permission) == 1) {
            return true;
        }
    }
    return false;
}

} // namespace

const char *const aclRemoval = "chmod -N";

// A right to delete in a directory overrides the sticky bit.
bool aclLetsOthersReplace(int dir) {
    Acl acl(acl_get_fd_np(dir, ACL_TYPE_EXTENDED), acl_free);
    if (!acl) {
        if (errno == ENOENT || errno == ENOTSUP) {
            return false;
        }
        throwErrno("asking for the ACL of an open directory");
    }
    acl_entry_t entry;
    for (int which = ACL_FIRST_ENTRY; acl_get_entry(acl.get(), which, &entry) == 0; which = ACL_NEXT_ENTRY) {
        if (letsChange(entry)) {
            return true;
        }
    }
    return false;
}

void changeModeAt(int dir, const std::string &name, unsigned mode) {
    if (fchmodat(dir, name.c_str(), static_cast<mode_t>(mode), AT_SYMLINK_NOFOLLOW) != 0) {
        throwErrno("changing the mode of '{}'", name);
    }
}

} // namespace firn
