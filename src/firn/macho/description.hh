#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "libstore/darwin/macho-page-hashes.hh"

// Words and JSON for what was found in Mach-O files. Nothing here reads a file. The JSON is described in
// doc/macho.md, and may only grow.

namespace firn {

/// What is said about a whole file.
enum class Verdict { right, stale, notJudged, unsigned_, notMacho };

/// A file that is stale and not wholly judged is stale.
Verdict verdictOf(const MachoReport &report);
/// "right", "stale", "not-judged", "unsigned", "not-macho".
std::string_view verdictName(Verdict verdict);

/// The names of a CodeDirectory's flags as macOS's codesign prints them, in the order of their bits; a
/// last "0x…" for bits without a name.
std::vector<std::string> signatureFlagNames(uint32_t flags);
/// "sha1", "sha256", "sha256-truncated", "sha384", or "unknown-N".
std::string hashTypeName(uint8_t hashType);
/// "none", "linker-signed", "ad-hoc", "cms".
std::string_view signatureKindName(SignatureKind kind);
/// "Info.plist" for 1, …; empty where there is no name.
std::string_view specialSlotName(uint32_t slot);
/// "repaired", "repaired-stale", "unrepairable", "stale-before", "malformed".
std::string_view findingKindName(MachoFinding::Kind kind);

/// "0, 3-5, 9" of ascending numbers; after `maxRanges` ranges it goes on "… and N more".
std::string describeNumbers(const std::vector<uint32_t> &numbers, size_t maxRanges = 16);

/// Several lines, each indented, for people; text from the file is escaped.
std::string describeReport(const MachoReport &report);
/// One line without a full stop.
std::string describeFinding(const MachoFinding &finding);

nlohmann::json reportToJson(const MachoReport &report);
nlohmann::json findingToJson(const MachoFinding &finding);

/// Sets "path", and "pathBytes" (base-64) where the path is not UTF-8.
void setJsonPath(nlohmann::json &object, const std::string &path);
/// One line, all ASCII, with what is not UTF-8 replaced.
std::string jsonLine(const nlohmann::json &value);

} // namespace firn
