#include "firn/macho/replacement.hh"

#include <algorithm>
#include <memory>

#include <fcntl.h>
#include <unistd.h>

#include "libstore/build/clone-file.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/interrupt.hh"
#include "libutil/platform.hh"
#include "libutil/positioned-io.hh"

namespace firn {

namespace {

constexpr size_t blockSize = 1024 * 1024;
constexpr struct timespec leaveTime = {0, UTIME_OMIT};

template<typename Try>
std::string makeTemporary(Try tryName) {
    for (unsigned number = 0;; ++number) {
        std::string name = fmt::format(".firn-macho-{}-{}", getpid(), number);
        if (tryName(name)) {
            return name;
        }
        if (errno == EACCES || errno == EPERM || errno == EROFS) {
            throwErrno("making a new file: its directory must be writable for you");
        }
        if (errno != EEXIST) {
            throwErrno("making a new file");
        }
    }
}

void setModificationTime(int fd, const struct stat &st) {
    struct timespec times[2] = {leaveTime, modificationTime(st)};
    if (futimens(fd, times) != 0) {
        throwErrno("setting its modification time");
    }
}

/// A new file belongs to whoever makes it, and not everybody may give it to the old one's owner and group.
void giveTo(int fd, const struct stat &own, const struct stat &old) {
    bool sameUser = own.st_uid == old.st_uid;
    if ((sameUser && own.st_gid == old.st_gid) || fchown(fd, old.st_uid, old.st_gid) == 0) {
        return;
    }
    int number = errno;
    SysError error(number, sameUser
                               ? fmt::format("keeping its group, {}, for the new file", old.st_gid)
                               : fmt::format("keeping its owner, user {}, for the new file", old.st_uid));
    const char *remedy = sameUser
                             ? "give the old file a group that you are in (chgrp) first, or do this as root"
                             : "do this as root, or on a copy of your own";
    throw Error(ErrorKind::failure, "{}: {}", error.message(), remedy);
}

} // namespace

// ---- ChangingDirectory

ChangingDirectory::ChangingDirectory(int self, Keep keep) : self_(self), keep_(keep) {
    if (keep_ == Keep::nothing) {
        return;
    }
    if (fstat(self_, &st_) != 0) {
        throwErrno("looking at its directory");
    }
    constexpr mode_t needed = S_IWUSR | S_IXUSR;
    if ((st_.st_mode & needed) != needed && st_.st_uid == geteuid() &&
        fchmod(self_, (st_.st_mode & 07777) | needed) != 0) {
        throwErrno("making its directory writable");
    }
}

ChangingDirectory::~ChangingDirectory() {
    if (keep_ == Keep::nothing) {
        return;
    }
    struct timespec times[2] = {leaveTime, modificationTime(st_)};
    struct stat now;
    bool changed = fstat(self_, &now) != 0 || (now.st_mode & 07777) != (st_.st_mode & 07777);
    if (futimens(self_, times) != 0 || (changed && fchmod(self_, st_.st_mode & 07777) != 0)) {
        // Nothing that was asked for is undone by this, so it is said and no error.
        fmt::print(stderr, "warning: mode and time of a changed directory could not be restored\n");
    }
}

// ---- Replacement

Replacement::Replacement(int dir, std::string name, const OpenFile &old)
    : dir_(dir), name_(std::move(name)), old_(old) {
    temporary_ = makeTemporary([this](const std::string &candidate) {
        fd_.reset(openat(dir_, candidate.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
        return bool(fd_);
    });
    try {
        copy();
    } catch (...) {
        unlinkat(dir_, temporary_.c_str(), 0);
        throw;
    }
}

Replacement::~Replacement() {
    if (!temporary_.empty()) {
        unlinkat(dir_, temporary_.c_str(), 0);
    }
}

void Replacement::copy() {
    if (cloneFile(old_.fd.get(), fd_.get())) {
        return;
    }
    FileBytes from(old_.fd.get(), old_.size());
    auto block = std::make_unique_for_overwrite<char[]>(blockSize);
    for (uint64_t offset = 0; offset < from.size(); offset += blockSize) {
        size_t size = std::min<uint64_t>(blockSize, from.size() - offset);
        from.read(offset, block.get(), size);
        writeAt({block.get(), size}, offset);
    }
}

void Replacement::writeAt(std::string_view bytes, uint64_t offset) {
    if (offset > old_.size() || bytes.size() > old_.size() - offset) {
        throw Error(ErrorKind::bug, "a patch of {} bytes at {} lies outside of the file", bytes.size(),
                    offset);
    }
    writeFullAt(fd_.get(), offset, bytes);
}

void Replacement::takeOver() {
    struct stat own;
    if (fstat(fd_.get(), &own) != 0) {
        throwErrno("looking at the new file");
    }
    giveTo(fd_.get(), own, old_.st);
    // After the owner, which takes set-id bits away.
    if (fchmod(fd_.get(), old_.st.st_mode & 07777) != 0) {
        throwErrno("setting its mode");
    }
    setModificationTime(fd_.get(), old_.st);
}

void Replacement::commit() {
    takeOver();
    syncFd(fd_.get());
    old_.requireUnchanged();
    struct stat now;
    if (!statAt(dir_, name_, now) || now.st_dev != old_.st.st_dev || now.st_ino != old_.st.st_ino) {
        throw Error(ErrorKind::failure, "somebody else put another file in its place meanwhile");
    }
    throwIfInterrupted();
    if (renameat(dir_, temporary_.c_str(), dir_, name_.c_str()) != 0) {
        throwErrno("putting the new file in place");
    }
    temporary_.clear();
}

// ---- symlinks and names

void replaceSymlink(int dir, const std::string &name, const std::string &target) {
    struct stat st;
    if (!statAt(dir, name, st)) {
        throw Error(ErrorKind::failure, "it vanished");
    }
    std::string temporary = makeTemporary(
        [&](const std::string &candidate) { return symlinkat(target.c_str(), dir, candidate.c_str()) == 0; });
    ScopeExit remove([&] { unlinkat(dir, temporary.c_str(), 0); });
    struct timespec times[2] = {leaveTime, modificationTime(st)};
    if (utimensat(dir, temporary.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0 ||
        renameat(dir, temporary.c_str(), dir, name.c_str()) != 0) {
        throwErrno("putting the new symlink in place");
    }
    remove.cancel();
}

std::string unusedName(int dir) {
    return makeTemporary([dir](const std::string &candidate) {
        errno = EEXIST;
        return !existsAt(dir, candidate);
    });
}

} // namespace firn
