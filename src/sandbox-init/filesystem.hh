#pragma once

#include <vector>

#include "sandbox-init/description.hh"
#include "sandbox-init/sources.hh"

namespace firn::sandbox {

/// Carries out the description's operations, in a mount namespace of our own: on a fresh tmpfs that then
/// becomes the root, or (unsandboxed) on the tree as it is. `early` are the sources opened before, one per
/// operation. Fails the set-up at the first operation that does not work.
void setUpFileSystem(const Description &description, std::vector<OpenSource> &early);

} // namespace firn::sandbox
