#include "sandbox-init/filesystem.hh"

#include <algorithm>
#include <cstring>

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox-init/fail.hh"
#include "sandbox-init/tree.hh"

namespace firn::sandbox {

namespace {

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

void makeFile(Tree &tree, const SetupOp &op, const Description &description) {
    Tree::Place place = tree.placeOf(op, Step::makeFile);
    int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    int fd = check(openat(place.parent, place.name, flags, op.mode), Step::makeFile, op.target);
    writeAll(fd, op.data, op);
    if (op.flags & opBuilders) {
        check(fchown(fd, description.insideUid, description.insideGid), Step::makeFile, op.target);
    }
    close(fd);
}

void makeSymlink(Tree &tree, const SetupOp &op, const std::string &linkTarget) {
    Tree::Place place = tree.placeOf(op, Step::makeSymlink);
    check(symlinkat(linkTarget.c_str(), place.parent, place.name), Step::makeSymlink, op.target);
}

void bindSource(Tree &tree, const SetupOp &op, const OpenSource &source) {
    if (!source.linkTarget.empty()) {
        makeSymlink(tree, op, source.linkTarget);
        return;
    }
    tree.makeMountPoint(op, source.mode);
    tree.attach(op, source.fd, source.lateFlags);
}

void bindInput(Tree &tree, const SetupOp &op, InputDirectory &inputs, mode_t mode) {
    tree.makeSharedMountPoint(op, mode);
    inputs.bind(tree.root(), op);
    tree.forgetParentBelow(op.target);
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
    tree.attach(op, check(mount, Step::openSource, op.target));
}

/// A detached mount of a new file system. Options are "name=value" or "name", separated by commas.
int newMount(const char *type, std::string_view options, unsigned attributes, Step step) {
    int context = check(fsopen(type, FSOPEN_CLOEXEC), step, type);
    while (!options.empty()) {
        size_t end = std::min(options.find(','), options.size());
        std::string name(options.substr(0, end)), value;
        options.remove_prefix(std::min(end + 1, options.size()));
        size_t equals = name.find('=');
        bool flag = equals == std::string::npos;
        if (!flag) {
            value = name.substr(equals + 1);
            name.resize(equals);
        }
        int result = fsconfig(context, flag ? FSCONFIG_SET_FLAG : FSCONFIG_SET_STRING, name.c_str(),
                              flag ? nullptr : value.c_str(), 0);
        check(result, step, name);
    }
    check(fsconfig(context, FSCONFIG_CMD_CREATE, nullptr, nullptr, 0), step, type);
    int mount = check(fsmount(context, FSMOUNT_CLOEXEC, attributes), step, type);
    close(context);
    return mount;
}

/// The classic call suffices where the type is given: its target is relative to our working directory. In a
/// root of our own that is the root, and the way to it has been made by our own operations alone.
void mountType(Tree &tree, const SetupOp &op, const char *type, unsigned long flags, Step step) {
    if (tree.isHosts()) {
        tree.changeToExisting(op);
        check(mount(type, ".", type, flags, op.data.c_str()), step, op.target);
        check(fchdir(tree.root()), step, "/");
    } else {
        tree.makeMountPoint(op, S_IFDIR);
        check(mount(type, op.target.c_str() + 1, type, flags, op.data.c_str()), step, op.target);
    }
    tree.forgetParentBelow(op.target);
}

void mountTmpfs(Tree &tree, const SetupOp &op, FileSystemResult &result) {
    int mount = newMount("tmpfs", op.data, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, Step::mountTmpfs);
    if (op.flags & opWatchSpace) {
        result.watched = check(fcntl(mount, F_DUPFD_CLOEXEC, 3), Step::mountTmpfs, op.target);
    }
    tree.makeMountPoint(op, S_IFDIR);
    tree.attachNew(op, mount);
}

/// Its files are in the source's directory `upper`, and executable although that may lie on a mount that is
/// noexec: this mount is another one, and ours. Only names relative to the open directory are looked up.
void mountOverlay(Tree &tree, const SetupOp &op) {
    int directory = openOverlayDirectory(op);
    check(fchdir(directory), Step::mountOverlay, op.target);
    int mount = newMount("overlay", "lowerdir=lower,upperdir=upper,workdir=work,userxattr",
                         MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, Step::mountOverlay);
    close(directory);
    check(fchdir(tree.root()), Step::makeRoot, "/");
    tree.makeMountPoint(op, S_IFDIR);
    tree.attach(op, mount);
}

void runOp(Tree &tree, const SetupOp &op, OpenSource &early, const Description &description,
           FileSystemResult &result) {
    switch (op.kind) {
    case OpKind::directory:
        return makeDirectory(tree, op, Step::makeDirectory);
    case OpKind::file:
        return makeFile(tree, op, description);
    case OpKind::symlink:
        return makeSymlink(tree, op, op.data);
    case OpKind::bind:
        return bindOp(tree, op, early);
    case OpKind::tmpfs:
        return mountTmpfs(tree, op, result);
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
    int root = newMount("tmpfs", "mode=0755", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, Step::makeRoot);
    check(move_mount(root, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH), Step::makeRoot, "/");
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

/// They come one after the other. What comes behind them finds nothing of what they were made from.
void leaveInputs(Tree &tree, const Description &description, InputDirectory &inputs) {
    if (inputs.isAttached()) {
        tree.removeSharedFile();
        inputs.leave(tree.root(), description);
    }
}

void runOps(Tree &tree, const Description &description, Sources &sources, FileSystemResult &result) {
    for (size_t i = 0; i < description.ops.size(); i++) {
        const SetupOp &op = description.ops[i];
        if (sources.inputs.has(i)) {
            bindInput(tree, op, sources.inputs, sources.inputs.mode(i));
            continue;
        }
        if ((op.flags & opInput) == 0) {
            leaveInputs(tree, description, sources.inputs);
        }
        runOp(tree, op, sources.ofOps[i], description, result);
    }
    leaveInputs(tree, description, sources.inputs);
}

} // namespace

FileSystemResult setUpFileSystem(const Description &description, Sources &sources) {
    if (!description.privileged) {
        sources.inputs.open(description);
    }
    int root = description.pivot ? makeRoot() : openHostTree();
    check(fchdir(root), Step::makeRoot, "/");
    Tree tree(root, description);
    FileSystemResult result;
    umask(0);
    runOps(tree, description, sources, result);
    tree.removeSharedFile();
    sources.inputs.leave(root, description);
    umask(022);
    if (description.pivot) {
        if (description.readOnlyRoot) {
            sealRoot(root, description.classicMounts);
        }
        enterRoot();
    }
    close(root);
    result.workingDirectory = tree.workingDirectory();
    return result;
}

} // namespace firn::sandbox
