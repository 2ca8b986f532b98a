#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "libstore/build/build-result.hh"
#include "libstore/model/derivation-options.hh"
#include "libstore/model/derivation.hh"

namespace firn {

/// What is to be built, once all inputs are valid. A plain value.
struct BuildPlan {
    struct Output {
        /// Of a floating output: where an earlier build of it came to lie, if there was one.
        std::optional<StorePath> path;
        bool promised = false; ///< the derivation says the path, or what it is made of
        bool valid = false;    ///< already in the store, and good: not to be made anew unless checking
    };

    StorePath drvPath;
    Derivation derivation;
    DerivationOptions options;
    BuildMode mode = BuildMode::normal;
    StorePathSet inputClosure; ///< what the builder may see and its outputs may refer to
    std::map<std::string, Output> outputs;

    /// Those that are known.
    std::vector<StorePath> outputPaths() const {
        std::vector<StorePath> paths;
        for (const auto &[name, output] : outputs) {
            if (output.path) {
                paths.push_back(*output.path);
            }
        }
        return paths;
    }
};

} // namespace firn
