#include "libstore/build/build-directory.hh"

#include <cstdlib>
#include <optional>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "libstore/build/build-bases.hh"
#include "libstore/build/private-group.hh"
#include "libstore/store/path-locks.hh"
#include "libstore/store/xattrs.hh"
#include "libutil/directory-stack.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/platform.hh"

namespace firn {

namespace {

struct stat statFd(int fd, const std::filesystem::path &path) {
    struct stat st;
    if (fstat(fd, &st) != 0) {
        throwErrno("reading the owner of '{}'", path.string());
    }
    return st;
}

/// Why others could replace what is ours in a base directory, and what may be done about it; "" if they
/// cannot.
struct Weakness {
    std::string why, remedy;
};

Weakness weaknessOf(int fd, const struct stat &st) {
    if (st.st_uid != 0 && st.st_uid != geteuid()) {
        return {"it belongs to another user", ""};
    }
    if (aclLetsOthersReplace(fd)) {
        return {"an ACL lets others write it", aclRemoval};
    }
    if (st.st_mode & S_ISVTX) {
        return {};
    }
    if (st.st_mode & S_IWOTH) {
        return {"it is world-writable without a sticky bit", "chmod o-w"};
    }
    if ((st.st_mode & S_IWGRP) && !isPrivateGroup(geteuid(), st.st_gid)) {
        return {fmt::format("others in its group {} may write it, and it has no sticky bit", st.st_gid),
                "chmod g-w"};
    }
    return {};
}

void checkBase(int fd, const std::filesystem::path &path) {
    Weakness found = weaknessOf(fd, statFd(fd, path));
    if (!found.why.empty()) {
        std::string change = found.remedy.empty() ? "Set"
                                                  : fmt::format("Either change that ({} '{}'), or set",
                                                                found.remedy, path.string());
        throw Error(
            ErrorKind::refused,
            "'{}' cannot hold build directories, since others could replace them: {}. {} 'build-dir' to a "
            "directory of your own.",
            path.string(), found.why, change);
    }
}

CommonDirectory closedDirectory() {
    return {.wanted = "firn-" + std::to_string(geteuid()), .mode = 0700};
}

CommonDirectory reachableDirectory() {
    return {.wanted = closedDirectory().wanted + "-open", .mode = 0711};
}

/// The name that it wants, or one that makeTemporaryDirectoryAt() made from it because somebody else had
/// that.
bool isNameOf(const CommonDirectory &common, const std::string &name) {
    if (name == common.wanted) {
        return true;
    }
    constexpr size_t randomLength = 16; // of makeTemporaryDirectoryAt()
    size_t stem = common.wanted.size() + 1;
    return name.starts_with(common.wanted + "-") && name.size() == stem + randomLength &&
           name.find_first_not_of("0123456789abcdfghijklmnpqrsvwxyz", stem) == std::string::npos;
}

/// Opens a directory, if there is one, even if a build took our own permissions from it.
UniqueFd openExisting(int dir, const std::string &name) {
    constexpr int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    UniqueFd fd(openat(dir, name.c_str(), flags));
    if (!fd && errno == EACCES && fchmodat(dir, name.c_str(), 0700, AT_SYMLINK_NOFOLLOW) == 0) {
        fd = UniqueFd(openat(dir, name.c_str(), flags));
    }
    return fd;
}

/// Opens a directory if it is one, and ours.
UniqueFd openOwned(int dir, const std::string &name) {
    UniqueFd fd = openExisting(dir, name);
    struct stat st;
    if (fd && (fstat(fd.get(), &st) != 0 || st.st_uid != geteuid())) {
        fd.reset();
    }
    return fd;
}

/// The common directories of ours in a base.
std::vector<std::string> commonNames(int base) {
    std::vector<std::string> names = listDirectory(base);
    std::erase_if(names, [&](const std::string &name) {
        bool isOne = isNameOf(closedDirectory(), name) || isNameOf(reachableDirectory(), name);
        return !isOne || !openOwned(base, name);
    });
    return names;
}

/// A base that is a directory, or cannot be looked at, which throws.
UniqueFd openIfThere(const std::filesystem::path &base) {
    using std::filesystem::file_type;
    std::error_code error;
    file_type type = std::filesystem::status(base, error).type();
    return type == file_type::directory || type == file_type::none ? openDirectory(base) : UniqueFd();
}

bool isNamed(int dir, const std::string &name, int fd) {
    struct stat opened, named;
    return fstat(fd, &opened) == 0 && statAt(dir, name, named) && opened.st_dev == named.st_dev &&
           opened.st_ino == named.st_ino;
}

/// A directory, with its lock; none if somebody has it or it is not there (any more).
UniqueFd openLocked(int dir, const std::string &name) {
    UniqueFd fd = openExisting(dir, name);
    bool locked = fd && lockFile(fd.get(), LockMode::exclusive, /*wait=*/false);
    return locked && isNamed(dir, name, fd.get()) ? std::move(fd) : UniqueFd();
}

/// Removes what is left over in a base. What cannot be removed keeps it from nothing else.
class Sweeper {
  public:
    Sweeper(int base, std::filesystem::path path) : base_(base), path_(std::move(path)) {}

