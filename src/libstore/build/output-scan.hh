#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "libstore/build/output-tree.hh"
#include "libstore/build/patch.hh"
#include "libstore/build/reference-scanner.hh"
#include "libutil/hash.hh"
#include "libutil/nar.hh"

namespace firn {

struct NodePatches;
struct Rewrites;

/// Occurrences that may have to be rewritten, in one object; ascending and not overlapping: of two that do,
/// the first counts.
struct TouchedNode {
    uint32_t node;
    std::vector<PartHit> contents, target, name;
    /// There are more in the contents than are kept: `contents` is empty, they must be found again.
    bool everywhere = false;
    /// The contents are on disk as they will be, a new inode, canonical, with `repairs` too.
    bool isRewritten = false;
    std::vector<Patch> repairs{}; ///< of the contents, as ScanOptions::repairFile() answered
};

struct ScanOptions {
    const HashPartSet *parts = nullptr;
    /// By number of the part: whether its occurrences may be rewritten.
    std::vector<bool> rewritable;
    /// Occurrences in contents to keep for one output. (Those in names and targets are few, compared with the
    /// names and targets themselves.)
    size_t maxHits = 64 * 1024;
    /// Also hash the archive, or the contents of a single file, with this algorithm.
    std::optional<HashAlgorithm> archiveHash, contentsHash;
    /// Put every regular file on a new inode, which is what gets hashed. Files that have names outside the
    /// outputs always are.
    bool renewFiles = false;
    /// Told what a regular file of `size` bytes begins with when the first occurrence that may be rewritten
    /// is found in it. Returns in how many of its last bytes repairFile() will want more patches; 0: none,
    /// anywhere.
    std::function<uint64_t(const FileHead &head, uint64_t size)> onTouchedFile;
    /// What occurrences become, where that is known. Then files are rewritten while they are read, until
    /// there is something after which not all of the archive can be known: an occurrence in a name or in a
    /// target, or a patch where nobody wanted one. What comes before the first occurrence in a file is read a
    /// second time for its copy: where somebody may still write to files, they are to be renewed. Must
    /// outlive the scan.
    const Rewrites *rewrites = nullptr;
    /// (No hashes are asked for together with it: they would be of different bytes.)
    /// With `rewrites`, for each file in which onTouchedFile() has foreseen patches: which ones? `change` has
    /// all that is rewritten, `file` is open for reading and has the bytes from before.
    std::function<std::vector<Patch>(const NodePatches &change, int file)> repairFile;
};

struct ScanResult {
    std::vector<bool> found;          ///< by number of the part
    std::vector<TouchedNode> touched; ///< in the archive's order
    /// SHA-256 of the archive and its size. Only where all that was touched is rewritten: otherwise it will
    /// change anyway.
    std::optional<HashAndSize> nar;
    std::optional<Hash> archiveHash, contentsHash; ///< as asked for
    /// By node: what a regular file begins with, for those who know formats. Zeros where it is shorter, and
    /// for everything else.
    std::vector<FileHead> heads;
};

/// Reads every file of the output once. `dir` holds the tree's root. Memory does not depend on the size of
/// files.
ScanResult scanOutput(int dir, const OutputTree &tree, const ScanOptions &options);

/// Whether a part that is found here may be rewritten, given where the last one that may be ends: keeps
/// `end`. Scanning and rewriting must decide alike.
bool takeHit(const PartHit &hit, const std::vector<bool> &rewritable, uint64_t &end);

} // namespace firn
