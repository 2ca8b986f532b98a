#pragma once

#include <cstdint>
#include <vector>

#include "libstore/darwin/macho-page-hashes.hh"

// A large file is verified in pieces, by several threads. Nothing here reads a file.

namespace firn {

/// Ranges that together are the whole file, for verifyPageHashes() with `within`; only one where it is not
/// worth while: a small file, or pages so large that pieces would hash them several times. `structure` is a
/// report about no range at all.
std::vector<ByteRange> planPieces(const MachoReport &structure, uint64_t size, unsigned threads);

/// Adds what was found in another piece of the same file. Throws Error(failure) where the two are of
/// different files, which means that the file was changed between them.
void mergeReports(MachoReport &report, const MachoReport &piece);

} // namespace firn
