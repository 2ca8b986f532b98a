#pragma once

#include <map>
#include <optional>
#include <string>

#include <sys/types.h>

#include "libstore/build/build-directory-exec.hh"
#include "libstore/build/build-directory.hh"
#include "libstore/build/build-plan.hh"
#include "libstore/build/store-leftovers.hh"
#include "libstore/build/worker.hh"

// What --keep-failed leaves for people: the outputs as far as they came, and the build directory. Nothing of
// the build may run any more.

namespace firn {

struct BuildToKeep {
    LocalStore &store;
    const BuildContext &context;
    const BuildPlan &plan;
    uid_t builder;
    const std::map<std::string, StorePath> &scratchPaths; ///< by output name
    std::optional<int> scratchStore; ///< a directory that holds them; none: they lie in the store
    const ExecChoice *execution;     ///< null: none was chosen
};

/// For whoever wants to see what went wrong; the next build of the derivation removes them. They come to lie
/// in the store, where nothing may belong to a builder or be writable. Warns of what cannot be kept, and
/// leaves that among the leftovers.
void keepFailedOutputs(const BuildToKeep &build, StoreLeftovers &leftovers);

/// Leaves it to the client's user, and says where. Throws Error.
void keepBuildDirectory(const BuildToKeep &build, BuildDirectory &directory);

} // namespace firn
