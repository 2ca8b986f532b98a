#include "libstore/build/output-tree.hh"

#include <algorithm>
#include <memory>

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "libstore/build/register-outputs.hh"
#include "libstore/store/extended-attributes.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"

namespace firn {

namespace {

using Type = OutputNode::Type;

constexpr size_t maxDepth = 1024; // as many as the archive of it may have
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

/// Reading one output. Names of members are those of the tree; `at` is always "dir, name" of the object.
class Collector {
  public:
    Collector(const CollectOptions &options, LinkCounts &links) : options_(options), links_(links) {}

    OutputTree collect(int dir, const std::string &name);

  private:
    struct Frame {
        uint32_t node;
        UniqueFd fd;
        size_t next = 0; ///< child to look at
    };

    void checkRoot(int dir, const std::string &name) const;
    void collectObject(int dir, uint32_t node);
    void collectDirectory(int dir, uint32_t node);
    void collectFile(int dir, uint32_t node);
    void collectSymlink(int dir, uint32_t node, const struct stat &st);
    void listChildren(int fd, uint32_t node);
    UniqueFd openObject(int dir, uint32_t node, int flags);
    void checkOwner(const struct stat &st, uint32_t node) const;
    std::string display(uint32_t node) const;

    const CollectOptions &options_;
    LinkCounts &links_;
    OutputTree tree_;
    std::vector<mode_t> types_; ///< S_IF… of each node where its directory says so, or 0
    std::vector<Frame> stack_;
};

OutputTree Collector::collect(int dir, const std::string &name) {
    checkRoot(dir, name);
    tree_.nodes.emplace_back().name = name;
    types_.push_back(0);
    collectObject(dir, 0);
    while (!stack_.empty()) {
        Frame &top = stack_.back();
        const std::vector<uint32_t> &children = tree_.nodes[top.node].children;
        if (top.next == children.size()) {
            stack_.pop_back();
            continue;
        }
        collectObject(top.fd.get(), children[top.next++]);
    }
    return std::move(tree_);
}

/// If others could write to the root while the build ran, anybody may have interfered.
void Collector::checkRoot(int dir, const std::string &name) const {
    struct stat st;
    if (fstatat(dir, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
        throwErrno("looking at the output '{}'", options_.displayPath);
    }
    bool writable = !S_ISLNK(st.st_mode) && (st.st_mode & (S_IWGRP | S_IWOTH)) != 0;
    bool foreign = options_.builderUid != static_cast<uid_t>(-1) && st.st_uid != options_.builderUid;
    if (writable || foreign) {
        reject(fmt::format("suspicious ownership or permission on '{}' for output '{}'; rejecting this build "
                           "output",
                           options_.displayPath, options_.outputName));
    }
}

void Collector::collectObject(int dir, uint32_t node) {
    mode_t type = types_[node];
    struct stat st {};
    if (type == 0 || type == S_IFLNK) {
        const char *name = tree_.nodes[node].name.c_str();
        if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
            throwErrno("looking at '{}'", display(node));
        }
        type = st.st_mode & S_IFMT;
    }
    switch (type) {
    case S_IFREG:
        return collectFile(dir, node);
    case S_IFDIR:
        return collectDirectory(dir, node);
    case S_IFLNK:
        return collectSymlink(dir, node, st);
    default:
        reject(fmt::format("file '{}' has an unsupported type: it is {}; an output may hold regular files, "
                           "directories and symlinks",
                           display(node), typeName(type)));
    }
}

/// A file or directory that its own user may not read is made readable first.
UniqueFd Collector::openObject(int dir, uint32_t node, int flags) {
    const char *name = tree_.nodes[node].name.c_str();
    UniqueFd fd(openat(dir, name, openFlags | flags));
    if (!fd && errno == EACCES) {
        struct stat st;
        if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
            mode_t mode = (st.st_mode & 0777) | (S_ISDIR(st.st_mode) ? 0500 : 0400);
            if (fchmodat(dir, name, mode, AT_SYMLINK_NOFOLLOW) != 0) {
                throwErrno("making '{}' readable", display(node));
            }
        }
        fd.reset(openat(dir, name, openFlags | flags));
    }
    if (!fd) {
        throwErrno("opening '{}'", display(node));
    }
    return fd;
}

void Collector::checkOwner(const struct stat &st, uint32_t node) const {
    if (options_.builderUid == static_cast<uid_t>(-1) || st.st_uid == options_.builderUid) {
        return;
    }
    // Another name of what was made ours a moment ago is fine.
    if (S_ISDIR(st.st_mode) || st.st_uid != geteuid() || !links_.wasSeen(st)) {
        reject(fmt::format("invalid ownership on file '{}': it belongs to uid {}, the build ran as {}; rejecting "
                           "this build output",
                           display(node), st.st_uid, options_.builderUid));
    }
}

void makeCanonical(int fd, const struct stat &st, const std::set<std::string> &ignoredAcls) {
    bool stripped = removeExtendedAttributes(fd, st, ignoredAcls);
    bool owned = st.st_uid == geteuid() && st.st_gid == getegid();
    if (!owned && fchown(fd, geteuid(), getegid()) != 0) {
        throwErrno("changing the owner");
    }
    mode_t mode = S_ISDIR(st.st_mode) || (st.st_mode & S_IXUSR) != 0 ? 0555 : 0444;
    if ((stripped || (st.st_mode & 07777) != mode) && fchmod(fd, mode) != 0) {
        throwErrno("changing the mode");
    }
    struct timespec times[2] = {{0, UTIME_OMIT}, {1, 0}};
    if ((st.st_mtim.tv_sec != 1 || st.st_mtim.tv_nsec != 0) && futimens(fd, times) != 0) {
        throwErrno("changing the modification time");
    }
}

void Collector::collectFile(int dir, uint32_t node) {
    UniqueFd fd = openObject(dir, node, 0);
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
    makeCanonical(fd.get(), st, options_.ignoredAcls);
}

void Collector::collectSymlink(int dir, uint32_t node, const struct stat &st) {
    OutputNode &link = tree_.nodes[node];
    link.type = Type::symlink;
    link.target = readLinkAt(dir, link.name);
    checkOwner(st, node);
    if (st.st_nlink > 1) {
        links_.add(st);
    }
    bool owned = st.st_uid == geteuid() && st.st_gid == getegid();
    if (!owned && fchownat(dir, link.name.c_str(), geteuid(), getegid(), AT_SYMLINK_NOFOLLOW) != 0) {
        throwErrno("changing the owner of '{}'", display(node));
    }
    struct timespec times[2] = {{0, UTIME_OMIT}, {1, 0}};
    if ((st.st_mtim.tv_sec != 1 || st.st_mtim.tv_nsec != 0) &&
        utimensat(dir, link.name.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0) {
        throwErrno("changing the modification time of '{}'", display(node));
    }
}

void Collector::collectDirectory(int dir, uint32_t node) {
    if (stack_.size() == maxDepth) {
        reject(fmt::format("'{}' lies deeper than {} directories", display(node), maxDepth));
    }
    UniqueFd fd = openObject(dir, node, O_DIRECTORY);
    struct stat st;
    if (fstat(fd.get(), &st) != 0) {
        throwErrno("looking at '{}'", display(node));
    }
    checkOwner(st, node);
    tree_.nodes[node].type = Type::directory;
    makeCanonical(fd.get(), st, options_.ignoredAcls);
    listChildren(fd.get(), node);
    stack_.push_back({node, std::move(fd)});
}

void Collector::listChildren(int fd, uint32_t node) {
    struct Close {
        void operator()(DIR *stream) const { closedir(stream); }
    };
    std::vector<std::pair<std::string, mode_t>> entries;
    UniqueFd copy(fcntl(fd, F_DUPFD_CLOEXEC, 0));
    std::unique_ptr<DIR, Close> stream(copy ? fdopendir(copy.get()) : nullptr);
    if (!stream) {
        throwErrno("listing '{}'", display(node));
    }
    copy.release();
    while (errno = 0, true) {
        const dirent *entry = readdir(stream.get());
        if (entry == nullptr) {
            break;
        }
        std::string_view name = entry->d_name;
        if (name != "." && name != "..") {
            entries.emplace_back(name, DTTOIF(entry->d_type));
        }
    }
    if (errno != 0) {
        throwErrno("listing '{}'", display(node));
    }
    std::sort(entries.begin(), entries.end());
    for (auto &[name, type] : entries) {
        tree_.nodes[node].children.push_back(static_cast<uint32_t>(tree_.nodes.size()));
        OutputNode &child = tree_.nodes.emplace_back();
        child.parent = node;
        child.name = std::move(name);
        types_.push_back(type);
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

void OutputTree::sortChildren(uint32_t directory) {
    std::vector<uint32_t> &children = nodes[directory].children;
    std::sort(children.begin(), children.end(),
              [this](uint32_t a, uint32_t b) { return nodes[a].name < nodes[b].name; });
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
    return Collector(options, links).collect(dir, name);
}

namespace {

struct WalkFrame {
    uint32_t node;
    UniqueFd fd;
    size_t next = 0;
};

void visitObject(int dir, const OutputTree &tree, uint32_t node, OutputVisitor &visitor,
                 std::vector<WalkFrame> &stack) {
    switch (tree.nodes[node].type) {
    case Type::regular:
        return visitor.file(dir, node);
    case Type::symlink:
        return visitor.symlink(dir, node);
    case Type::directory:
        UniqueFd fd = openDirectoryAt(dir, tree.nodes[node].name);
        visitor.enterDirectory(fd.get(), node);
        stack.push_back({node, std::move(fd)});
    }
}

} // namespace

void walkOutput(int dir, const OutputTree &tree, OutputVisitor &visitor) {
    std::vector<WalkFrame> stack;
    visitObject(dir, tree, 0, visitor, stack);
    while (!stack.empty()) {
        WalkFrame &top = stack.back();
        const std::vector<uint32_t> &children = tree.nodes[top.node].children;
        if (top.next == children.size()) {
            visitor.leaveDirectory(top.fd.get(), top.node);
            stack.pop_back();
            continue;
        }
        uint32_t child = children[top.next++];
        visitObject(top.fd.get(), tree, child, visitor, stack);
    }
}

} // namespace firn
