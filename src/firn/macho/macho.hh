#pragma once

#include <string>
#include <utility>
#include <vector>

// `firn macho`: the code signatures of Mach-O programs, looked at and kept right outside of a build. What the
// commands do, print and return is described in doc/macho.md.
//
// They work on files of the user who calls them, with that user's rights, and so parse in this process; the
// daemon, which works on files that others made, has its own jail for that.

namespace firn {

/// How `firn macho` was called.
struct MachoOptions {
    enum class Action { verify, rewrite, repair };
    Action action = Action::verify;
    bool json = false;
    bool dryRun = false; ///< for repair: only say what would be done
    /// For rewrite: hash parts, old and new, each 32 digits of base-32; no old one twice.
    std::vector<std::pair<std::string, std::string>> replacements;
    std::vector<std::string> paths;
};

/// "OLD=NEW" of the command line. Throws badInput unless both are hash parts, and different.
std::pair<std::string, std::string> parseReplacement(const std::string &text);

/// Exit statuses of all `firn macho` commands; where both apply, the larger.
constexpr int machoAllRight = 0;
constexpr int machoStale = 1;     ///< verify, repair --dry-run: something is stale
constexpr int machoTrouble = 2;   ///< something could not be read, judged, repaired or written
constexpr int machoStopped = 130; ///< by a signal; files are as they were or completely changed

/// Does what was asked for and prints to standard output (results) and standard error (errors, warnings,
/// progress). Returns the exit status; does not throw.
int runMacho(const MachoOptions &options);

// One for each command. They may throw Error.
int machoVerify(const MachoOptions &options);
int machoRewrite(const MachoOptions &options);
int machoRepair(const MachoOptions &options);

} // namespace firn
