#include "libstore/linux/mount-calls.hh"

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

namespace firn {

namespace {

bool askForMountSetattr() {
    const char *choice = getenv("FIRN_CLASSIC_MOUNTS");
    if (choice && strcmp(choice, "1") == 0) {
        return false;
    }
    // Changes nothing where it exists.
    struct mount_attr nothing = {};
    return mount_setattr(-1, "", AT_EMPTY_PATH, &nothing, sizeof nothing) == 0 || errno != ENOSYS;
}

} // namespace

bool haveMountSetattr() {
    static const bool have = askForMountSetattr();
    return have;
}

bool mayMount() {
    // The right is looked at before the descriptor. Where the call is not known root's name must do: builds
    // without a sandbox may go without it.
    open_tree(-1, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    return errno == EBADF || (errno == ENOSYS && geteuid() == 0);
}

} // namespace firn
