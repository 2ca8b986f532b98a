#pragma once

#include <vector>

#include "libstore/build/build-result.hh"
#include "libstore/model/derivation.hh"
#include "libstore/model/derived-path.hh"
#include "libstore/store/local-store.hh"

namespace firn {

class BackgroundRemoval;

/// What a build needs from its connection.
struct BuildContext {
    LocalStore &store;
    const Settings &settings;
    Logger &logger;
    /// Polled for hang-up while building: when the client goes away every build of it is killed and
    /// Error(interrupted) thrown. −1: nobody to watch.
    int clientFd = -1;
    /// For `keep-failed`: who may read what is left. −1: nobody.
    uid_t clientUid = static_cast<uid_t>(-1);
    gid_t clientGid = static_cast<gid_t>(-1);
    /// The client's process: one that is inside a build runs its builds on that build's slot. −1: not known.
    pid_t clientPid = -1;
    /// Minor version of the worker protocol that the client speaks: failure messages are worded as the
    /// client's own generation of daemons does (until 34 as Nix 2.8, later as 2.34), since scripts look for
    /// them.
    unsigned clientMinor = 38;
    /// Removes what successful builds leave behind, once the client has its answer. Null: they do it
    /// themselves, before.
    BackgroundRemoval *removal = nullptr;
};

/// Makes every path valid: opaque paths must be valid already (no substituters yet), outputs of derivations
/// are built, with everything they need. Runs an event loop in the calling thread until all is done; one
/// result per request, in order. Throws only when interrupted or on a fault of ours; a failed build is a
/// result.
std::vector<BuildResult> buildPaths(BuildContext &context, const std::vector<DerivedPath> &paths,
                                    BuildMode mode);

/// Builds one derivation that need not be in the store; its inputs must be valid.
BuildResult buildDerivation(BuildContext &context, const StorePath &drvPath, const BasicDerivation &drv,
                            BuildMode mode);

/// What buildPaths() would have to do.
struct MissingPaths {
    StorePathSet willBuild, willSubstitute, unknown;
    uint64_t downloadSize = 0, narSize = 0;
};
MissingPaths queryMissing(LocalStore &store, const std::vector<DerivedPath> &paths);

/// One error for a list of results, as clients of BuildPaths expect it; nothing if all are good. A single
/// failure is thrown as it is; of several each is logged at level `error`, and "build of … failed" thrown.
void throwIfFailed(const StoreDir &store, Logger &logger, const std::vector<DerivedPath> &paths,
                   const std::vector<BuildResult> &results);
/// The same with all messages in the one error.
void throwIfFailed(const StoreDir &store, const std::vector<DerivedPath> &paths,
                   const std::vector<BuildResult> &results);

} // namespace firn
