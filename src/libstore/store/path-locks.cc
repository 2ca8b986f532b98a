#include "libstore/store/path-locks.hh"

#include <cerrno>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libutil/error.hh"

namespace firn {

namespace {

int flockOperation(LockMode mode) {
    switch (mode) {
    case LockMode::none:
        return LOCK_UN;
    case LockMode::shared:
        return LOCK_SH;
    case LockMode::exclusive:
        return LOCK_EX;
    }
    throw Error(ErrorKind::bug, "unknown lock mode");
}

UniqueFd openLockFile(int dir, const std::string &name) {
    UniqueFd fd(openat(dir, name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!fd) {
        throwErrno("opening lock file '{}'", name);
    }
    return fd;
}

/// Whoever deletes a lock file writes a byte into it first; its lock says nothing any more. A file that was
/// deleted by hand, without the byte, has no link any more.
bool isStale(int fd, const std::string &name) {
    struct stat st;
    if (fstat(fd, &st) != 0) {
        throwErrno("reading the state of lock file '{}'", name);
    }
    return st.st_size != 0 || st.st_nlink == 0;
}

/// No descriptor if somebody else has the lock.
UniqueFd acquire(int dir, const std::string &name, bool wait) {
    while (true) {
        auto fd = openLockFile(dir, name);
        if (!lockFile(fd.get(), LockMode::exclusive, wait)) {
            return {};
        }
        if (!isStale(fd.get(), name)) {
            return fd;
        }
        // Deleted between open and lock: take the new one. A leftover file that still has its name and a
        // byte in it comes from a process that died between the two steps of deletion.
        struct stat ours, named;
        if (fstat(fd.get(), &ours) == 0 && fstatat(dir, name.c_str(), &named, AT_SYMLINK_NOFOLLOW) == 0 &&
            ours.st_ino == named.st_ino && ours.st_dev == named.st_dev) {
            unlinkat(dir, name.c_str(), 0);
        }
    }
}

} // namespace

bool lockFile(int fd, LockMode mode, bool wait) {
    int operation = flockOperation(mode) | (wait ? 0 : LOCK_NB);
    while (flock(fd, operation) != 0) {
        if (errno == EWOULDBLOCK && !wait) {
            return false;
        }
        if (errno != EINTR) {
            throwErrno("acquiring or releasing a lock");
        }
    }
    return true;
}

PathLocks::PathLocks(PathLocks &&other) noexcept
    : dir_(other.dir_), held_(std::move(other.held_)), remove_(other.remove_) {
    other.held_.clear();
}

PathLocks &PathLocks::operator=(PathLocks &&other) noexcept {
    if (this != &other) {
        release();
        dir_ = other.dir_;
        held_ = std::move(other.held_);
        remove_ = other.remove_;
        other.held_.clear();
    }
    return *this;
}

std::set<std::string> lockNames(const StorePathSet &paths) {
    std::set<std::string> names;
    for (const StorePath &path : paths) {
        names.insert(path.baseName() + ".lock");
    }
    return names;
}

PathLocks::~PathLocks() {
    release();
}

std::optional<PathLocks> PathLocks::tryLock(int dir, const std::set<std::string> &names) {
    PathLocks locks;
    locks.dir_ = dir;
    for (auto &name : names) {
        auto fd = acquire(dir, name, false);
        if (!fd) {
            return std::nullopt;
        }
        locks.held_.emplace_back(name, std::move(fd));
    }
    return locks;
}

PathLocks PathLocks::lock(int dir, const std::set<std::string> &names) {
    PathLocks locks;
    locks.dir_ = dir;
    for (auto &name : names) {
        locks.held_.emplace_back(name, acquire(dir, name, true));
    }
    return locks;
}

void PathLocks::release() {
    for (auto &[name, fd] : held_) {
        if (remove_) {
            // Unlinked first: who opens it from now on makes a new one; who has it open already sees the byte
            // as soon as the lock is free. Both may fail without harm, the lock file then just stays.
            unlinkat(dir_, name.c_str(), 0);
            [[maybe_unused]] auto written = write(fd.get(), "d", 1);
        }
        // Closing alone would not do while a process that we started has a copy of the descriptor, if only
        // until its exec.
        flock(fd.get(), LOCK_UN);
    }
    held_.clear();
}

} // namespace firn
