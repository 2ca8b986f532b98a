#pragma once

#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "libstore/build/build-result.hh"
#include "libstore/build/output-tree.hh"
#include "libstore/build/patch.hh"
#include "libstore/model/derivation.hh"
#include "libstore/model/path-info.hh"
#include "libstore/store/local-store.hh"
#include "libutil/error.hh"

namespace firn {

/// One output as the builder left it.
struct ScratchOutput {
    StorePath scratchPath; ///< path the builder was told (its text may occur in the contents)
    /// Where it will be, where that is known beforehand; or, of a floating output that is valid already, and
    /// is not wanted anew or only to be compared, where it is.
    std::optional<StorePath> finalPath;
    /// For a repair of a floating output: where an earlier build of it came to lie.
    std::optional<StorePath> recordedPath{};
    /// Under repair: what is valid at the final path is as it was registered, and stays.
    bool good = false;
};

class OutputJudge;

struct RegistrationRequest {
    const Derivation *derivation = nullptr; ///< or BasicDerivation's content with no input derivations
    StorePath drvPath;
    std::map<std::string, ScratchOutput> outputs; ///< by output name: those to be registered
    /// Directory that holds the scratch outputs under their base names: the sandbox's store directory (on the
    /// store's file system and reached through the same mount, so that outputs can be moved out of it by
    /// renaming), or the store itself.
    int scratchDir = -1;
    /// Paths the outputs may refer to: the closure of the inputs. Hash parts of these and of the outputs are
    /// scanned for.
    StorePathSet possibleReferences;
    uid_t builderUid = static_cast<uid_t>(-1); ///< owner that everything must have; −1: not checked
    /// Outputs whose path promises their content are copied to new inodes while hashed, as somebody may hold
    /// a descriptor.
    bool copyFixedOutputs = false;
    /// The same for every output: an unsandboxed builder can have handed a descriptor to anybody, and hard
    /// links to an inode that somebody can still write to would carry the change into other store paths.
    bool copyAllOutputs = false;
    BuildMode mode = BuildMode::normal;
    OutputJudge *judge = nullptr; ///< needed for check, unused otherwise
    /// For fixed outputs: what the builder was to fetch, shown when the hash is wrong. May be empty.
    std::string url;
};

struct NodePatches;
struct Rewrites;

/// One output in the phases `repair` to `verify`: what a rewrite changes in it.
struct OutputRewrite {
    const std::string &outputName;
    int dir; ///< holds the tree's root
    const OutputTree &tree;
    /// Every object that is touched, in the archive's order. A file that is patched `everywhere` comes
    /// without a list of its rewrites.
    const std::vector<NodePatches> &changes;
    const Rewrites &rewrites;
    const std::map<StorePath, StorePath> &finalByScratch; ///< of all outputs of the request
    /// Its path is known to follow from normal forms: those files get their final forms.
    bool finalForms = false;
};

/// What has to be known of an output's files before its address can be.
struct AddressForms {
    /// What other outputs' paths have changed in signatures: contents like any other, hashed and written.
    std::vector<FilePatches> settled;
    /// Makes normal forms of files that hold the output's own path (doc/content-addressed-macho.md), beside
    /// the zeros for that path: hashed, not written. Any at all: the address is one of Firn's own.
    std::vector<FilePatches> normal;
    /// Where the address does not follow from normal forms nothing of all that is done.
    bool onlyNormal = false;
};

/// What rewriting, which knows no format, leaves to those who know one. Called for every output of every kind
/// in which something is rewritten.
class OutputRepair {
  public:
    virtual ~OutputRepair() = default;
    /// The contents of a file of `size` bytes that begins so are found to be touched, while the rest of the
    /// output is still being read: something may be got ready for what will be asked. Returns in how many of
    /// its last bytes there will be more to patch, as far as can be told by this; 0: nowhere. Asked in vain
    /// where nothing is rewritten before repair().
    virtual uint64_t foresee(const FileHead &head, uint64_t size) = 0;
    /// Where paths are known beforehand, for files of which foresee() said so, when they were read: what
    /// repair() will answer for this one, which it is told of then as `isOnDisk`. `file` is open for reading
    /// and as the builder left it; `output` has this one change.
    virtual std::vector<Patch> repairFile(const OutputRewrite &output, int file) = 0;
    /// For an output whose address is to be computed, or that has such an address of Firn's own and is
    /// checked: `output` has the rewrites of the others' paths, and its own `scratchPath` as it is. What
    /// repair() will answer for it later makes the final forms of the files that have a normal form.
    virtual AddressForms formsForAddress(const OutputRewrite &output, const StorePath &scratchPath);
    /// The files on disk are still as the builder left them, but for those that are patched on disk already.
    /// May answer with further patches (page hashes) of the contents of files whose contents are touched.
    virtual std::vector<FilePatches> repair(const OutputRewrite &output) = 0;
    /// All patches are on disk. Throws where they are not what they should be.
    virtual void verify(const OutputRewrite &output) = 0;
};

/// An output that was built once more.
struct CheckedOutput {
    const std::string &outputName;
    const PathInfo &valid; ///< what is registered
    const PathInfo &made;  ///< what it would be registered as now
    int dir;               ///< holds the new tree's root
    const OutputTree &tree;
    const std::vector<NodePatches> &changes; ///< what the daemon has changed in the new tree
    const std::vector<FileHead> &heads;      ///< by node of the new tree (ScanResult::heads)
    /// What looksUntouched() says of the registered tree, beside this one; not valid where nobody has looked.
    std::shared_future<bool> untouched;
};

/// What becomes of a check.
class OutputJudge {
  public:
    virtual ~OutputJudge() = default;
    /// May move the new trees away. Throws BuildFailure: with notDeterministic where outputs differ, and
    /// always where there is a `refusal`, which says why what was built may not be what it is to be, whether
    /// it differs or not.
    virtual void judge(const std::vector<CheckedOutput> &outputs, const BuildFailure *refusal) = 0;
};

/// Collect, scan, order, decide, repair, apply, verify, hash, check, register: see doc/architecture.md. On
/// success all outputs are valid in one transaction, and their infos are returned by name; what is left in
/// the scratch directory (of outputs that were valid already or only compared, those that may be large) is
/// for the caller to remove. On failure the store is as it was, the scratch outputs are left for the caller
/// to keep or to remove, and an Error is thrown (BuildFailure with a status).
///
/// The caller holds the locks of the final paths that are known beforehand, has made them and the scratch
/// paths temporary roots, and has seen every process of the build die. Final paths that are computed here
/// become temporary roots here; one that is valid already is used as it is if it has the same contents, else
/// the outputs are rejected.
///
/// normal: outputs that are valid already stay as they are; check: all are compared with the valid ones, by
/// the request's judge; those are returned, and nothing changes; repair: all but the good ones take the place
/// of what is there.
class OutputRegistration {
  public:
    /// All must outlive it.
    OutputRegistration(LocalStore &store, Logger &logger, const RegistrationRequest &request,
                       OutputRepair &repair);
    ~OutputRegistration();

    /// All phases but the last: nothing changes outside the scratch directory.
    void prepare();
    /// Final paths that were computed and are about to be made: their locks must be held from before
    /// finish() on.
    StorePathSet pathsToLock() const;
    std::map<std::string, PathInfo> finish();

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

/// All of it, waiting for locks.
std::map<std::string, PathInfo> registerOutputs(LocalStore &store, Logger &logger,
                                                const RegistrationRequest &request, OutputRepair &repair);

} // namespace firn
