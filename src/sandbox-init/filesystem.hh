#pragma once

#include <optional>
#include <vector>

#include "sandbox-init/description.hh"
#include "sandbox-init/sources.hh"
#include "sandbox-init/tree.hh"

namespace firn::sandbox {

struct FileSystemResult {
    /// What the working directory must turn out to be; none where nobody else could have made it.
    std::optional<FileIdentity> workingDirectory;
    int watched = -1; ///< of the operation with opWatchSpace
};

/// Carries out the description's operations, in a mount namespace of our own: on a fresh tmpfs that then
/// becomes the root, or (unsandboxed) on the tree as it is. `sources` is what was opened
/// before. Fails the set-up at the first operation that does not work.
FileSystemResult setUpFileSystem(const Description &description, Sources &sources);

} // namespace firn::sandbox