    /// Nothing of the common directory stays, unless somebody has a build there: then it is not empty.
    void sweepAndRemove(const std::string &name) {
        if (UniqueFd common = openOwned(base_, name)) {
            sweep(common.get(), name);
            unlinkat(base_, name.c_str(), AT_REMOVEDIR);
        }
    }

    void sweep(int common, const std::string &name) {
        for (const std::string &entry : listDirectory(common)) {
            try {
                if (UniqueFd lock = openLocked(common, entry)) {
                    removeTree(common, entry);
                }
            } catch (Error &error) {
                error.addContext(fmt::format("sweeping '{}'", (path_ / name).string()));
                trouble_ = trouble_ ? trouble_ : error;
            }
        }
    }

    /// The first error that there was.
    const std::optional<Error> &trouble() const { return trouble_; }

  private:
    int base_;
    std::filesystem::path path_;
    std::optional<Error> trouble_;
};

/// Renames a directory onto an empty one made for it, so that nothing of another's is ever replaced: for file
/// systems that cannot rename to a free name (NFS). 0 or the errno. If we are killed in between, the empty
/// one stays.
int renameOntoNew(int fromDir, const std::string &from, int toDir, const std::string &to) {
    if (mkdirat(toDir, to.c_str(), 0700) != 0) {
        return errno;
    }
    if (renameat(fromDir, from.c_str(), toDir, to.c_str()) == 0) {
        return 0;
    }
    int error = errno;
    unlinkat(toDir, to.c_str(), AT_REMOVEDIR);
    return error;
}

constexpr const char *gateName = "o";
constexpr const char *ownName = "b";

/// Changes the owner of everything in a tree that belongs to `from`: a hard link to somebody else's file
/// stays theirs. For trees of any depth.
class OwnerChange {
  public:
    OwnerChange(int dir, uid_t from, uid_t uid, gid_t gid) : way_(dir), from_(from), uid_(uid), gid_(gid) {}

    void apply(const std::string &name) {
        visit(name);
        while (!names_.empty()) {
            if (names_.back().empty()) {
                names_.pop_back();
                way_.leave();
                continue;
            }
            std::string next = std::move(names_.back().back());
            names_.back().pop_back();
            visit(next);
        }
    }

  private:
    void visit(const std::string &name) {
        struct stat st;
        if (!changeOwnerAt(way_.current(), name, from_, uid_, gid_, st) || !S_ISDIR(st.st_mode)) {
            return;
        }
        way_.enter(name);
        const struct stat &entered = way_.currentStat();
        if (entered.st_dev != st.st_dev || entered.st_ino != st.st_ino) {
            throw Error(ErrorKind::refused, "directory {} was replaced while its owner was changed",
                        way_.describe());
        }
        names_.push_back(listDirectory(way_.current()));
    }

