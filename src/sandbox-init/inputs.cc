#include "sandbox-init/inputs.hh"

#include <algorithm>
#include <string>
#include <utility>

#include <fcntl.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sandbox-init/fail.hh"
#include "sandbox-init/sources.hh"

namespace firn::sandbox {

namespace {

/// For fewer the clone costs more than it saves.
constexpr auto fewest = 8;

/// In the sandbox's root, which holds nothing by that name yet.
constexpr const char *place = ".firn-inputs";

bool isInput(const SetupOp &op) {
    return (op.flags & opInput) != 0;
}

const char *nameOf(const SetupOp &op) {
    return op.sourcePath.c_str() + op.sourcePath.rfind('/') + 1;
}

/// The builder's user for looking files up, until the end of the scope: for another user than root the kernel
/// takes the rights to reach every file away as well. It clears the death signal when that changes, and
/// "dumpable".
class LookUpAs {
  public:
    /// Both calls give back what there was.
    LookUpAs(uid_t user, gid_t group) : group_(setfsgid(group)), user_(setfsuid(user)) {}
    LookUpAs(const LookUpAs &) = delete;
    LookUpAs &operator=(const LookUpAs &) = delete;
    ~LookUpAs() {
        setfsuid(static_cast<uid_t>(user_));
        setfsgid(static_cast<gid_t>(group_));
    }

  private:
    int group_, user_;
};

/// Whether root without any rights but those of a file's mode gets at what is in the directory: so it is in
/// the sandbox, where it is root of nothing.
bool rootMaySearch(int directory) {
    struct stat st;
    check(fstat(directory, &st), Step::openSource, "the inputs' directory");
    constexpr mode_t everybody = S_IXUSR | S_IXGRP | S_IXOTH;
    return (st.st_uid == 0 && (st.st_mode & S_IXUSR) != 0) || (st.st_mode & everybody) == everybody;
}

/// 0 unless it can be bound by its name from a clone of the directory alone.
mode_t plainMode(int directory, const char *name) {
    struct statx info;
    if (statx(directory, name, AT_SYMLINK_NOFOLLOW, STATX_TYPE, &info) < 0) {
        return 0;
    }
    bool knowsMounts = (info.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT) != 0;
    bool isMount = (info.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
    bool plain = S_ISDIR(info.stx_mode) || S_ISREG(info.stx_mode);
    return knowsMounts && !isMount && plain ? info.stx_mode : mode_t{0};
}

} // namespace

void InputDirectory::open(const Description &description) {
    const std::vector<SetupOp> &ops = description.ops;
    if (description.classicMounts || std::count_if(ops.begin(), ops.end(), isInput) < fewest) {
        return;
    }
    int directory = ::open(description.inputDirectory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) {
        return;
    }
    bool builderIsRoot = description.privileged && description.outsideUid == 0;
    if (!builderIsRoot || rootMaySearch(directory)) {
        clone_ = open_tree(directory, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
    }
    if (clone_ >= 0) {
        addMountFlags(clone_, opReadOnly | opNoDev, description.inputDirectory);
        lookUp(directory, description);
    }
    close(directory);
}

/// In the sandbox they are looked up once more, by the builder's user: what only the daemon can reach is not
/// for us.
void InputDirectory::lookUp(int directory, const Description &description) {
    LookUpAs user(description.privileged ? description.outsideUid : geteuid(),
                  description.privileged ? description.outsideGid : getegid());
    modes_.assign(description.ops.size(), 0);
    for (size_t i = 0; i < modes_.size(); i++) {
        if (isInput(description.ops[i])) {
            modes_[i] = plainMode(directory, nameOf(description.ops[i]));
        }
    }
}

void InputDirectory::attach(int root) {
    check(mkdirat(root, place, 0700), Step::makeDirectory, place);
    check(move_mount(clone_, "", root, place, MOVE_MOUNT_F_EMPTY_PATH), Step::attachMount, place);
    attached_ = true;
}

/// No symlink is followed, whatever has become of the source since it was looked up. The names on the
/// target's way are made by our own operations alone: sandbox paths come after the inputs.
void InputDirectory::bind(int root, const SetupOp &op) {
    if (!attached_) {
        attach(root);
    }
    constexpr unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW;
    int input = check(open_tree(clone_, nameOf(op), flags), Step::openSource, op.sourcePath);
    check(move_mount(input, "", root, op.target.c_str() + 1, MOVE_MOUNT_F_EMPTY_PATH), Step::attachMount,
          op.target);
    close(input);
}

/// The host's root goes with all that is mounted in it, at one go: to unmount this by itself would mean to
/// wait for the kernel a second time.
void InputDirectory::leave(int root, const Description &description) {
    if (clone_ >= 0) {
        close(clone_);
        clone_ = -1;
    }
    if (!std::exchange(attached_, false)) {
        return;
    }
    if (move_mount(root, place, AT_FDCWD, description.inputDirectory.c_str(), 0) < 0) {
        check(umount2(place, MNT_DETACH | UMOUNT_NOFOLLOW), Step::attachMount, place);
    }
    check(unlinkat(root, place, AT_REMOVEDIR), Step::makeDirectory, place);
}

} // namespace firn::sandbox
