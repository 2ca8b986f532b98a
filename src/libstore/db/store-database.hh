#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "libstore/model/path-info.hh"
#include "libstore/model/realisation.hh"
#include "libutil/logging.hh"

// Nix's database: which store paths are valid, and what is known of them. Schema 10, the number in the file
// `db/schema`, is what stock Nix 2.0 to 2.34 have. Paths are stored in full ("/nix/store/…"), hashes as
// "sha256:<base-16>", signatures joined by blanks. `db/big-lock` is held shared by everyone who has the
// database open and exclusively by whoever upgrades its schema.
//
// Realisations (which path a content-addressed output turned out to be) are in tables of their own, which
// stock Nix makes only where `ca-derivations` is enabled. Nix 2.8 has their version in the file
// `db/ca-schema` (3), which 2.34 does not look at: it notes in the table `SchemaMigrations` what it made. The
// columns are the same. Made here is 2.34's form, with 2.8's file beside it, so that both can go on.

namespace firn {

struct DatabaseOptions {
    bool useWal = true;         ///< use-sqlite-wal
    bool synchronous = true;    ///< fsync-metadata
    bool realisations = false;  ///< make the tables of realisations where they are missing
    uint64_t reservedSpace = 0; ///< size of `db/reserved`, which a collection frees when the disk is full
};

class StoreDatabase {
  public:
    static constexpr int schemaVersion = 10;

    /// Opens the database in directory `directory` (which must exist), or makes it. Takes the big lock shared
    /// until destruction. Throws unsupported for another schema.
    StoreDatabase(const std::filesystem::path &directory, const StoreDir &store,
                  const DatabaseOptions &options, Logger &logger);
    ~StoreDatabase();

    bool isValid(const StorePath &path);
    std::optional<PathInfo> find(const StorePath &path);
    std::optional<StorePath> findByHashPart(const std::string &hashPart);
    StorePathSet allPaths();
    /// Everything in the `path` column as it is, also what is not a store path.
    std::set<std::string> allPathTexts();
    StorePathSet referrers(const StorePath &path);
    /// Paths and everything they refer to. Throws notFound unless they are valid.
    StorePathSet closure(const StorePathSet &paths);
    StorePathSet validDerivers(const StorePath &output);
    std::map<std::string, StorePath> derivationOutputs(const StorePath &drvPath);

    /// Runs `action` in one transaction, again from its start while the database is busy. What it throws
    /// rolls back.
    void transaction(const std::function<void()> &action);

    /// Runs `action`, whose queries all see the database as at one moment. Cheaper than the same queries by
    /// themselves. May be nested, in transaction() too; it does not begin one, and outside of one only reads.
    void snapshot(const std::function<void()> &action);

    // The following are meant for use inside transaction().
    /// New row, or new hash, size, signatures, address and references of an existing one.
    void putPath(const PathInfo &info);
    /// After all of a set have rows. Throws unless every reference is valid.
    void putReferences(const PathInfo &info);
    void putDerivationOutputs(const StorePath &drvPath, const std::map<std::string, StorePath> &outputs);
    void updateInfo(const PathInfo &info);
    /// Throws refused if another path refers to it.
    void remove(const StorePath &path);
    void removeText(const std::string &path);

    bool hasRealisations() const;
    std::optional<Realisation> findRealisation(const DrvOutput &id);
    /// Output name → path, for one derivation hash.
    void putRealisation(const Realisation &realisation);
    void updateRealisationSignatures(const Realisation &realisation);

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

} // namespace firn
