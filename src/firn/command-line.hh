#pragma once

#include <optional>
#include <string>
#include <vector>

#include "firn/daemon.hh"
#include "firn/macho/macho.hh"

namespace firn {

/// What the user wants.
struct Command {
    enum class Action { exit, daemon, macho };
    Action action = Action::exit;
    int exitStatus = 0; ///< for `exit`: help and version were printed, or the error was
    DaemonOptions daemon;
    MachoOptions macho;
};

/// Reads the command line, as `firn COMMAND …`, or as `nix-daemon …` when called by that name.
Command parseCommandLine(int argc, char **argv);

} // namespace firn
