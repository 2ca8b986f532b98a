#pragma once

#include "libstore/build/sandbox.hh"
#include "sandbox-init/description.hh"

namespace firn {

/// What sandbox-init shall do for a specification: pure, apart from asking who we are. Its parentPid and
/// descriptorLimit are left to the caller. Throws badInput.
sandbox::Description planSandbox(const SandboxSpec &spec);

} // namespace firn
