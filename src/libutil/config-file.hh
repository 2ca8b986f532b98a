#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

// The syntax of nix.conf: `name = value` lines, `#` comments, `include PATH` (an error if missing) and
// `!include PATH` (ignored if missing), paths relative to the including file's directory. NIX_CONFIG has the
// same syntax.

namespace firn {

struct ConfigEntry {
    std::string name;   ///< as written, including a leading "extra-"
    std::string value;  ///< words joined by single blanks
    std::string origin; ///< "path:line", for messages
};

/// Reads a file's text; throws Error(notFound) if it is not there.
using ConfigReader = std::function<std::string(const std::filesystem::path &)>;

/// Throws badInput with origin for a line that is neither empty, comment, include nor assignment, and for
/// includes nested deeper than 32.
std::vector<ConfigEntry> parseConfig(std::string_view text, const std::filesystem::path &path,
                                     const ConfigReader &read);

/// Splits at blanks.
std::vector<std::string> splitWords(std::string_view text);

} // namespace firn