    DirectoryStack way_;
    uid_t from_, uid_;
    gid_t gid_;
    std::vector<std::vector<std::string>> names_; ///< yet to be visited, for each directory of the way
};

} // namespace

// ---- one directory

BuildDirectory::BuildDirectory(BuildDirectories &all, CommonDirectory &common, std::string name,
                               UniqueFd locked)
    : all_(&all),
      common_(&common),
      name_(std::move(name)),
      path_(all.basePath_ / common.name / name_),
      locked_(std::move(locked)) {}

BuildDirectory::BuildDirectory(BuildDirectory &&other) noexcept
    : all_(std::exchange(other.all_, nullptr)),
      common_(other.common_),
      name_(std::move(other.name_)),
      path_(std::move(other.path_)),
      locked_(std::move(other.locked_)),
      gate_(std::move(other.gate_)),
      own_(std::move(other.own_)),
      upper_(std::move(other.upper_)) {}

BuildDirectory::~BuildDirectory() {
    try {
        remove();
    } catch (const Error &) {
        // Its lock ends with us, so the next daemon's sweep tries again.
    }
}

void BuildDirectory::makeOwn() {
    if (common_ == &all_->reachable_) {
        gate_ = makePart(locked_.get(), gateName);
        path_ /= gateName;
        if (fchmod(locked_.get(), 0711) != 0) {
            throwErrno("setting the mode of '{}'", path_.parent_path().string());
        }
    }
    own_ = makePart(parentOfOwn(), ownName);
    path_ /= ownName;
}

UniqueFd BuildDirectory::makePart(int dir, const char *part) const {
    if (mkdirat(dir, part, 0700) != 0) {
        throwErrno("making directory '{}' in '{}'", part, path_.string());
    }
    return openDirectoryAt(dir, part);
}

void BuildDirectory::giveTo(uid_t uid, gid_t gid) {
    bool given = fchown(own_.get(), uid, gid) == 0;
    if (given && gate_) {
        given = fchmod(gate_.get(), 0500) == 0 && fchown(gate_.get(), uid, gid) == 0;
    }
    if (!given) {
        throwErrno("giving build directory '{}' to user {}", path_.string(), uid);
    }
}

void BuildDirectory::makeReachable(uid_t uid, gid_t gid) {
    if (common_ != &all_->reachable_) {
        BuildDirectory other = all_->makeReachable();
        if (unlinkat(other.parentOfOwn(), ownName, AT_REMOVEDIR) != 0 ||
            renameat(parentOfOwn(), ownName, other.parentOfOwn(), ownName) != 0) {
            throwErrno("moving build directory '{}' to '{}'", path_.string(), other.path_.string());
        }
        std::swap(common_, other.common_);
        std::swap(name_, other.name_);
        std::swap(path_, other.path_);
        std::swap(locked_, other.locked_);
        std::swap(gate_, other.gate_);
    }
    giveTo(uid, gid);
}

void BuildDirectory::takeBack() {
    if (gate_ && (fchown(gate_.get(), geteuid(), getegid()) != 0 || fchmod(gate_.get(), 0700) != 0)) {
        throwErrno("taking build directory '{}' back", path_.string());
    }
}

std::filesystem::path BuildDirectory::keep(const std::string &name, uid_t builder, uid_t uid, gid_t gid) {
    int parent = upper_ ? own_.get() : parentOfOwn();
    const char *entry = upper_ ? "upper" : ownName;
    if (!isNamed(parent, entry, contentsFd())) {
        throw Error(ErrorKind::refused, "build directory '{}' was replaced by another", path_.string());
    }
    // Without write permission its owner could not move it.
    if (fchmod(contentsFd(), 0700) != 0) {
        throwErrno("setting the mode of build directory '{}'", path_.string());
    }
    if (geteuid() == 0) {
        OwnerChange(parent, builder, uid, gid).apply(entry);
    }
    path_ = all_->moveToBase(parent, entry, "nix-build-" + name);
    return path_;
}

void BuildDirectory::makeOverlay() {
    for (const char *part : {"lower", "work"}) {
        makePart(own_.get(), part);
    }
    upper_ = makePart(own_.get(), "upper");
}

void BuildDirectory::remove() {
    if (std::exchange(all_, nullptr)) {
        removeTree(common_->fd.get(), name_);
    }
}

// ---- all of them

std::filesystem::path BuildDirectories::defaultBase(const Locations &locations) {
    return locations.stateDir / "builds";
}

BuildDirectoryBase BuildDirectories::findBase(const Locations &locations, const Settings &settings) {
    if (settings.buildDir) {
        return {*settings.buildDir, "build-dir"};
    }
    const char *temporary = getenv("TMPDIR");
    if (temporary && *temporary == '/') {
        return {temporary, "TMPDIR"};
    }
    return {defaultBase(locations), ""};
}

std::vector<std::filesystem::path> BuildDirectories::possibleBases(const Locations &locations,
                                                                   const Settings &settings) {
    std::vector<std::filesystem::path> bases{findBase(locations, settings).path};
    if (bases.front() != defaultBase(locations)) {
        bases.push_back(defaultBase(locations)); // where programs cannot be executed in the first
    }
    return bases;
}

BuildDirectories::BuildDirectories(const std::filesystem::path &base, Sweep sweepIt, const Locations *notes)
    : closed_(closedDirectory()), reachable_(reachableDirectory()) {
    makeDirectories(base);
    base_ = openDirectory(base);
    basePath_ = std::filesystem::canonical(base);
    checkBase(base_.get(), basePath_);
    if (notes) {
        note_ = noteBuildBase(*notes, basePath_);
    }
    open(closed_);
    if (sweepIt == Sweep::yes) {
        // What a listener tells of as it starts is no reason not to build.
        Sweeper sweeper(base_.get(), basePath_);
        sweeper.sweep(closed_.fd.get(), closed_.name);
        sweeper.sweepAndRemove(reachable_.wanted);
    }
}

/// Nothing is left behind, unless somebody else has a build there: then it is not empty.
BuildDirectories::~BuildDirectories() {
    for (const CommonDirectory *common : {&closed_, &reachable_}) {
        if (common->fd) {
            unlinkat(base_.get(), common->name.c_str(), AT_REMOVEDIR);
        }
    }
}

/// In a directory like /tmp somebody may have taken the name before us: then another one serves as well.
void BuildDirectories::open(CommonDirectory &common) const {
    common.name = common.wanted;
    if (mkdirat(base_.get(), common.name.c_str(), 0700) != 0 && errno != EEXIST) {
        throwErrno("making build directory '{}'", (basePath_ / common.name).string());
    }
    common.fd = openOwned(base_.get(), common.name);
    if (!common.fd) {
        common.name = makeTemporaryDirectoryAt(base_.get(), common.wanted);
        common.fd = openDirectoryAt(base_.get(), common.name);
    }
    std::filesystem::path path = basePath_ / common.name;
    bool isAsWanted = (statFd(common.fd.get(), path).st_mode & 07777) == common.mode;
    if (!isAsWanted && fchmod(common.fd.get(), common.mode) != 0) {
        throwErrno("setting the mode of '{}'", path.string());
    }
}

void BuildDirectories::sweepLeftovers(const std::filesystem::path &base) {
    UniqueFd fd = openIfThere(base);
    if (!fd) {
        return;
    }
    checkBase(fd.get(), base);
    Sweeper sweeper(fd.get(), base);
    for (const std::string &name : commonNames(fd.get())) {
        sweeper.sweepAndRemove(name);
    }
    if (sweeper.trouble()) {
        throw *sweeper.trouble();
    }
}

bool BuildDirectories::hasBuilds(const std::filesystem::path &base) {
    UniqueFd fd = openIfThere(base);
    return fd && !commonNames(fd.get()).empty();
}

BuildDirectory BuildDirectories::make() {
    return makeIn(closed_);
}

BuildDirectory BuildDirectories::makeReachable() {
    if (!reachable_.fd) {
        open(reachable_);
    }
    return makeIn(reachable_);
}

BuildDirectory BuildDirectories::makeIn(CommonDirectory &common) {
    // A sweep by another process may come between making and locking, and the common directory goes with the
    // last process that needs it.
    for (int attempt = 0; attempt < 1000; attempt++) {
        std::string name = fmt::format("{}-{}", getpid(), ++count_);
        if (mkdirat(common.fd.get(), name.c_str(), 0700) == 0) {
            if (UniqueFd lock = openLocked(common.fd.get(), name)) {
                BuildDirectory made(*this, common, name, std::move(lock));
                made.makeOwn();
                return made;
            }
        } else if (errno == ENOENT) {
            open(common);
        } else if (errno != EEXIST) {
            throwErrno("making build directory '{}'", (basePath_ / common.name / name).string());
        }
    }
    throw Error(ErrorKind::failure,
                "making a build directory in '{}': each one was swept away by another process",
                (basePath_ / common.name).string());
}

std::filesystem::path BuildDirectories::moveToBase(int from, const std::string &name,
                                                   const std::string &wanted) {
    for (unsigned number = 0;; number++) {
        std::string target = wanted + "-" + std::to_string(number);
        int error = renameToFreeName(from, name, base_.get(), target);
        if (error == EINVAL) {
            error = renameOntoNew(from, name, base_.get(), target);
        }
        if (error == 0) {
            return basePath_ / target;
        }
        if (error != EEXIST) {
            throw SysError(error,
                           fmt::format("moving a build directory to '{}'", (basePath_ / target).string()));
        }
    }
}

} // namespace firn
