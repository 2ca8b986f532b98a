#pragma once

#include <vector>

#include "libstore/build/patch.hh"
#include "libstore/darwin/macho-page-hashes.hh"

// What the Mach-O core answers (BytePatch), in the words of rewriting (Patch), and on disk.

namespace firn {

std::vector<Patch> asPatches(std::vector<BytePatch> bytes);

/// Whether an open file has all of these bytes in their places.
bool holds(int file, const std::vector<BytePatch> &patches);

} // namespace firn
