#pragma once

#include <vector>

#include "sandbox-init/description.hh"
#include "sandbox-init/sources.hh"

namespace firn::sandbox {

/// First process of the new namespaces, pid 1 of its own pid namespace: sets everything up, becomes
/// unprivileged, forks the builder, reaps whatever is left to it and reports how the builder ended. Its end
/// is the end of every process in the sandbox; the kernel sees to that.
///
/// `gate` is a pipe whose write end only the outer process holds: a byte says that the user ids are mapped,
/// the end of file says that the outer process, and so the daemon, is gone. Over `network`, a socket, comes
/// the private network's namespace, if there is to be one.
[[noreturn]] void runInner(const Description &description, Sources &sources, int gate, int network);

} // namespace firn::sandbox
