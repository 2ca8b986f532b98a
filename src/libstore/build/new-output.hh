#pragma once

#include <future>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "libstore/build/output-copy.hh"
#include "libstore/build/output-placement.hh"
#include "libstore/build/output-scan.hh"
#include "libstore/build/output-tree.hh"
#include "libstore/build/register-outputs.hh"
#include "libstore/model/derivation-options.hh"
#include "libutil/files.hh"
#include "libutil/nar.hh"

// What the phases of registerOutputs() hand on to each other; nothing of it outlives one registration.

namespace firn {

/// One output on its way through the phases.
struct NewOutput {
    std::string name;
    const ScratchOutput *scratch;
    const DerivationOutput *specification;
    OutputTree tree;                                 // collect
    ScanResult scan;                                 // scan
    std::shared_future<bool> untouched;              // scan: see CheckedOutput
    std::vector<NodePatches> changes;                // decide, repair
    HashAndSize nar{Hash(HashAlgorithm::sha256), 0}; // hash
};
using NewOutputs = std::vector<NewOutput>;

/// The hash parts that are looked for, and what each stands for.
struct ScanTargets {
    HashPartSet parts;
    std::vector<StorePath> paths; ///< by number of the part: scratch path, final path or input
    std::vector<bool> rewritable; ///< by number of the part

    uint32_t add(const StorePath &path, bool mayBeRewritten);
};

/// What all phases know.
struct RegistrationContext {
    LocalStore &store;
    Logger &logger;
    const RegistrationRequest &request;
    DerivationOptions options = readDerivationOptions(*request.derivation);
    std::string drv = store.dir().print(request.drvPath); ///< for messages
    bool scratchInStore = isSameDirectory(request.scratchDir, store.storeFd());

    std::string print(const StorePath &path) const { return store.dir().print(path); }
    const StorePath &scratchPath(const std::string &name) const {
        return request.outputs.at(name).scratchPath;
    }
};

/// Fails the build: what it made cannot be an output.
[[noreturn]] void rejectOutput(const std::string &message);

/// Scratch paths and final paths of all outputs of the request, and everything they may refer to.
ScanTargets scanTargets(const RegistrationContext &context);

/// Lays what a repair answered over `changes` of the output. Throws ErrorKind::refused for a file whose
/// contents nothing changes, and for patches that cannot be.
void mergeRepairs(const NewOutput &output, std::vector<NodePatches> &changes,
                  std::vector<FilePatches> repairs);

/// Of an output whose path follows from what it holds.
std::optional<ContentAddressMethod> floatingMethod(const NewOutput &output);

/// For an output whose hash is that of one file's contents.
void requirePlainFile(const RegistrationContext &context, const NewOutput &output, ContentMethod method);

/// For an output whose hash is git's: that hash has to say everything that is in it.
void requireGitObject(const RegistrationContext &context, const NewOutput &output);

/// As the derivation says with `unsafeDiscardReferences`.
/// Whether an output's path follows from its contents.
bool pathFollowsFromContent(const DerivationOutput &output);

bool discardsReferences(const RegistrationContext &context, const std::string &outputName);

} // namespace firn
