#include "libstore/build/output-tree.hh"

#include <algorithm>

#include <fcntl.h>
#include <unistd.h>

#include "libstore/build/register-outputs.hh"
#include "libstore/store/xattrs.hh"
#include "libutil/directory-stack.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"

namespace firn {

namespace {

using Type = OutputNode::Type;

constexpr size_t maxDepth = 1024; // as many as the archive of it may have
constexpr struct timespec canonicalTimes[2] = {{0, UTIME_OMIT}, {1, 0}};
constexpr int openFlags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY;

[[noreturn]] void reject(const std::string &message) {
    throw BuildFailure(BuildResult::Status::outputRejected, message);
}

const char *typeName(mode_t mode) {
    switch (mode & S_IFMT) {
    case S_IFSOCK:
        return "a socket";
    case S_IFIFO:
        return "a FIFO";
    case S_IFBLK:
        return "a block device";
    case S_IFCHR:
        return "a character device";
    default:
        return "of an unknown type";
    }
}

/// Returns whether there was any to remove: then the mode may have changed and has to be set anew.
bool dropXattrs(int fd, const struct stat &st, const std::set<std::string> &ignored) {
    bool removed = false;
    for (const std::string &xattr : listXattrs(fd)) {
        if (ignored.contains(xattr)) {
            continue;
        }
        // Only who may write a file may remove its user attributes.
        if (!removed && (st.st_mode & 0200) == 0 && fchmod(fd, (st.st_mode & 0777) | 0200) != 0) {
            throwErrno("making it writable");
        }
        removeXattr(fd, xattr);
        removed = true;
    }
    return removed;
}

/// Asked of the kernel once for all files.
struct Owner {
    uid_t uid = geteuid();
    gid_t gid = getegid();
};

/// Owner, group, mode, time and extended attributes as a store has them. No system call where all is well
/// already, but for the attributes.
void setCanonical(int fd, const struct stat &st, const Owner &owner,
                  const std::set<std::string> &ignoredAcls) {
    bool stripped = dropXattrs(fd, st, ignoredAcls);
    bool owned = st.st_uid == owner.uid && st.st_gid == owner.gid;
    if (!owned && fchown(fd, owner.uid, owner.gid) != 0) {
        throwErrno("changing the owner");
    }
    mode_t mode = S_ISDIR(st.st_mode) || (st.st_mode & S_IXUSR) != 0 ? 0555 : 0444;
    if ((stripped || (st.st_mode & 07777) != mode) && fchmod(fd, mode) != 0) {
        throwErrno("changing the mode");
    }
    if (st.st_mtime != 1 && futimens(fd, canonicalTimes) != 0) {
        throwErrno("changing the modification time");
    }
}

/// Reading one output.
class Collector {
  public:
    Collector(int dir, const CollectOptions &options, LinkCounts &links)
        : options_(options), links_(links), way_(dir) {}

    OutputTree collect(const std::string &name);

  private:
    struct Remainder {
        uint32_t directory;
        size_t next = 0; ///< child to look at
    };

    void checkRoot(const std::string &name) const;
    void collectObject(uint32_t node);
    void collectDirectory(uint32_t node);
    void collectFile(uint32_t node);
    void collectSymlink(uint32_t node, const struct stat &st);
    void listChildren(uint32_t node);
    void makeReadable(uint32_t node) const;
    struct stat look(uint32_t node) const;
    UniqueFd openFile(uint32_t node) const;
    void enterDirectory(uint32_t node);
    void checkOwner(const struct stat &st, uint32_t node) const;
    void makeCanonical(int fd, const struct stat &st, uint32_t node) const;
    std::string display(uint32_t node) const;
    const char *name(uint32_t node) const { return tree_.nodes[node].name.c_str(); }

