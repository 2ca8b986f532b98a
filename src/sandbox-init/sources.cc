#include "sandbox-init/sources.hh"

#include <climits>

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sandbox-init/fail.hh"

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

bool isSameFile(int left, int right) {
    struct stat a, b;
    return fstat(left, &a) == 0 && fstat(right, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

int openTree(const SetupOp &op) {
    unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (op.flags & opRecursive ? AT_RECURSIVE : 0);
    if (op.source == SourceKind::descriptor && op.sourcePath.empty()) {
        return open_tree(op.sourceFd, "", flags | AT_EMPTY_PATH);
    }
    flags |= op.flags & opFollow ? 0 : AT_SYMLINK_NOFOLLOW;
    return open_tree(AT_FDCWD, op.sourcePath.c_str(), flags);
}

void setFlags(int mount, const SetupOp &op) {
    struct mount_attr attributes = {};
    attributes.attr_set = MOUNT_ATTR_NOSUID;
    attributes.attr_set |= op.flags & opReadOnly ? MOUNT_ATTR_RDONLY : 0;
    attributes.attr_set |= op.flags & opNoDev ? MOUNT_ATTR_NODEV : 0;
    attributes.propagation = MS_PRIVATE;
    unsigned flags = AT_EMPTY_PATH | (op.flags & opRecursive ? AT_RECURSIVE : 0);
    check(mount_setattr(mount, "", flags, &attributes, sizeof attributes), Step::setMountFlags,
          sourceName(op));
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

OpenSource openSource(const SetupOp &op) {
    OpenSource source;
    if (op.source == SourceKind::mount) {
        source.fd = op.sourceFd;
        source.mode = modeOf(op.sourceFd, op);
        return source;
    }
    source.fd = openTree(op);
    if (source.fd < 0 && errno == ENOENT && (op.flags & opOptional)) {
        return source;
    }
    check(source.fd, Step::openSource, sourceName(op));
    if (op.source == SourceKind::descriptor && !op.sourcePath.empty() &&
        !isSameFile(source.fd, op.sourceFd)) {
        fail(Step::openSource, op.sourcePath, ESTALE);
    }
    source.mode = modeOf(source.fd, op);
    if (S_ISLNK(source.mode)) {
        source.linkTarget = readLink(source.fd, op);
        close(source.fd);
        source.fd = -1;
    } else {
        setFlags(source.fd, op);
    }
    return source;
}

std::vector<OpenSource> openEarlySources(Description &description, size_t descriptors) {
    std::vector<OpenSource> sources(description.ops.size());
    // Some are for the rest of the set-up, and sources that only the daemon can open come first.
    size_t room = descriptors > 128 ? descriptors - 128 : 0;
    for (uint32_t flag : {uint32_t{opEarly}, uint32_t{opEarlyIfRoom}}) {
        for (size_t i = 0; i < sources.size() && description.privileged && room > 0; i++) {
            if (description.ops[i].flags & flag) {
                sources[i] = openSource(description.ops[i]);
                room -= sources[i].fd >= 0 ? 1 : 0;
            }
        }
    }
    for (size_t i = 0; i < sources.size(); i++) {
        SetupOp &op = description.ops[i];
        if (op.source == SourceKind::descriptor && sources[i].fd < 0) {
            op.sourcePath = pathOfDescriptor(op);
        }
    }
    return sources;
}

} // namespace firn::sandbox
