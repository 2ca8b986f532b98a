#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libstore/model/derivation.hh"

// What a builder is told: its environment, its arguments and the small files in its build directory. As stock
// Nix does it, since every derivation of nixpkgs depends on it.

namespace firn {

struct BuilderEnvironmentInput {
    const StoreDir &store;
    const BasicDerivation &derivation;
    /// Where the builder is to make each output.
    std::map<std::string, StorePath> scratchPaths;
    /// The build directory as the builder sees it.
    std::string buildTop;
    unsigned cores = 1; ///< NIX_BUILD_CORES

    StringSet passAsFile;    ///< attributes that travel as files
    StringSet impureEnvVars; ///< passed on from the daemon, to fixed-output builds only
    /// With structured attributes: no attribute becomes a variable, these two files are written instead. The
    /// JSON text has its output paths already.
    struct StructuredFiles {
        std::string json, shell;
    };
    std::optional<StructuredFiles> structured;
    /// Further files by name, such as those of exportReferencesGraph.
    StringMap files;
    /// The daemon's own variables.
    std::function<std::optional<std::string>(const std::string &)> hostVariable;
};

struct BuilderEnvironment {
    StringMap variables;
    StringMap files; ///< to be written to the build directory, readable for the builder
    std::string builder;
    std::vector<std::string> args; ///< with argv[0], the builder's base name

    /// "NAME=value" each.
    std::vector<std::string> list() const;
};

/// A pure function. Placeholders of outputs become their scratch paths everywhere, and where a scratch path
/// is not the final one, so does the final path's hash part. Throws badInput for names that no variable can
/// have.
BuilderEnvironment makeBuilderEnvironment(const BuilderEnvironmentInput &input);

/// Replaces every occurrence of each key.
std::string rewriteText(std::string text, const StringMap &rewrites);

} // namespace firn
