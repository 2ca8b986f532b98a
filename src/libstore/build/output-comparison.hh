#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "libstore/build/output-tree.hh"
#include "libstore/darwin/macho-comparison.hh"

// Where two trees differ: what is registered, and what a check has built. Archives know names, types,
// executability, targets and contents, and so does this; modes and times are the same in every store.

namespace firn {

using ObjectType = OutputNode::Type;

struct TreeDifference {
    enum class Kind : uint8_t {
        contents,   ///< of a regular file
        executable, ///< the same contents or not: then there is another difference with the same path
        target,     ///< of a symlink
        type,
        missing, ///< is registered, and was not built; below it nothing is listed
        extra,   ///< was built, and is not registered; likewise
    };
    Kind kind = Kind::contents;
    std::string path{}; ///< below the root, '/' between components; "" for the root; not escaped

    /// What it is in the registered tree; of `extra`, in the other.
    ObjectType type = ObjectType::regular;
    ObjectType newType = ObjectType::regular;

    /// contents: bytes of the two files, where they first differ (where one ends, if it is the beginning of
    /// the other), and how many bytes differ, what only one has counted in.
    uint64_t oldSize = 0, newSize = 0, firstOffset = 0, differingBytes = 0;
    /// contents: of files that can be Mach-O, what the jail said.
    MachoComparison macho{};
    /// contents: what was built now came with a stale signature, which a rewrite has made right.
    bool madeRight = false;
    /// contents: nothing but what a rewrite explains (see CompareOptions::explains).
    bool explained = false;

    bool executable = false; ///< executable: whether the registered file is; the other is the opposite
    std::string oldTarget{}, newTarget{}; ///< target
};

struct TreeComparison {
    /// In the order of archives; the first CompareOptions::mostListed.
    std::vector<TreeDifference> differences;
    /// Of all, also of those not listed; `explained` ones are in `explained` only.
    uint64_t contents = 0, executable = 0, target = 0, type = 0, missing = 0, extra = 0, explained = 0;
    bool truncated = false; ///< there are more than are listed
    /// Files that are the same, and of which CompareOptions::isStale says so; in the same order, likewise
    /// cut.
    std::vector<std::string> stale;

    uint64_t total() const { return contents + executable + target + type + missing + extra; }
};

/// Looks at two versions of a file that differ and can both be Mach-O.
using MachoComparer =
    std::function<MachoComparison(int oldFile, uint64_t oldSize, int newFile, uint64_t newSize)>;

struct CompareOptions {
    size_t mostListed = 1000;
    MachoComparer compareMacho{}; ///< may be empty
    /// Whether a difference in contents counts as none. May be empty.
    std::function<bool(const TreeDifference &)> explains{};
    /// Whether a file that is the same in both trees, and can be Mach-O, has a stale code signature. May be
    /// empty.
    std::function<bool(int file, uint64_t size)> isStale{};
};

/// One tree: an entry of a directory.
struct TreePlace {
    int dir;
    std::string name;
};

/// Reads both trees once, the contents of files of the same inode not at all (but for `isStale`). Iterative,
/// no symlink followed; memory for one directory's
/// names per level, and what is listed. A root that is not there counts as missing or extra. Stops where
/// throwIfInterrupted() does.
TreeComparison compareTrees(const TreePlace &oldTree, const TreePlace &newTree,
                            const CompareOptions &options);

} // namespace firn
