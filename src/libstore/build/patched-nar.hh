#pragma once

#include <vector>

#include "libstore/build/output-copy.hh"
#include "libstore/build/output-tree.hh"
#include "libutil/stream.hh"

namespace firn {

/// Writes the archive that an output would have with the patches of all `changes` applied; on disk nothing
/// changes. What the patches are of is as for applyPatches().
void writePatchedNar(int dir, const OutputTree &tree, const std::vector<NodePatches> &changes,
                     const Rewrites &rewrites, Sink &sink);

/// The same for the plain contents of an output that is a single file.
void writePatchedFile(int dir, const OutputTree &tree, const std::vector<NodePatches> &changes,
                      const Rewrites &rewrites, Sink &sink);

/// Whether the entries of every directory come in the same order under both sets of patches.
bool sameEntryOrder(const OutputTree &tree, const std::vector<NodePatches> &one,
                    const std::vector<NodePatches> &other);

} // namespace firn
