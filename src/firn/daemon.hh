#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "libutil/logging.hh"

namespace firn {

/// How `firn daemon` was called.
struct DaemonOptions {
    bool stdio = false;      ///< serve standard input and output
    bool connection = false; ///< serve standard input, a connected socket that a listener of ours accepted
    bool sweep = false;      ///< only remove what killed daemons left behind
    bool processOps = false; ///< with stdio: never pass the connection on to another daemon
    std::optional<bool> forceTrust;
    std::optional<std::string> socketPath;
    std::string storeUri = "auto";
    std::vector<std::pair<std::string, std::string>> settings; ///< laid over nix.conf, in order
    Verbosity verbosity = Verbosity::info;                     ///< of this process's own messages
};

/// Runs until told to stop, or until the one connection ends. Throws Error.
void runDaemon(const DaemonOptions &options);

} // namespace firn
