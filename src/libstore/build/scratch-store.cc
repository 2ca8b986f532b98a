#include "libstore/build/scratch-store.hh"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libutil/error.hh"
#include "libutil/files.hh"

namespace firn {

namespace {

constexpr const char *innerName = "store";

UniqueFd makeDirectoryAt(int dir, const std::string &name) {
    if (mkdirat(dir, name.c_str(), 0700) != 0) {
        throwErrno("making directory '{}' for a sandbox's store", name);
    }
    return openDirectoryAt(dir, name);
}

} // namespace

ScratchStore::ScratchStore(int storeDir, const StorePath &drvPath, std::optional<gid_t> group)
    : storeDir_(storeDir), name_(drvPath.baseName() + ".chroot") {
    removeTree(storeDir_, name_);
    UniqueFd outer = makeDirectoryAt(storeDir_, name_);
    fd_ = makeDirectoryAt(outer.get(), innerName);
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

void ScratchStore::remove() {
    if (!name_.empty()) {
        fd_.reset();
        removeTree(storeDir_, std::exchange(name_, {}));
    }
}

} // namespace firn
