#include "libstore/build/build-directory.hh"

#include <cstdlib>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "libstore/store/path-locks.hh"
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

void checkBase(int fd, const std::filesystem::path &path) {
    struct stat st = statFd(fd, path);
    bool open = (st.st_mode & S_IWOTH) != 0 && (st.st_mode & S_ISVTX) == 0;
    bool foreign = st.st_uid != 0 && st.st_uid != geteuid();
    if (open || foreign) {
        throw Error(ErrorKind::refused,
                    "'{}' cannot hold build directories: {}; set 'build-dir' to a directory of your own",
                    path.string(),
                    open ? "it is world-writable without a sticky bit" : "it belongs to another user");
    }
}

std::string commonName() {
    return "firn-" + std::to_string(geteuid());
}

/// The name, or one that makeTemporaryDirectoryAt() made from it because somebody else had it.
bool isCommonName(const std::string &name) {
    std::string common = commonName();
    if (name == common) {
        return true;
    }
    constexpr size_t randomLength = 16; // of makeTemporaryDirectoryAt()
    return name.starts_with(common + "-") && name.size() == common.size() + 1 + randomLength &&
           name.find_first_not_of("0123456789abcdfghijklmnpqrsvwxyz", common.size() + 1) == std::string::npos;
}

/// Opens a directory if it is one, and ours.
UniqueFd openOwned(int dir, const std::string &name) {
    UniqueFd fd(openat(dir, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    struct stat st;
    if (fd && (fstat(fd.get(), &st) != 0 || st.st_uid != geteuid())) {
        fd.reset();
    }
    return fd;
}

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

BuildDirectory::BuildDirectory(BuildDirectories &parent, std::string name, UniqueFd fd)
    : parent_(&parent),
      name_(std::move(name)),
      path_(parent.basePath_ / parent.name_ / name_),
      fd_(std::move(fd)) {}

BuildDirectory::BuildDirectory(BuildDirectory &&other) noexcept
    : parent_(std::exchange(other.parent_, nullptr)),
      name_(std::move(other.name_)),
      path_(std::move(other.path_)),
      fd_(std::move(other.fd_)),
      upper_(std::move(other.upper_)) {}

BuildDirectory::~BuildDirectory() {
    try {
        remove();
    } catch (const Error &) {
        // Its lock ends with us, so the next daemon's sweep tries again.
    }
}

void BuildDirectory::giveTo(uid_t uid, gid_t gid) {
    if (fchown(fd_.get(), uid, gid) != 0) {
        throwErrno("giving build directory '{}' to user {}", path_.string(), uid);
    }
}

std::filesystem::path BuildDirectory::keep(const std::string &name, uid_t builder, uid_t uid, gid_t gid) {
    if (geteuid() == 0) {
        OwnerChange(parent_->own_.get(), builder, uid, gid).apply(name_);
    }
    std::string kept = upper_ ? parent_->moveToBase(fd_.get(), "upper", "nix-build-" + name)
                              : parent_->moveToBase(parent_->own_.get(), name_, "nix-build-" + name);
    path_ = parent_->basePath_ / kept;
    BuildDirectories *parent = std::exchange(parent_, nullptr);
    if (upper_) {
        removeTree(parent->own_.get(), name_);
    }
    return path_;
}

void BuildDirectory::makeOverlay() {
    for (const char *part : {"lower", "upper", "work"}) {
        if (mkdirat(fd_.get(), part, 0700) != 0) {
            throwErrno("making directory '{}' in build directory '{}'", part, path_.string());
        }
    }
    upper_ = openDirectoryAt(fd_.get(), "upper");
}

void BuildDirectory::remove() {
    if (BuildDirectories *parent = std::exchange(parent_, nullptr)) {
        removeTree(parent->own_.get(), name_);
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

std::filesystem::path BuildDirectories::chooseBase(const Locations &locations, const Settings &settings) {
    return findBase(locations, settings).path;
}

BuildDirectories::BuildDirectories(const std::filesystem::path &base, Sweep sweepIt) {
    makeDirectories(base);
    base_ = openDirectory(base);
    basePath_ = std::filesystem::canonical(base);
    checkBase(base_.get(), basePath_);
    openOwn();
    if (sweepIt == Sweep::yes) {
        sweep(own_.get());
    }
}

/// Nothing is left behind, unless somebody else has a build there: then it is not empty.
BuildDirectories::~BuildDirectories() {
    unlinkat(base_.get(), name_.c_str(), AT_REMOVEDIR);
}

/// In a directory like /tmp somebody may have taken the name before us: then another one serves as well.
void BuildDirectories::openOwn() {
    name_ = commonName();
    if (mkdirat(base_.get(), name_.c_str(), 0700) != 0 && errno != EEXIST) {
        throwErrno("making build directory '{}'", (basePath_ / name_).string());
    }
    own_ = openOwned(base_.get(), name_);
    if (!own_) {
        name_ = makeTemporaryDirectoryAt(base_.get(), name_);
        own_ = openDirectoryAt(base_.get(), name_);
    }
    // 0710: another process of ours has opened it to its builders, and they need that.
    mode_t mode = statFd(own_.get(), basePath_ / name_).st_mode & 07777;
    if (mode != 0700 && mode != 0710 && fchmod(own_.get(), 0700) != 0) {
        throwErrno("setting the mode of '{}'", (basePath_ / name_).string());
    }
    if (builders_) {
        openTo(*builders_);
    }
}

void BuildDirectories::openTo(gid_t builders) {
    builders_ = builders;
    struct stat st = statFd(own_.get(), basePath_ / name_);
    if (st.st_gid == builders && (st.st_mode & 07777) == 0710) {
        return;
    }
    if (fchown(own_.get(), static_cast<uid_t>(-1), builders) != 0 || fchmod(own_.get(), 0710) != 0) {
        throwErrno("opening '{}' to group {}", (basePath_ / name_).string(), builders);
    }
}

/// A directory, with its lock; none if somebody has it or it is not there (any more).
UniqueFd BuildDirectories::openLocked(int own, const std::string &name) {
    UniqueFd fd(openat(own, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!fd || !lockFile(fd.get(), LockMode::exclusive, /*wait=*/false)) {
        return {};
    }
    struct stat locked, named;
    if (fstat(fd.get(), &locked) != 0 || !statAt(own, name, named) || locked.st_ino != named.st_ino) {
        return {};
    }
    return fd;
}

void BuildDirectories::sweep(int own) {
    for (const std::string &name : listDirectory(own)) {
        if (UniqueFd lock = openLocked(own, name)) {
            removeTree(own, name);
        }
    }
}

void BuildDirectories::sweepLeftovers(const std::filesystem::path &base) {
    std::error_code absent;
    if (!std::filesystem::is_directory(base, absent)) {
        return;
    }
    UniqueFd fd = openDirectory(base);
    checkBase(fd.get(), base);
    for (const std::string &name : listDirectory(fd.get())) {
        if (isCommonName(name)) {
            sweepAndRemove(fd.get(), name);
        }
    }
}

void BuildDirectories::sweepAndRemove(int base, const std::string &name) {
    if (UniqueFd own = openOwned(base, name)) {
        sweep(own.get());
        unlinkat(base, name.c_str(), AT_REMOVEDIR);
    }
}

BuildDirectory BuildDirectories::make() {
    // A sweep by another process may come between making and locking, and the common directory goes with the
    // last process that needs it.
    for (int attempt = 0; attempt < 1000; attempt++) {
        std::string name = fmt::format("{}-{}", getpid(), ++count_);
        if (mkdirat(own_.get(), name.c_str(), 0700) == 0) {
            if (UniqueFd fd = openLocked(own_.get(), name)) {
                return BuildDirectory(*this, name, std::move(fd));
            }
        } else if (errno == ENOENT) {
            openOwn();
        } else if (errno != EEXIST) {
            throwErrno("making build directory '{}'", (basePath_ / name_ / name).string());
        }
    }
    throw Error(ErrorKind::failure,
                "making a build directory in '{}': each one was swept away by another process",
                (basePath_ / name_).string());
}

/// Renames onto an empty directory made for it, so nothing of another's is ever replaced.
std::string BuildDirectories::moveToBase(int from, const std::string &name, const std::string &wanted) {
    for (unsigned number = 0;; number++) {
        std::string target = wanted + "-" + std::to_string(number);
        if (mkdirat(base_.get(), target.c_str(), 0700) == 0) {
            if (renameat(from, name.c_str(), base_.get(), target.c_str()) != 0) {
                throwErrno("moving build directory '{}' to '{}'", name, (basePath_ / target).string());
            }
            return target;
        }
        if (errno != EEXIST) {
            throwErrno("making directory '{}'", (basePath_ / target).string());
        }
    }
}

} // namespace firn
