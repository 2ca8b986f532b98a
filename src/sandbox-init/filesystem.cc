#include "sandbox-init/filesystem.hh"

#include <cstring>

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox-init/fail.hh"

namespace firn::sandbox {

namespace {

/// Makes file system objects below the new root. Targets are looked up inside that root alone, whatever
/// symlinks a sandbox path brought along; the last parent stays open, since most operations come in runs
/// (devices, store paths).
class Tree {
  public:
    explicit Tree(int root) : root_(root) {}

    int root() const { return root_; }

    struct Place {
        int parent;
        const char *name; ///< points into the operation's target
    };

    Place placeOf(const SetupOp &op, Step step) {
        size_t slash = op.target.rfind('/');
        std::string parent = op.target.substr(0, slash);
        if (parentFd_ < 0 || parent != parentPath_) {
            forgetParent();
            parentFd_ = parent.empty() ? root_ : openInside(parent, step);
            parentPath_ = parent;
        }
        return {parentFd_, op.target.c_str() + slash + 1};
    }

    /// After a mount: the open parent may now lie underneath it.
    void forgetParentBelow(const std::string &target) {
        if (parentFd_ >= 0 && (parentPath_ + "/").starts_with(target + "/")) {
            forgetParent();
        }
    }

  private:
    int openInside(const std::string &path, Step step) {
        struct open_how how = {};
        how.flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
        how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
        long fd = syscall(SYS_openat2, root_, path.c_str(), &how, sizeof how);
        return check(static_cast<int>(fd), step, path);
    }
    void forgetParent() {
        if (parentFd_ >= 0 && parentFd_ != root_) {
            close(parentFd_);
        }
        parentFd_ = -1;
    }

