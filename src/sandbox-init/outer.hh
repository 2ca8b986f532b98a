#pragma once

#include "sandbox-init/description.hh"

namespace firn::sandbox {

/// Runs in the daemon's own namespaces with the daemon's rights: opens what only those can open, starts the
/// inner process in new namespaces, maps its users, and waits until its pid namespace is empty. SIGTERM ends
/// the sandbox and then this process; so does the daemon's death, by whatever signal.
[[noreturn]] void runOuter(Description description);

} // namespace firn::sandbox
