#pragma once

#include <functional>
#include <optional>
#include <string>

#include "libstore/db/store-database.hh"
#include "libstore/store/local-store.hh"
#include "libstore/store/path-locks.hh"
#include "libstore/store/temp-roots.hh"

// The inside of LocalStore, for the files of this directory alone. The order of members is the order in which
// things come to be: directories, then the store's descriptor, then the database.

namespace firn {

struct LocalStore::Impl {
    Impl(LocalStore &self, const Locations &locations, const Settings &settings, Logger &logger);

    std::string print(const StorePath &path) const { return locations.storeDir.print(path); }
    void log(Verbosity level, std::string_view message) { logger.log(level, message); }
    /// Root for a name of ours in the store directory, and with it for everything with its hash part.
    void addTempRoot(const StorePath &path) { tempRoots.add(print(path)); }
    [[noreturn]] void throwInvalid(const StorePath &path) const;
    [[noreturn]] void throwUntrusted(const StorePath &path) const;
    /// Of a path that nobody vouches for: whether it is worth looking at its contents.
    bool mayFollowFromContents(const PathInfo &info) const;
    bool signedByTrustedKey(const std::function<bool(const PublicKey &)> &matches) const;

    LocalStore &self;
    Locations locations;
    const Settings &settings;
    Logger &logger;
    UniqueFd storeFd;
    StoreDatabase database;
    TempRoots tempRoots;
    bool madeLastingRoot = false;
    DerivationHasher hasher;
    uint64_t stagedCount = 0; ///< for names
    AddressCheck addressCheck;
};

/// Something under a name of its own in the store directory, safe from any collection, removed again unless
/// it was moved into place.
class StagedPath {
  public:
    /// The name carries `hashPart`, whose path must be a temporary root already.
    StagedPath(LocalStore::Impl &store, std::string_view hashPart);
    /// The name carries a hash part of its own that becomes a temporary root.
    explicit StagedPath(LocalStore::Impl &store);
    ~StagedPath();
    StagedPath(const StagedPath &) = delete;
    StagedPath &operator=(const StagedPath &) = delete;

    const std::string &name() const { return name_; }
    /// Renames it to the path, replacing (moving aside, then removing) what has that name.
    void moveTo(const StorePath &path);

  private:
    void discard() noexcept;

    LocalStore::Impl &store_;
    std::string name_;
};

/// Deletes an entry of the store directory after it got a name that nobody looks for; returns the bytes
/// freed.
uint64_t removeStoreEntry(LocalStore::Impl &store, const std::string &name);

} // namespace firn
