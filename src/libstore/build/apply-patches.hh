#pragma once

#include <vector>

#include "libstore/build/output-copy.hh"
#include "libstore/build/output-tree.hh"
#include "libutil/nar.hh"

namespace firn {

/// Writes the patches of all `changes` (in the order of the scan): contents to new inodes (cloned where the
/// file system can), targets to new symlinks, names by renaming. Other files stay as they are. `tree`
/// follows: names, targets, and the order of children. Returns hash (SHA-256) and size of the archive that
/// the output has then: every file is read once, and hashed on its way, in a second thread. Throws
/// ErrorKind::refused where two entries of a directory would get the same name, or where a patch of an
/// `everywhere` file overlaps a rewrite. Memory does not depend on the size of files.
HashAndSize applyPatches(int dir, OutputTree &tree, const std::vector<NodePatches> &changes,
                         const Rewrites &rewrites);

} // namespace firn
