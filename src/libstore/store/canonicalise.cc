#include <cerrno>
#include <map>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libstore/store/local-store.hh"
#include "libstore/store/xattrs.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"

// What a store path looks like, whoever made it: owned by the store's owner, mode 0444 or 0555, one second
// after the epoch, nothing attached. Whatever is not in a NAR must not be in the file either, or two machines
// would see different things at one path.

namespace firn {

namespace {

constexpr time_t canonicalTime = 1;

/// Identifies a file with several links.
using Inode = std::pair<dev_t, ino_t>;

struct Directory {
    UniqueFd fd;
    std::vector<std::string> names;
    size_t next = 0;
    std::string path; ///< for messages, relative to the tree's parent
    struct stat st;
};

class Canonicaliser {
  public:
    Canonicaliser(uid_t expectedUid, const std::set<std::string> &ignoredAcls)
        : expectedUid_(expectedUid), ignoredAcls_(ignoredAcls) {}

    void run(int dir, const std::string &name) {
        visit(dir, name, name);
        while (!stack_.empty()) {
            auto &top = stack_.back();
            if (top.next == top.names.size()) {
                stack_.pop_back();
                continue;
            }
            auto entry = top.names[top.next++];
            visit(top.fd.get(), entry, top.path + "/" + entry);
        }
        checkLinks();
    }

  private:
    void visit(int dir, const std::string &name, const std::string &path);
    void visitFile(int dir, const std::string &name, const std::string &path, struct stat st);
    void visitLink(int dir, const std::string &name, const std::string &path, const struct stat &st);
    bool takeOwnership(const std::string &path, const struct stat &st);
    UniqueFd openEntry(int dir, const std::string &name, const struct stat &st);
    void normalise(int fd, const std::string &path, const struct stat &st);
    void dropXattrs(int fd);
    void checkLinks() const;

    struct Links {
        nlink_t expected = 0, seen = 0;
        std::string path;
    };

