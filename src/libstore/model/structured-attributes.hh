#pragma once

#include <map>
#include <string>
#include <string_view>

#include "libstore/model/derivation.hh"

// A derivation with __structuredAttrs gives its builder no environment variables but two files: all
// attributes as JSON, and those that Bash can hold as declarations to be sourced.

namespace firn {

/// Whether the derivation carries its attributes as JSON (in the environment variable `__json`).
bool hasStructuredAttributes(const BasicDerivation &drv);

struct StructuredAttributeFiles {
    std::string json;  ///< .attrs.json: compact, keys sorted
    std::string shell; ///< .attrs.sh
};

/// Makes both files. `json` is the value of `__json`; `outputs` gives the path (or placeholder) per output
/// name; `closures` the JSON text that each key of the attribute exportReferencesGraph stands for. The latter
/// two replace attributes of the same names. Rewriting of hashes and placeholders in the result is the
/// caller's. Throws badInput unless `json` is an object and `closures` are JSON.
///
/// Declarations: strings quoted with '…', whole numbers as they are, true as 1, false and null as empty;
/// lists (declare -a) and objects (declare -A) of these. Other attributes (fractions, nested lists and
/// objects) and those whose name is not [A-Za-z_][A-Za-z0-9_]* are in the JSON only.
StructuredAttributeFiles makeStructuredAttributeFiles(std::string_view json, const StringMap &outputs,
                                                      const StringMap &closures);

/// `text` as one word of a POSIX shell.
std::string quoteForShell(std::string_view text);

} // namespace firn
