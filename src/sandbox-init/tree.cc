#include "sandbox-init/tree.hh"

#include <algorithm>
#include <utility>

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox-init/sources.hh"

namespace firn::sandbox {

namespace {

/// No output and no input has such a name.
constexpr const char *sharedName = ".firn-mount-point";

constexpr int openDirectory = O_PATH | O_DIRECTORY | O_CLOEXEC;

int openHow(int root, const std::string &path, uint64_t resolve) {
    struct open_how how = {};
    how.flags = openDirectory;
    how.resolve = resolve | RESOLVE_NO_MAGICLINKS;
    return static_cast<int>(syscall(SYS_openat2, root, path.c_str(), &how, sizeof how));
}

/// One component after the other. The path is relative and plain.
int openByComponents(int root, std::string_view rest) {
    int at = root;
    while (!rest.empty()) {
        size_t slash = std::min(rest.find('/'), rest.size());
        std::string name(rest.substr(0, slash));
        rest.remove_prefix(std::min(slash + 1, rest.size()));
        int next = openat(at, name.c_str(), openDirectory | O_NOFOLLOW);
        int error = errno;
        if (at != root) {
            close(at);
        }
        if (next < 0) {
            errno = error;
            return -1;
        }
        at = next;
    }
    return at;
}

/// −1 with errno where there is a symlink on the way, too. Filters of system calls that are older than
/// openat2 refuse it.
int openWithoutSymlinks(int root, const std::string &path) {
    int fd = openHow(root, path, RESOLVE_NO_SYMLINKS);
    bool unknown = fd < 0 && (errno == ENOSYS || errno == EPERM);
    return unknown ? openByComponents(root, path) : fd;
}

} // namespace

FileIdentity identityOf(int fd, Step step, std::string_view name) {
    struct stat st;
    check(fstat(fd, &st), step, name);
    return {st.st_dev, st.st_ino};
}

Tree::Tree(int root, const Description &description)
    : root_(root), hosts_(!description.pivot), workingPath_(description.workingDirectory) {
    if (hosts_ && description.buildDirFd >= 0) {
        identity_ = identityOf(description.buildDirFd, Step::findTarget, workingPath_);
    }
}

Tree::Place Tree::placeOf(const SetupOp &op, Step step) {
    size_t slash = op.target.rfind('/');
    std::string parent = op.target.substr(0, slash);
    if (parentFd_ < 0 || parent != parentPath_) {
        if (hosts_) {
            fail(step, op.target, EPERM);
        }
        forgetParent();
        parentFd_ = parent.empty() ? root_ : openInside(parent, step);
        parentPath_ = parent;
    }
    return {parentFd_, op.target.c_str() + slash + 1};
}

void Tree::makeMountPoint(const SetupOp &op, mode_t mode) {
    if (hosts_) {
        return;
    }
    Place place = placeOf(op, Step::makeMountPoint);
    int made = S_ISDIR(mode) ? mkdirat(place.parent, place.name, op.mode)
                             : mknodat(place.parent, place.name, S_IFREG | 0644, 0);
    if (made < 0 && errno != EEXIST) {
        fail(Step::makeMountPoint, op.target);
    }
}

/// A file system may have no links, or only so many to one file.
void Tree::makeSharedMountPoint(const SetupOp &op, mode_t mode) {
    Place place = placeOf(op, Step::makeMountPoint);
    if (sharedIn_ < 0 && S_ISREG(mode) && mknodat(place.parent, sharedName, S_IFREG | 0644, 0) == 0) {
        sharedIn_ = check(fcntl(place.parent, F_DUPFD_CLOEXEC, 3), Step::makeMountPoint, op.target);
    }
    if (!S_ISREG(mode) || linkat(sharedIn_, sharedName, place.parent, place.name, 0) < 0) {
        makeMountPoint(op, mode);
    }
}

void Tree::removeSharedFile() {
    if (sharedIn_ >= 0) {
        check(unlinkat(sharedIn_, sharedName, 0), Step::makeMountPoint, sharedName);
        close(std::exchange(sharedIn_, -1));
    }
}

void Tree::attach(const SetupOp &op, int mount, unsigned long lateFlags) {
    int moved;
    if (hosts_) {
        bool isWorkingDirectory = op.target == workingPath_;
        int target = openExisting(op, Step::findTarget);
        moved = move_mount(mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
        check(moved, Step::attachMount, op.target);
        close(target);
        if (isWorkingDirectory) {
            identity_ = identityOf(mount, Step::attachMount, op.target);
        }
    } else {
        Place place = placeOf(op, Step::makeMountPoint);
        moved = move_mount(mount, "", place.parent, place.name, MOVE_MOUNT_F_EMPTY_PATH);
        check(moved, Step::attachMount, op.target);
    }
    if (lateFlags != 0) {
        setLateFlags(mount, lateFlags, op.target);
    }
    close(mount);
    forgetParentBelow(op.target);
}

void Tree::attachNew(const SetupOp &op, int mount) {
    int inside = check(fcntl(mount, F_DUPFD_CLOEXEC, 3), Step::attachMount, op.target);
    attach(op, mount);
    forgetParent();
    parentFd_ = inside;
    parentPath_ = op.target;
}

void Tree::changeToExisting(const SetupOp &op) {
    int fd = openExisting(op, Step::findTarget);
    check(fchdir(fd), Step::findTarget, op.target);
    close(fd);
}

int Tree::openInside(const std::string &path, Step step) {
    return check(openHow(root_, path, RESOLVE_IN_ROOT), step, path);
}

/// In the host's tree; see there.
int Tree::openExisting(const SetupOp &op, Step step) {
    int fd = check(openWithoutSymlinks(root_, op.target.substr(1)), step, op.target);
    bool replaced = op.target == workingPath_ && identity_ && identityOf(fd, step, op.target) != *identity_;
    if (replaced) {
        fail(step, op.target, ESTALE);
    }
    return fd;
}

void Tree::forgetParentBelow(const std::string &target) {
    if (parentFd_ >= 0 && (parentPath_ + "/").starts_with(target + "/")) {
        forgetParent();
    }
}

void Tree::forgetParent() {
    if (parentFd_ >= 0 && parentFd_ != root_) {
        close(parentFd_);
    }
    parentFd_ = -1;
}

} // namespace firn::sandbox