    int root_;
    int parentFd_ = -1;
    std::string parentPath_;
};

/// Unless it is there already.
void makeDirectory(Tree &tree, const SetupOp &op, Step step) {
    Tree::Place place = tree.placeOf(op, step);
    if (mkdirat(place.parent, place.name, op.mode) < 0 && errno != EEXIST) {
        fail(step, op.target);
    }
}

void writeAll(int fd, std::string_view data, const SetupOp &op) {
    while (!data.empty()) {
        ssize_t written =
            check(static_cast<int>(write(fd, data.data(), data.size())), Step::makeFile, op.target);
        data.remove_prefix(static_cast<size_t>(written));
    }
}

void makeFile(Tree &tree, const SetupOp &op) {
    Tree::Place place = tree.placeOf(op, Step::makeFile);
    int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    int fd = check(openat(place.parent, place.name, flags, op.mode), Step::makeFile, op.target);
    writeAll(fd, op.data, op);
    close(fd);
}

void makeSymlink(Tree &tree, const SetupOp &op, const std::string &linkTarget) {
    Tree::Place place = tree.placeOf(op, Step::makeSymlink);
    check(symlinkat(linkTarget.c_str(), place.parent, place.name), Step::makeSymlink, op.target);
}

void attach(Tree &tree, const SetupOp &op, int mount, unsigned long lateFlags = 0) {
    Tree::Place place = tree.placeOf(op, Step::makeMountPoint);
    int moved = move_mount(mount, "", place.parent, place.name, MOVE_MOUNT_F_EMPTY_PATH);
    check(moved, Step::attachMount, op.target);
    if (lateFlags != 0) {
        setLateFlags(mount, lateFlags, op.target);
    }
    close(mount);
    tree.forgetParentBelow(op.target);
}

void bindSource(Tree &tree, const SetupOp &op, const OpenSource &source) {
    if (!source.linkTarget.empty()) {
        makeSymlink(tree, op, source.linkTarget);
        return;
    }
    if (S_ISDIR(source.mode)) {
        makeDirectory(tree, op, Step::makeMountPoint);
    } else {
        Tree::Place place = tree.placeOf(op, Step::makeMountPoint);
        if (mknodat(place.parent, place.name, S_IFREG | 0644, 0) < 0 && errno != EEXIST) {
            fail(Step::makeMountPoint, op.target);
        }
    }
    attach(tree, op, source.fd, source.lateFlags);
}

void bindOp(Tree &tree, const SetupOp &op, OpenSource &early) {
    bool opened = early.fd >= 0 || !early.linkTarget.empty();
    OpenSource source = opened ? std::move(early) : openSource(op);
    bool absent = source.fd < 0 && source.linkTarget.empty();
    if (!absent) {
        bindSource(tree, op, source);
    }
}

/// A mount of the directory on itself, so that it stays writable when the root's own mount becomes read-only.
void ownMount(Tree &tree, const SetupOp &op) {
    makeDirectory(tree, op, Step::makeDirectory);
    Tree::Place place = tree.placeOf(op, Step::makeDirectory);
    check(fchmodat(place.parent, place.name, op.mode, 0), Step::makeDirectory, op.target);
    int mount =
        open_tree(place.parent, place.name, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW);
    attach(tree, op, check(mount, Step::openSource, op.target));
}

/// The classic call suffices where the type is given: its target is relative to the new root, our working
/// directory, and lies where only our own operations have been.
void mountType(Tree &tree, const SetupOp &op, const char *type, unsigned long flags, Step step) {
    makeDirectory(tree, op, Step::makeMountPoint);
    std::string relative = op.target.substr(1);
    check(mount(type, relative.c_str(), type, flags, op.data.c_str()), step, op.target);
    tree.forgetParentBelow(op.target);
}

/// Its files are in the source's directory `upper`, and executable although that may lie on a mount that is
/// noexec: this mount is another one, and ours. Only names relative to the open directory are looked up.
void mountOverlay(Tree &tree, const SetupOp &op) {
    int directory = openOverlayDirectory(op);
    check(fchdir(directory), Step::mountOverlay, op.target);
    int context = check(fsopen("overlay", FSOPEN_CLOEXEC), Step::mountOverlay, "overlay");
    for (const char *option : {"lower", "upper", "work"}) {
        std::string name = std::string(option) + "dir";
        check(fsconfig(context, FSCONFIG_SET_STRING, name.c_str(), option, 0), Step::mountOverlay, name);
    }
    check(fsconfig(context, FSCONFIG_SET_FLAG, "userxattr", nullptr, 0), Step::mountOverlay, "userxattr");
    check(fsconfig(context, FSCONFIG_CMD_CREATE, nullptr, nullptr, 0), Step::mountOverlay, op.target);
    int mount = fsmount(context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    check(mount, Step::mountOverlay, op.target);
    close(context);
    close(directory);
    check(fchdir(tree.root()), Step::makeRoot, "/");
    makeDirectory(tree, op, Step::makeMountPoint);
    attach(tree, op, mount);
}

void runOp(Tree &tree, const SetupOp &op, OpenSource &early) {
    switch (op.kind) {
    case OpKind::directory:
        return makeDirectory(tree, op, Step::makeDirectory);
    case OpKind::file:
        return makeFile(tree, op);
    case OpKind::symlink:
        return makeSymlink(tree, op, op.data);
    case OpKind::bind:
        return bindOp(tree, op, early);
    case OpKind::tmpfs:
        return mountType(tree, op, "tmpfs", MS_NOSUID | MS_NODEV, Step::mountTmpfs);
    case OpKind::ownMount:
        return ownMount(tree, op);
    case OpKind::proc:
        return mountType(tree, op, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, Step::mountProc);
    case OpKind::devpts:
        return mountType(tree, op, "devpts", MS_NOSUID | MS_NOEXEC, Step::mountDevpts);
    case OpKind::overlay:
        return mountOverlay(tree, op);
    }
}

/// Mounts a tmpfs over "/". Our own root stays the directory underneath, so host paths still mean the host's.
int makeRoot() {
    int context = check(fsopen("tmpfs", FSOPEN_CLOEXEC), Step::makeRoot, "tmpfs");
    check(fsconfig(context, FSCONFIG_SET_STRING, "mode", "0755", 0), Step::makeRoot, "mode");
    check(fsconfig(context, FSCONFIG_CMD_CREATE, nullptr, nullptr, 0), Step::makeRoot, "tmpfs");
    unsigned flags = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
    int root = check(fsmount(context, FSMOUNT_CLOEXEC, flags), Step::makeRoot, "tmpfs");
    check(move_mount(root, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH), Step::makeRoot, "/");
    close(context);
    return root;
}

void sealRoot(int root, bool classicMounts) {
    if (classicMounts) {
        return setLateFlags(root, MS_RDONLY, "/", Step::sealRoot);
    }
    struct mount_attr attributes = {};
    attributes.attr_set = MOUNT_ATTR_RDONLY;
    check(mount_setattr(root, "", AT_EMPTY_PATH, &attributes, sizeof attributes), Step::sealRoot, "/");
}

/// The new root on top, the old one stacked below it and then let go with everything mounted in it.
void enterRoot() {
    check(static_cast<int>(syscall(SYS_pivot_root, ".", ".")), Step::enterRoot, "/");
    check(umount2(".", MNT_DETACH), Step::enterRoot, "the host's root");
    check(chdir("/"), Step::enterRoot, "/");
}

int openHostTree() {
    // Unsandboxed: what the host mounts later still appears, what we mount stays with us.
    check(mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr), Step::makeRoot, "/");
    return check(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), Step::makeRoot, "/");
}

} // namespace

void setUpFileSystem(const Description &description, std::vector<OpenSource> &early) {
    int root = description.pivot ? makeRoot() : openHostTree();
    check(fchdir(root), Step::makeRoot, "/");
    Tree tree(root);
    umask(0);
    for (size_t i = 0; i < description.ops.size(); i++) {
        runOp(tree, description.ops[i], early[i]);
    }
    umask(022);
    if (description.pivot) {
        if (description.readOnlyRoot) {
            sealRoot(root, description.classicMounts);
        }
        enterRoot();
    }
    close(root);
}

} // namespace firn::sandbox
