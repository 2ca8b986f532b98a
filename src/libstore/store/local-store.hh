#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "libstore/model/derivation.hh"
#include "libstore/model/path-info.hh"
#include "libstore/model/realisation.hh"
#include "libstore/store/settings.hh"
#include "libutil/file-descriptor.hh"
#include "libutil/logging.hh"
#include "libutil/stream.hh"

namespace firn {

class StoreDatabase;
class TempRoots;

enum class Repair { no, yes };
enum class CheckSignatures { no, yes };

struct GcOptions {
    enum class Action : uint64_t { returnLive = 0, returnDead = 1, deleteDead = 2, deleteSpecific = 3 };
    Action action = Action::deleteDead;
    bool ignoreLiveness = false;
    StorePathSet pathsToDelete;     ///< for deleteSpecific
    uint64_t maxFreed = UINT64_MAX; ///< bytes
};

struct GcResults {
    std::set<std::string> paths; ///< full paths, as the action says
    uint64_t bytesFreed = 0;
};

/// The store on this host: files below the store directory, Nix's SQLite database, locks, roots. One per
/// process (connection); the database is opened by it. Everything a stock Nix does at the same time on the
/// same store is respected. Not thread-safe, except where said.
class LocalStore : public DerivationReader {
  public:
    /// Opens, or makes anew where nothing is yet (schema 10, like stock Nix 2.8 to 2.34). Takes db/big-lock
    /// shared for its lifetime. `settings` and `logger` must outlive the store; the settings may change
    /// (client options).
    LocalStore(const Locations &locations, const Settings &settings, Logger &logger);
    ~LocalStore() override;

    const StoreDir &dir() const;
    const Locations &locations() const;
    const Settings &settings() const;
    Logger &logger() const;
    /// Descriptor of the store directory.
    int storeFd() const;

    /// Makes `profiles/per-user/<user>` and `gcroots/per-user/<user>`, owned by the user, as stock Nix does
    /// for everybody who connects.
    void createUser(const std::string &user, uid_t uid, gid_t gid);

    // ---- queries
    bool isValidPath(const StorePath &path);
    std::optional<PathInfo> tryQueryPathInfo(const StorePath &path);
    /// Throws notFound "path '…' is not valid".
    PathInfo queryPathInfo(const StorePath &path);
    std::optional<StorePath> queryPathFromHashPart(const std::string &hashPart);
    StorePathSet queryAllValidPaths();
    StorePathSet queryValidPaths(const StorePathSet &paths);
    StorePathSet queryReferrers(const StorePath &path);
    StorePathSet queryValidDerivers(const StorePath &path);
    /// Outputs of a derivation with their paths where known (from the .drv, or from realisations).
    std::map<std::string, std::optional<StorePath>> queryDerivationOutputMap(const StorePath &drvPath);
    /// Paths and everything they refer to.
    StorePathSet computeClosure(const StorePathSet &paths);
    /// Sorted so that references come before what refers to them. Throws on cycles.
    std::vector<StorePath> topologicallySorted(const StorePathSet &paths);
    /// The same for any set with its references given by a function (of paths that are not valid yet).
    std::vector<StorePath> sortByReferences(const StorePathSet &paths,
                                            const std::function<StorePathSet(const StorePath &)> &references);
    /// The derivation in a valid .drv path.
    Derivation readDerivation(const StorePath &drvPath) override;
    /// The derivation in a .drv file that lies in the store, valid or not.
    Derivation readDerivationFile(const StorePath &drvPath);

