#pragma once

#include <string>

#include <sys/types.h>

#include "firn/doctor/build-findings.hh"
#include "firn/doctor/finding.hh"
#include "libstore/store/settings.hh"
#include "libutil/file-descriptor.hh"

// What only one system can tell, and only by asking it: linux/host.cc and darwin/host.cc.

namespace firn::doctor {

/// The program that starts builds; "", with an error, where it is missing.
std::string findHelperProgram(Findings &findings);

KernelFacts lookAtKernel();

/// Whether builds as the settings want them can be started here, found out by starting one that does nothing,
/// and what the sandbox would show them.
Findings judgeSandbox(const Settings &settings, const std::string &initProgram);

/// Whether this process could change a mount's flags, if they are not locked.
bool hasMountRights();

/// The name of a process's program; "" where that cannot be known.
std::string programOf(pid_t pid);

/// A directory opened for asking about it, also where it may not be read, if the system can; may be none.
UniqueFd openForLooking(const std::string &path);

} // namespace firn::doctor
