#include <cerrno>

#include <fcntl.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libstore/store/impl.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"

// What is being made lies in the store directory itself, so that it reaches its place by a rename. A
// collection, stock Nix's too, deletes every entry that is no valid path, except those with the hash part of
// a temporary root; so such an entry's name must begin with one.

namespace firn {

namespace {

StorePath randomPath() {
    char digest[20];
    if (getentropy(digest, sizeof digest) != 0) {
        throwErrno("reading random bytes");
    }
    return StorePath(std::string_view(digest, sizeof digest), "firn-staged");
}

bool renameAt(int dir, const std::string &from, const std::string &to) {
    if (renameat(dir, from.c_str(), dir, to.c_str()) == 0) {
        return true;
    }
    if (errno == ENOTEMPTY || errno == EEXIST || errno == EISDIR || errno == ENOTDIR) {
        return false;
    }
    throwErrno("renaming '{}' to '{}' in the store", escapeForDisplay(from), escapeForDisplay(to));
}

} // namespace

StagedPath::StagedPath(LocalStore::Impl &store, std::string_view hashPart)
    : store_(store), name_(fmt::format("{}-firn-staged-{}-{}", hashPart, getpid(), store.stagedCount++)) {
    removeTree(store_.storeFd.get(), name_); // of a dead process with our number
}

StagedPath::StagedPath(LocalStore::Impl &store) : store_(store) {
    auto path = randomPath();
    store_.addTempRoot(path);
    name_ = path.baseName();
}

StagedPath::~StagedPath() {
    discard();
}

void StagedPath::discard() noexcept {
    if (name_.empty()) {
        return;
    }
    try {
        removeTree(store_.storeFd.get(), name_);
    } catch (const Error &error) {
        // What stays is garbage for the next collection.
        store_.logger.warn(error.message());
    }
}

void StagedPath::moveTo(const StorePath &path) {
    int dir = store_.storeFd.get();
    struct stat st;
    if (statAt(dir, path.baseName(), st)) {
        removeStoreEntry(store_, path.baseName());
    }
    if (!renameAt(dir, name_, path.baseName())) {
        throw Error(ErrorKind::failure, "'{}' appeared while it was being made here", store_.print(path));
    }
    name_.clear();
}

uint64_t removeStoreEntry(LocalStore::Impl &store, const std::string &name) {
    int dir = store.storeFd.get();
    // No valid name of a store path, so every collection takes it for garbage if we die before the end.
    auto aside = fmt::format("trash-{}-{}", getpid(), store.stagedCount++);
    removeTree(dir, aside);
    if (renameat(dir, name.c_str(), dir, aside.c_str()) != 0) {
        if (errno == ENOENT) {
            return 0;
        }
        throwErrno("moving '{}' aside in the store", escapeForDisplay(name));
    }
    return removeTreeCounting(dir, aside);
}

} // namespace firn