    // ---- adding
    /// A dump (NAR for `nar` and `git`, plain bytes for `flat` and `text`) as a content-addressed path.
    /// Temporary root included.
    PathInfo addContent(std::string_view name, ContentAddressMethod method, Source &dump,
                        const StorePathSet &references, Repair repair = Repair::no);
    PathInfo addText(std::string_view name, std::string_view text, const StorePathSet &references,
                     Repair repair = Repair::no);
    StorePath addDerivation(const Derivation &drv, Repair repair = Repair::no);
    /// Unpacks to a temporary name beside the final one, hashes in the same pass, compares hash, size and
    /// content address, checks signatures, registers. Where the path is valid already (and repair is no) it
    /// consumes the NAR and does nothing.
    void addNar(const PathInfo &info, Source &nar, Repair repair, CheckSignatures check);
    /// One transaction; references must be valid or in the same set; a cycle is refused; `ca` claims are not
    /// checked here.
    void registerValidPaths(const std::vector<PathInfo> &infos);
    void addSignatures(const StorePath &path, const std::set<std::string> &signatures);
    void registerRealisation(const Realisation &realisation, CheckSignatures check);
    /// Of something built here: registers it unless one is known already, in one step, and returns what is
    /// known by now: the first counts.
    Realisation recordRealisation(const Realisation &realisation);
    std::optional<Realisation> queryRealisation(const DrvOutput &id);
    /// Signs with the configured secret keys.
    void sign(PathInfo &info);
    void sign(Realisation &realisation);
    /// Whether the path is content-addressed, ultimate or has a signature by a trusted key (or none is
    /// required).
    bool isTrusted(const PathInfo &info);

    /// Whether the path of a tree follows from its contents by a rule that the store itself does not know.
    /// The tree is canonical, and lies in the store directory as `entry`.
    using AddressCheck = std::function<bool(const std::string &entry, const PathInfo &info)>;
    /// What is to decide about paths that arrive without a content address and without a signature that is
    /// trusted. Without one they are refused.
    void setAddressCheck(AddressCheck check);

    // ---- contents
    void narFromPath(const StorePath &path, Sink &sink);
    /// `nix-store --export` form (for ExportPath): NAR, magic, path, references, deriver, 0.
    void exportPath(const StorePath &path, Sink &sink);
    /// The reverse, for all paths of a stream; returns them.
    std::vector<StorePath> importPaths(Source &source, CheckSignatures check);

    // ---- roots and garbage
    /// Until this process ends. Also tells a collection that is running.
    void addTempRoot(const StorePath &path);
    void addIndirectRoot(const std::string &link);
    void addPermanentRoot(const StorePath &path, const std::string &link);
    /// Root link (or "{censored}" / "{temp:PID}" …) → store paths.
    std::map<std::string, StorePathSet> findRoots(bool censor);
    GcResults collectGarbage(const GcOptions &options);
    /// Makes a path invalid and deletes it, for repair. Throws if something refers to it.
    void invalidatePath(const StorePath &path);
    /// Hard-links equal files through .links. One path, after registration, when auto-optimise-store is set;
    /// or all.
    void optimisePath(const StorePath &path);
    void optimiseAll();
    /// Returns whether errors remain.
    bool verify(bool checkContents, Repair repair);

    // ---- build logs
    /// "<log dir>/drvs/<2 digits>/<rest>[.bz2]"
    std::filesystem::path buildLogPath(const StorePath &drvPath) const;
    void addBuildLog(const StorePath &drvPath, Source &log);
    std::optional<std::string> buildLog(const StorePath &drvPath);

    /// For this directory's own files.
    struct Impl;

  private:
    void registerDerivationOutputs(const StorePath &drvPath);

    std::unique_ptr<Impl> impl_;
};

/// Owner, group and mode (0444/0555 and no set-id bits), times (1 s after the epoch), no extended attributes
/// or ACLs, for a whole tree, iterative, by descriptors, no symlink followed. `expectedUid`: refuse files
/// owned by anybody else (unless it is -1); hard links to files outside the tree are refused. Throws for
/// sockets, devices and FIFOs.
void canonicaliseTree(int dir, const std::string &name, uid_t expectedUid,
                      const std::set<std::string> &ignoredAcls);

} // namespace firn
