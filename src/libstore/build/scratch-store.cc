#include "libstore/build/scratch-store.hh"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libstore/store/path-locks.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"

namespace firn {

namespace {

constexpr const char *innerName = "store";
constexpr std::string_view suffix = ".drv.chroot";

/// By the sticky bit, which means nothing here, ours are told from stock Nix's.
constexpr mode_t outerMode = S_ISVTX | 0700;

UniqueFd makeDirectoryAt(int dir, const std::string &name) {
    if (mkdirat(dir, name.c_str(), 0700) != 0) {
        throwErrno("making directory '{}' for a sandbox's store", name);
    }
    return openDirectoryAt(dir, name);
}

/// The lock on a directory of that name, none if there is no such directory; `wait` or not at all.
UniqueFd lockDirectory(int storeDir, const std::string &name, bool wait) {
    UniqueFd fd(openat(storeDir, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    return fd && lockFile(fd.get(), LockMode::exclusive, wait) ? std::move(fd) : UniqueFd();
}

/// Whether a locked directory is a scratch store and still has that name.
bool isScratchStore(int storeDir, const std::string &name, int fd) {
    struct stat locked, named;
    return fstat(fd, &locked) == 0 && statAt(storeDir, name, named) && locked.st_dev == named.st_dev &&
           locked.st_ino == named.st_ino && locked.st_uid == geteuid() &&
           (locked.st_mode & 07777) == outerMode;
}

/// A sweep by another process may come between making and locking: then the name is gone.
UniqueFd makeLocked(int storeDir, const std::string &name) {
    for (int attempt = 0; attempt < 100; attempt++) {
        if (mkdirat(storeDir, name.c_str(), outerMode) != 0) {
            throwErrno("making directory '{}' for a sandbox's store", name);
        }
        UniqueFd fd = lockDirectory(storeDir, name, /*wait=*/true);
        if (fd && isScratchStore(storeDir, name, fd.get())) {
            return fd;
        }
        removeTree(storeDir, name);
    }
    throw Error(ErrorKind::failure, "making '{}' for a sandbox's store: it was swept away each time", name);
}

} // namespace

ScratchStore::ScratchStore(int storeDir, const StorePath &drvPath, std::optional<gid_t> group)
    : storeDir_(storeDir), name_(drvPath.baseName() + ".chroot") {
    {
        UniqueFd stale = lockDirectory(storeDir_, name_, /*wait=*/true); // until a sweep is through with it
        removeTree(storeDir_, name_);
    }
    lock_ = makeLocked(storeDir_, name_);
    fd_ = makeDirectoryAt(lock_.get(), innerName);
    // As the real store: builders add entries, and cannot remove what is not theirs.
    if (group && fchown(fd_.get(), static_cast<uid_t>(-1), *group) != 0) {
        throwErrno("giving '{}' to group {}", name_, *group);
    }
    if (fchmod(fd_.get(), 01775) != 0) {
        throwErrno("setting the mode of '{}'", name_);
    }
}

ScratchStore::~ScratchStore() {
    try {
        remove();
    } catch (const Error &) {
        // The next build of this derivation, or a collection, removes it.
    }
}

void ScratchStore::remove(Awaited awaited) {
    if (!name_.empty()) {
        fd_.reset();
        removeTree(storeDir_, std::exchange(name_, {}), awaited);
        lock_.reset();
    }
}

bool ScratchStore::removeIfEmpty() {
    if (unlinkat(lock_.get(), innerName, AT_REMOVEDIR) != 0) {
        if (errno == ENOTEMPTY || errno == EEXIST) {
            return false;
        }
        throwErrno("removing the directory in '{}'", name_);
    }
    remove();
    return true;
}

StorePath ScratchStore::nameAside() {
    char digest[20];
    if (getentropy(digest, sizeof digest) != 0) {
        throwErrno("reading random bytes");
    }
    return StorePath(std::string_view(digest, sizeof digest), "firn-removed" + std::string(suffix));
}

void ScratchStore::setAside(const StorePath &name) {
    UniqueFd own(fcntl(storeDir_, F_DUPFD_CLOEXEC, 0));
    if (!own || renameat(own.get(), name_.c_str(), own.get(), name.baseName().c_str()) != 0) {
        throwErrno("renaming '{}' in the store, to be removed", name_);
    }
    name_ = name.baseName();
    storeDir_ = own.get();
    ownStoreDir_ = std::move(own);
}

void sweepScratchStores(int storeDir, Logger &logger) {
    for (const std::string &name : listDirectory(storeDir)) {
        if (!name.ends_with(suffix)) {
            continue;
        }
        try {
            UniqueFd lock = lockDirectory(storeDir, name, /*wait=*/false);
            if (lock && isScratchStore(storeDir, name, lock.get())) {
                removeTree(storeDir, name);
            }
        } catch (const Error &error) {
            logger.warn(error.message());
        }
    }
}

} // namespace firn
