#pragma once

#include "sandbox-init/description.hh"

namespace firn::sandbox {

/// Runs in the daemon's own namespaces with the daemon's rights: opens what only those can open, starts the
/// inner process in new namespaces and maps its users. Then it makes the private network, if there is to be
/// one, for which it enters the sandbox's user namespace, and waits until the pid namespace is empty. SIGTERM
/// ends the sandbox and then this process; so does the daemon's death, by whatever signal.
[[noreturn]] void runOuter(Description description);

} // namespace firn::sandbox