    const CollectOptions &options_;
    LinkCounts &links_;
    const Owner owner_;
    DirectoryStack way_;
    OutputTree tree_;
    std::vector<FileType> types_; ///< of each node, where its directory says so
    std::vector<Remainder> remainders_;
};

OutputTree Collector::collect(const std::string &name) {
    checkRoot(name);
    tree_.nodes.emplace_back().name = name;
    types_.push_back(FileType::unknown);
    collectObject(0);
    while (!remainders_.empty()) {
        Remainder &top = remainders_.back();
        const std::vector<uint32_t> &children = tree_.nodes[top.directory].children;
        if (top.next == children.size()) {
            remainders_.pop_back();
            way_.leave();
            continue;
        }
        collectObject(children[top.next++]);
    }
    return std::move(tree_);
}

/// If others could write to the root while the build ran, anybody may have interfered.
void Collector::checkRoot(const std::string &name) const {
    struct stat st;
    if (!statAt(way_.current(), name, st)) {
        throw Error(ErrorKind::notFound, "the output '{}' is not there", options_.displayPath);
    }
    bool writable = !S_ISLNK(st.st_mode) && (st.st_mode & (S_IWGRP | S_IWOTH)) != 0;
    bool foreign = options_.builderUid != static_cast<uid_t>(-1) && st.st_uid != options_.builderUid;
    if (writable || foreign) {
        reject(fmt::format("suspicious ownership or permission on '{}' for output '{}'; rejecting this build "
                           "output",
                           options_.displayPath, options_.outputName));
    }
}

struct stat Collector::look(uint32_t node) const {
    struct stat st;
    if (!statAt(way_.current(), name(node), st)) {
        throw Error(ErrorKind::failure, "'{}' vanished while it was looked at", display(node));
    }
    return st;
}

void Collector::collectObject(uint32_t node) {
    struct stat st {};
    FileType type = types_[node];
    if (type != FileType::regular && type != FileType::directory) {
        st = look(node);
        type = fileType(st.st_mode);
    }
    switch (type) {
    case FileType::regular:
        return collectFile(node);
    case FileType::directory:
        return collectDirectory(node);
    case FileType::symlink:
        return collectSymlink(node, st);
    default:
        reject(fmt::format("file '{}' has an unsupported type: it is {}; an output may hold regular files, "
                           "directories and symlinks",
                           display(node), typeName(st.st_mode)));
    }
}

/// What its own user may not read.
void Collector::makeReadable(uint32_t node) const {
    struct stat st = look(node);
    mode_t mode = (st.st_mode & 0777) | (S_ISDIR(st.st_mode) ? 0500 : 0400);
    if (fchmodat(way_.current(), name(node), mode, AT_SYMLINK_NOFOLLOW) != 0) {
        throwErrno("making '{}' readable", display(node));
    }
}

UniqueFd Collector::openFile(uint32_t node) const {
    UniqueFd fd(openat(way_.current(), name(node), openFlags));
    if (!fd && errno == EACCES) {
        makeReadable(node);
        fd.reset(openat(way_.current(), name(node), openFlags));
    }
    if (!fd) {
        throwErrno("opening '{}'", display(node));
    }
    return fd;
}

void Collector::enterDirectory(uint32_t node) {
    try {
        way_.enter(name(node));
    } catch (const SysError &e) {
        if (e.number() != EACCES) {
            throw;
        }
        makeReadable(node);
        way_.enter(name(node));
    }
}

void Collector::checkOwner(const struct stat &st, uint32_t node) const {
    if (options_.builderUid == static_cast<uid_t>(-1) || st.st_uid == options_.builderUid) {
        return;
    }
    // Another name of what was made ours a moment ago is fine.
    if (S_ISDIR(st.st_mode) || st.st_uid != owner_.uid || !links_.wasSeen(st)) {
        reject(fmt::format(
            "invalid ownership on file '{}': it belongs to uid {}, the build ran as {}; rejecting "
            "this build output",
            display(node), st.st_uid, options_.builderUid));
    }
}

void Collector::makeCanonical(int fd, const struct stat &st, uint32_t node) const {
    try {
        setCanonical(fd, st, owner_, options_.ignoredAcls);
    } catch (Error &e) {
        e.addContext("making '" + display(node) + "' canonical");
        throw;
    }
}

void Collector::collectFile(uint32_t node) {
    UniqueFd fd = openFile(node);
    struct stat st;
    if (fstat(fd.get(), &st) != 0 || !S_ISREG(st.st_mode)) {
        reject(fmt::format("file '{}' changed while it was looked at", display(node)));
    }
    checkOwner(st, node);
    if (st.st_nlink > 1) {
        links_.add(st);
        tree_.linked.push_back({node, st.st_dev, st.st_ino});
    }
    OutputNode &file = tree_.nodes[node];
    file.executable = (st.st_mode & S_IXUSR) != 0;
    file.size = static_cast<uint64_t>(st.st_size);
    makeCanonical(fd.get(), st, node);
}

void Collector::collectSymlink(uint32_t node, const struct stat &st) {
    int dir = way_.current();
    OutputNode &link = tree_.nodes[node];
    link.type = Type::symlink;
    link.target = readLinkAt(dir, link.name);
    checkOwner(st, node);
    if (st.st_nlink > 1) {
        links_.add(st);
    }
    for (const std::string &xattr : listLinkXattrs(dir, link.name)) {
        if (!options_.ignoredAcls.contains(xattr)) {
            removeLinkXattr(dir, link.name, xattr);
        }
    }
    bool owned = st.st_uid == owner_.uid && st.st_gid == owner_.gid;
    if (!owned && fchownat(dir, link.name.c_str(), owner_.uid, owner_.gid, AT_SYMLINK_NOFOLLOW) != 0) {
        throwErrno("changing the owner of '{}'", display(node));
    }
    if (st.st_mtime != 1 && utimensat(dir, link.name.c_str(), canonicalTimes, AT_SYMLINK_NOFOLLOW) != 0) {
        throwErrno("changing the modification time of '{}'", display(node));
    }
}

void Collector::collectDirectory(uint32_t node) {
    if (way_.depth() == maxDepth) {
        reject(fmt::format("'{}' lies deeper than {} directories", display(node), maxDepth));
    }
    enterDirectory(node);
    tree_.nodes[node].type = Type::directory;
    checkOwner(way_.currentStat(), node);
    makeCanonical(way_.current(), way_.currentStat(), node);
    listChildren(node);
    remainders_.push_back({node});
}

void Collector::listChildren(uint32_t node) {
    for (DirectoryEntry &entry : listEntries(way_.current())) {
        tree_.nodes[node].children.push_back(static_cast<uint32_t>(tree_.nodes.size()));
        OutputNode &child = tree_.nodes.emplace_back();
        child.parent = node;
        child.name = std::move(entry.name);
        types_.push_back(entry.type);
    }
}

std::string Collector::display(uint32_t node) const {
    std::string path = tree_.pathOf(node);
    return options_.displayPath + (path.empty() ? "" : "/" + escapeForDisplay(path));
}

} // namespace

std::string OutputTree::pathOf(uint32_t node) const {
    std::vector<const std::string *> names;
    for (; node != 0; node = nodes[node].parent) {
        names.push_back(&nodes[node].name);
    }
    std::string path;
    for (auto name = names.rbegin(); name != names.rend(); ++name) {
        path += (path.empty() ? "" : "/") + **name;
    }
    return path;
}

void LinkCounts::add(const struct stat &st) {
    Count &count = counts_[{st.st_dev, st.st_ino}];
    count.links = st.st_nlink;
    ++count.seen;
}

void LinkCounts::markLinkedOutside(OutputTree &tree) const {
    for (const LinkedNode &linked : tree.linked) {
        const Count &count = counts_.at({linked.device, linked.inode});
        tree.nodes[linked.node].linkedOutside = count.seen < count.links;
    }
}

OutputTree collectOutput(int dir, const std::string &name, const CollectOptions &options, LinkCounts &links) {
    return Collector(dir, options, links).collect(name);
}

namespace {

class Walker {
  public:
    Walker(int dir, const OutputTree &tree, OutputVisitor &visitor)
        : way_(dir), tree_(tree), visitor_(visitor) {}

