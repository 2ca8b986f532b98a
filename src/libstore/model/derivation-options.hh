#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "libstore/model/derivation.hh"

// Attributes of a derivation that speak to whoever builds it. They come as environment variables (lists are
// words separated by blanks, true is "1") or, with structured attributes, typed inside `__json`.

namespace firn {

/// What an output may refer to and how large it may be. Entries of the lists are store paths, placeholders or
/// names of outputs of the derivation. Requisites are the closure.
struct OutputChecks {
    /// Requisites do not count the output itself (always so without structured attributes).
    bool ignoreSelfReferences = false;
    std::optional<uint64_t> maxSize, maxClosureSize; ///< bytes of NAR; structured attributes only
    std::optional<StringSet> allowedReferences, disallowedReferences;
    std::optional<StringSet> allowedRequisites, disallowedRequisites;
    bool operator==(const OutputChecks &) const = default;
};

struct DerivationOptions {
    bool structured = false;
    OutputChecks checksForAll;                           ///< without structured attributes
    std::map<std::string, OutputChecks> checksPerOutput; ///< with them: `outputChecks`, by output name
    std::map<std::string, bool> unsafeDiscardReferences; ///< structured attributes only, by output name
    StringSet passAsFile;                                ///< environment only: names of variables
    /// File name (structured: attribute) → store paths or placeholders whose closure is to be described
    /// there. Without structured attributes one path each.
    std::map<std::string, std::vector<std::string>> exportReferencesGraph;
    std::string sandboxProfile; ///< `__sandboxProfile`, macOS
    bool noChroot = false;      ///< `__noChroot`: for sandbox = relaxed
    StringSet impureHostDeps;   ///< `__impureHostDeps`
    StringSet impureEnvVars;
    bool allowLocalNetworking = false; ///< `__darwinAllowLocalNetworking`
    StringSet requiredSystemFeatures;  ///< as written; "ca-derivations" is not added
    bool preferLocalBuild = false;
    bool allowSubstitutes = true;

    /// Those that hold for one output.
    const OutputChecks &checksFor(const std::string &outputName) const;
};

/// Throws badInput for attributes of wrong types (structured), an odd number of words or a bad file name in
/// exportReferencesGraph, and `__json` that is not a JSON object.
DerivationOptions readDerivationOptions(const BasicDerivation &drv);

} // namespace firn
