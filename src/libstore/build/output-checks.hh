#pragma once

#include <functional>
#include <map>
#include <string>

#include "libstore/model/derivation-options.hh"
#include "libstore/model/path-info.hh"

namespace firn {

/// Gives what is known of a valid path.
using PathInfoReader = std::function<PathInfo(const StorePath &)>;

struct OutputCheckContext {
    const StoreDir &store;
    const DerivationOptions &options;
    /// Path of every output of the derivation, by name: what lists of references may name.
    const std::map<std::string, StorePath> &outputPaths;
    PathInfoReader readInfo;
};

/// Compares new outputs (by name), which need not be valid yet, with what their derivation allows: sizes,
/// references, closures. Throws BuildFailure(outputRejected).
void checkOutputs(const OutputCheckContext &context, const std::map<std::string, PathInfo> &outputs);

} // namespace firn
