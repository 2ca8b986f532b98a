#include "libstore/linux/exec-bind-mount.hh"

#include <cerrno>

#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

namespace firn {

ExecBindMount makeExecBindMount(int directory) {
    ExecBindMount mount;
    mount.fd = open_tree(directory, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (mount.fd < 0) {
        mount.error = errno;
        mount.step = "open_tree";
        return mount;
    }
    struct mount_attr attributes = {};
    attributes.attr_clr = MOUNT_ATTR_NOEXEC;
    // In the same call: a clone of a shared mount is its peer, and would show what the child mounts in it to
    // the host.
    attributes.propagation = MS_PRIVATE;
    if (mount_setattr(mount.fd, "", AT_EMPTY_PATH, &attributes, sizeof attributes) != 0) {
        mount.error = errno;
        mount.step = "mount_setattr";
        close(mount.fd);
        mount.fd = -1;
    }
    return mount;
}

} // namespace firn
