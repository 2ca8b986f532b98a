#pragma once

#include <filesystem>
#include <string>

#include "firn/doctor/build-findings.hh"
#include "firn/doctor/store-findings.hh"
#include "libstore/store/settings.hh"

// The facts that findings are made of, as this process finds them. Nothing on the host is changed: what a
// probe needs is removed again.

namespace firn::doctor {

DirectoryFacts lookAtDirectory(const std::filesystem::path &path);

/// Connects to the socket for a moment, as the next daemon would before it replaces it.
SocketFacts lookAtSocket(const std::filesystem::path &path);

/// Runs a program in the build directory. `initProgram` empty: leaves that out.
BuildDirectoryFacts lookAtBuildDirectory(const Locations &locations, const Settings &settings,
                                         const std::string &initProgram);

BuildUsersFacts lookAtBuildUsers(const Settings &settings);

} // namespace firn::doctor
