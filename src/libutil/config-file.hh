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

/// Reads a file's text; throws Error(notFound) if it is not there, Error(refused) if it may not be read.
using ConfigReader = std::function<std::string(const std::filesystem::path &)>;

/// The reader for files on disk (of at most 1 MiB).
std::string readConfigFile(const std::filesystem::path &path);

/// The assignments in order, those of an included file in place of the line that includes it. `path` names
/// the text in origins, and its directory is where relative includes start. `!include` also tolerates a file
/// that may not be read (an ordinary user meets root's secrets so). Throws badInput with origin for a line
/// that is neither empty, comment, include nor assignment, for includes nested deeper than 32 (so also for
/// loops) and for more than 1024 of them; what `read` throws comes with the including line's origin.
std::vector<ConfigEntry> parseConfig(std::string_view text, const std::filesystem::path &path,
                                     const ConfigReader &read);

/// Splits at blanks and tabs (and line ends).
std::vector<std::string> splitWords(std::string_view text);

} // namespace firn
