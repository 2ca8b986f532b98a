#pragma once

#include <compare>
#include <map>
#include <set>
#include <string>
#include <string_view>

#include "libstore/model/store-path.hh"

namespace firn {

/// "sha256:<base-16>!<output>": an output of a derivation, named by the derivation's hash modulo fixed
/// outputs.
struct DrvOutput {
    Hash drvHash{HashAlgorithm::sha256};
    std::string outputName{};
    std::string print() const;
    static DrvOutput parse(std::string_view text);
    auto operator<=>(const DrvOutput &) const = default;
};

/// Which path an output turned out to be.
struct Realisation {
    DrvOutput id;
    StorePath outPath;
    std::set<std::string> signatures{};
    std::map<DrvOutput, StorePath> dependentRealisations{};
    /// The JSON without its signatures: what they sign.
    std::string fingerprint() const;
    /// JSON object {"dependentRealisations","id","outPath","signatures"} as the protocol carries it.
    std::string toJson() const;
    /// Signatures and dependent realisations may be missing, unknown members are ignored. Throws badInput.
    static Realisation parseJson(std::string_view json);
};

} // namespace firn