    uid_t expectedUid_;
    const std::set<std::string> &ignoredAcls_;
    std::map<Inode, Links> links_;
    std::vector<Directory> stack_;
};

/// Whether there is anything left to do: false for a file seen before under another name.
bool Canonicaliser::takeOwnership(const std::string &path, const struct stat &st) {
    bool seen = false;
    if (!S_ISDIR(st.st_mode) && st.st_nlink > 1) {
        auto &links = links_[{st.st_dev, st.st_ino}];
        seen = links.seen++ > 0;
        links.expected = st.st_nlink;
        links.path = path;
    }
    if (!seen && expectedUid_ != static_cast<uid_t>(-1) && st.st_uid != expectedUid_) {
        throw Error(ErrorKind::refused, "invalid ownership on file '{}': it belongs to user {}, not {}",
                    escapeForDisplay(path), st.st_uid, expectedUid_);
    }
    return !seen;
}

void Canonicaliser::checkLinks() const {
    if (expectedUid_ == static_cast<uid_t>(-1)) {
        return; // files of the store itself may have links in .links
    }
    for (auto &[inode, links] : links_) {
        if (links.seen != links.expected) {
            throw Error(ErrorKind::refused,
                        "file '{}' has {} hard links, of which only {} are in this output: others could "
                        "change it through them",
                        escapeForDisplay(links.path), links.expected, links.seen);
        }
    }
}

void Canonicaliser::visit(int dir, const std::string &name, const std::string &path) {
    struct stat st;
    if (!statAt(dir, name, st)) {
        throw Error(ErrorKind::failure, "'{}' vanished while it was put into the store",
                    escapeForDisplay(path));
    }
    if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) {
        visitFile(dir, name, path, st);
    } else if (S_ISLNK(st.st_mode)) {
        visitLink(dir, name, path, st);
    } else {
        throw Error(ErrorKind::badInput,
                    "file '{}' has an unsupported type (mode {:o}): a store path can hold regular files, "
                    "directories and symlinks",
                    escapeForDisplay(path), st.st_mode);
    }
}

UniqueFd Canonicaliser::openEntry(int dir, const std::string &name, const struct stat &st) {
    int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | (S_ISDIR(st.st_mode) ? O_DIRECTORY : 0);
    UniqueFd fd(openat(dir, name.c_str(), flags));
    if (!fd && errno == EACCES) {
        changeModeAt(dir, name, S_ISDIR(st.st_mode) ? 0700 : 0600);
        fd.reset(openat(dir, name.c_str(), flags));
    }
    if (!fd) {
        throwErrno("opening '{}'", escapeForDisplay(name));
    }
    return fd;
}

void Canonicaliser::visitFile(int dir, const std::string &name, const std::string &path, struct stat st) {
    // The owner is checked before anything is opened: what belongs to others is not touched at all.
    if (!takeOwnership(path, st)) {
        return;
    }
    auto fd = openEntry(dir, name, st);
    struct stat opened;
    if (fstat(fd.get(), &opened) != 0) {
        throwErrno("reading the state of '{}'", escapeForDisplay(path));
    }
    if (opened.st_ino != st.st_ino || opened.st_dev != st.st_dev) {
        throw Error(ErrorKind::refused, "'{}' was replaced while it was put into the store",
                    escapeForDisplay(path));
    }
    normalise(fd.get(), path, st);
    if (S_ISDIR(st.st_mode)) {
        auto names = listDirectory(fd.get());
        stack_.push_back(Directory{std::move(fd), std::move(names), 0, path, st});
    }
}

void Canonicaliser::dropXattrs(int fd) {
    for (auto &xattr : listXattrs(fd)) {
        if (!ignoredAcls_.contains(xattr)) {
            removeXattr(fd, xattr);
        }
    }
}

void Canonicaliser::normalise(int fd, const std::string &path, const struct stat &st) {
    dropXattrs(fd);
    uid_t self = geteuid();
    if ((st.st_uid != self || st.st_gid != getegid()) && fchown(fd, self, getegid()) != 0) {
        throwErrno("changing the owner of '{}'", escapeForDisplay(path));
    }
    // After the owner, since a change of owner clears bits, and since nobody else may give it back a set-id
    // bit then.
    mode_t mode = (st.st_mode & S_IXUSR) || S_ISDIR(st.st_mode) ? 0555 : 0444;
    if ((st.st_mode & 07777) != mode && fchmod(fd, mode) != 0) {
        throwErrno("changing the mode of '{}'", escapeForDisplay(path));
    }
    if (st.st_mtime != canonicalTime) {
        struct timespec times[2] = {{0, UTIME_OMIT}, {canonicalTime, 0}};
        if (futimens(fd, times) != 0) {
            throwErrno("changing the modification time of '{}'", escapeForDisplay(path));
        }
    }
}

void Canonicaliser::visitLink(int dir, const std::string &name, const std::string &path,
                              const struct stat &st) {
    if (!takeOwnership(path, st)) {
        return;
    }
    for (auto &xattr : listLinkXattrs(dir, name)) {
        if (!ignoredAcls_.contains(xattr)) {
            removeLinkXattr(dir, name, xattr);
        }
    }
    if ((st.st_uid != geteuid() || st.st_gid != getegid()) &&
        fchownat(dir, name.c_str(), geteuid(), getegid(), AT_SYMLINK_NOFOLLOW) != 0) {
        throwErrno("changing the owner of '{}'", escapeForDisplay(path));
    }
    struct timespec times[2] = {{0, UTIME_OMIT}, {canonicalTime, 0}};
    if (utimensat(dir, name.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0) {
        throwErrno("changing the modification time of '{}'", escapeForDisplay(path));
    }
}

} // namespace

void canonicaliseTree(int dir, const std::string &name, uid_t expectedUid,
                      const std::set<std::string> &ignoredAcls) {
    Canonicaliser(expectedUid, ignoredAcls).run(dir, name);
}

} // namespace firn