    void walk() {
        visit(0);
        while (!remainders_.empty()) {
            Remainder &top = remainders_.back();
            const std::vector<uint32_t> &children = tree_.nodes[top.directory].children;
            if (top.next < children.size()) {
                visit(children[top.next++]);
                continue;
            }
            visitor_.leaveDirectory(way_.current(), top.directory);
            remainders_.pop_back();
            way_.leave();
        }
    }

  private:
    struct Remainder {
        uint32_t directory;
        size_t next = 0;
    };

    void visit(uint32_t node) {
        switch (tree_.nodes[node].type) {
        case Type::regular:
            return visitor_.file(way_.current(), node);
        case Type::symlink:
            return visitor_.symlink(way_.current(), node);
        case Type::directory:
            way_.enter(tree_.nodes[node].name);
            visitor_.enterDirectory(way_.current(), node);
            remainders_.push_back({node});
        }
    }

    DirectoryStack way_;
    const OutputTree &tree_;
    OutputVisitor &visitor_;
    std::vector<Remainder> remainders_;
};

} // namespace

void walkOutput(int dir, const OutputTree &tree, OutputVisitor &visitor) {
    Walker(dir, tree, visitor).walk();
}

namespace {

class FileVisitor : public OutputVisitor {
  public:
    explicit FileVisitor(const std::function<void(int dir, uint32_t node)> &onFile) : onFile_(onFile) {}
    void enterDirectory(int, uint32_t) override {}
    void leaveDirectory(int, uint32_t) override {}
    void symlink(int, uint32_t) override {}
    void file(int dir, uint32_t node) override { onFile_(dir, node); }

  private:
    const std::function<void(int dir, uint32_t node)> &onFile_;
};

} // namespace

void visitFiles(int dir, const OutputTree &tree, const std::function<void(int dir, uint32_t node)> &onFile) {
    FileVisitor visitor(onFile);
    walkOutput(dir, tree, visitor);
}

} // namespace firn
