#include "sandbox-init/sources.hh"

#include <algorithm>
#include <climits>

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "sandbox-init/fail.hh"
#include "sandbox-init/tree.hh"

namespace firn::sandbox {

namespace {

/// For messages.
std::string sourceName(const SetupOp &op) {
    return op.sourcePath.empty() ? op.target : op.sourcePath;
}

std::string pathOfDescriptor(const SetupOp &op) {
    std::string link = "/proc/self/fd/" + std::to_string(op.sourceFd);
    char path[PATH_MAX];
    ssize_t length = readlink(link.c_str(), path, sizeof path);
    if (length < 0 || length == sizeof path) {
        fail(Step::openSource, op.target, length < 0 ? errno : ENAMETOOLONG);
    }
    return std::string(path, static_cast<size_t>(length));
}

bool isSameFile(const SetupOp &op, int fd) {
    return identityOf(fd, Step::openSource, op.sourcePath) ==
           identityOf(op.sourceFd, Step::openSource, op.sourcePath);
}

int openTree(const SetupOp &op) {
    unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (op.flags & opRecursive ? AT_RECURSIVE : 0);
    if (op.source == SourceKind::descriptor && op.sourcePath.empty()) {
        return open_tree(op.sourceFd, "", flags | AT_EMPTY_PATH);
    }
    flags |= op.flags & opFollow ? 0 : AT_SYMLINK_NOFOLLOW;
    return open_tree(AT_FDCWD, op.sourcePath.c_str(), flags);
}

/// Set from the description; see there.
bool classicMounts = false;

void setFlags(OpenSource &source, const SetupOp &op) {
    if (classicMounts) {
        source.lateFlags = MS_NOSUID | (op.flags & opReadOnly ? MS_RDONLY : 0) |
                           (op.flags & opNoDev ? MS_NODEV : 0) | (op.flags & opRecursive ? MS_REC : 0);
        return;
    }
    addMountFlags(source.fd, op.flags, sourceName(op));
}

std::string linkOf(int fd) {
    return "/proc/self/fd/" + std::to_string(fd);
}

/// The flags in the form that mount() takes, as statfs shows them.
unsigned long flagsOf(int mount, std::string_view name) {
    struct statfs info;
    check(fstatfs(mount, &info), Step::setMountFlags, name);
    constexpr unsigned long same = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME;
    // Flags that statfs() and mount() number differently. Headers older than Linux 5.10 lack the last one.
    constexpr unsigned long shownRelatime = 0x1000, shownNosymfollow = 0x2000, nosymfollow = 0x100;
    auto flags = static_cast<unsigned long>(info.f_flags);
    unsigned long access = flags & shownRelatime ? MS_RELATIME : flags & MS_NOATIME ? 0 : MS_STRICTATIME;
    return (flags & same) | access | (flags & shownNosymfollow ? nosymfollow : 0);
}

/// The directory of a descriptor by its path, in the mount namespace of now.
int openAgain(const SetupOp &op, const std::string &path, Step step) {
    int fd = check(open(path.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), step, path);
    if (!isSameFile(op, fd)) {
        fail(step, path, ESTALE);
    }
    return fd;
}

/// A mount namespace between the daemon's and the sandbox's: what is mounted and changed in it is seen by
/// nobody else. Host paths mean in it what they mean on the host.
void enterOwnMounts() {
    static bool entered = false;
    if (!entered) {
        check(unshare(CLONE_NEWNS), Step::makeExecutable, "mount namespace");
        check(mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr), Step::makeExecutable, "/");
        entered = true;
    }
}

/// The way of Linux before 5.12: only an attached mount can be changed, so the directory is mounted on
/// itself, that mount is changed, and a clone of it taken out.
int openExecutable(const SetupOp &op) {
    enterOwnMounts();
    std::string path = pathOfDescriptor(op);
    int below = openAgain(op, path, Step::makeExecutable);
    std::string link = linkOf(below);
    check(mount(link.c_str(), link.c_str(), nullptr, MS_BIND, nullptr), Step::makeExecutable, path);
    int top = openAgain(op, path, Step::makeExecutable);
    unsigned long flags = MS_REMOUNT | MS_BIND | (flagsOf(top, path) & ~(unsigned long){MS_NOEXEC});
    check(mount(nullptr, linkOf(top).c_str(), nullptr, MS_PRIVATE, nullptr), Step::makeExecutable, path);
    check(mount(nullptr, linkOf(top).c_str(), nullptr, flags, nullptr), Step::makeExecutable, path);
    int clone = open_tree(top, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
    check(clone, Step::makeExecutable, path);
    check(umount2(linkOf(top).c_str(), MNT_DETACH), Step::makeExecutable, path);
    close(top);
    close(below);
    return clone;
}

std::string readLink(int link, const SetupOp &op) {
    char target[PATH_MAX];
    ssize_t length = readlinkat(link, "", target, sizeof target);
    if (length < 0 || length == sizeof target) {
        fail(Step::openSource, sourceName(op), length < 0 ? errno : ENAMETOOLONG);
    }
    return std::string(target, static_cast<size_t>(length));
}

mode_t modeOf(int fd, const SetupOp &op) {
    struct stat st;
    check(fstat(fd, &st), Step::openSource, sourceName(op));
    return st.st_mode;
}

} // namespace

void addMountFlags(int mount, uint32_t opFlags, std::string_view name) {
    struct mount_attr attributes = {};
    attributes.attr_set = MOUNT_ATTR_NOSUID;
    attributes.attr_set |= opFlags & opReadOnly ? MOUNT_ATTR_RDONLY : 0;
    attributes.attr_set |= opFlags & opNoDev ? MOUNT_ATTR_NODEV : 0;
    attributes.propagation = MS_PRIVATE;
    unsigned flags = AT_EMPTY_PATH | (opFlags & opRecursive ? AT_RECURSIVE : 0);
    check(mount_setattr(mount, "", flags, &attributes, sizeof attributes), Step::setMountFlags, name);
}

OpenSource openSource(const SetupOp &op) {
    OpenSource source;
    if (op.source == SourceKind::mount) {
        source.fd = op.sourceFd;
        source.mode = modeOf(op.sourceFd, op);
        if (op.flags & opNoDev) {
            setFlags(source, op); // an unsandboxed build's directory keeps the host's flags
        }
        return source;
    }
    source.fd = op.flags & opExecutable ? openExecutable(op) : openTree(op);
    if (source.fd < 0 && errno == ENOENT && (op.flags & opOptional)) {
        return source;
    }
    check(source.fd, Step::openSource, sourceName(op));
    if (op.source == SourceKind::descriptor && !op.sourcePath.empty() && !isSameFile(op, source.fd)) {
        fail(Step::openSource, op.sourcePath, ESTALE);
    }
    source.mode = modeOf(source.fd, op);
    if (S_ISLNK(source.mode)) {
        source.linkTarget = readLink(source.fd, op);
        close(source.fd);
        source.fd = -1;
    } else if ((op.flags & opExecutable) == 0 || (op.flags & opNoDev)) {
        setFlags(source, op); // likewise
    }
    return source;
}

void setLateFlags(int mounted, unsigned long flags, std::string_view name, Step step) {
    std::string link = linkOf(mounted);
    check(mount(nullptr, link.c_str(), nullptr, MS_PRIVATE | (flags & MS_REC), nullptr), step, name);
    flags = (flags & ~(unsigned long){MS_REC}) | flagsOf(mounted, name) | MS_REMOUNT | MS_BIND;
    check(mount(nullptr, link.c_str(), nullptr, flags, nullptr), step, name);
}

int openOverlayDirectory(const SetupOp &op) {
    return openAgain(op, op.sourcePath, Step::mountOverlay);
}

namespace {

bool isExecutable(const SetupOp &op) {
    return (op.flags & opExecutable) != 0;
}

/// With the daemon's rights, as many as there are descriptors for. Takes from `room` what it uses.
void openWithFlag(const Description &description, uint32_t flag, Sources &sources, size_t &room) {
    for (size_t i = 0; i < sources.ofOps.size() && room > 0; i++) {
        const SetupOp &op = description.ops[i];
        if ((op.flags & flag) != 0 && !isExecutable(op) && !sources.inputs.has(i)) {
            sources.ofOps[i] = openSource(op);
            room -= sources.ofOps[i].fd >= 0 ? 1 : 0;
        }
    }
}

/// What only the daemon's mount namespace can give must be had whatever else there is room for. It comes
/// last, since it takes us to another mount namespace, in which descriptors of this one cannot be cloned.
void openExecutables(const Description &description, std::vector<OpenSource> &sources) {
    for (size_t i = 0; i < sources.size(); i++) {
        if (isExecutable(description.ops[i])) {
            sources[i] = openSource(description.ops[i]);
        }
    }
}

} // namespace

Sources openEarlySources(Description &description, size_t descriptors) {
    classicMounts = description.classicMounts;
    Sources sources;
    sources.ofOps.resize(description.ops.size());
    if (description.privileged) {
        sources.inputs.open(description);
        // Some are for the rest of the set-up, and sources that only the daemon can open come first.
        constexpr size_t others = 128;
        auto executables =
            static_cast<size_t>(std::count_if(description.ops.begin(), description.ops.end(), isExecutable));
        size_t room = descriptors > others + executables ? descriptors - others - executables : 0;
        openWithFlag(description, opEarly, sources, room);
        openWithFlag(description, opEarlyIfRoom, sources, room);
    }
    for (size_t i = 0; i < sources.ofOps.size(); i++) {
        SetupOp &op = description.ops[i];
        if (op.source == SourceKind::descriptor && sources.ofOps[i].fd < 0 && !isExecutable(op)) {
            op.sourcePath = pathOfDescriptor(op);
        }
    }
    openExecutables(description, sources.ofOps);
    return sources;
}

} // namespace firn::sandbox
