#pragma once

#include <string>
#include <vector>

#include "libstore/build/output-copy.hh"
#include "libstore/build/output-scan.hh"
#include "libstore/build/output-tree.hh"
#include "libstore/model/content-address.hh"

// Where a floating output comes to lie follows from what it holds, and what it holds has its path in it. So
// the path is computed from the output with references to itself blanked, which is the same whether it still
// names its scratch path or its final one already.

namespace firn {

/// An output whose address is to be computed; the outputs that it refers to have theirs.
struct FloatingContent {
    int dir; ///< holds the tree's root
    const OutputTree &tree;
    const ScanResult &scan;
    /// The paths of other outputs, and what follows from them; what stands for its own path stays as it is.
    const std::vector<NodePatches> &changes;
    const Rewrites &rewrites;
    std::string selfPart; ///< hash part of its scratch path
};

/// Reads the output once more where something in it will be rewritten, else takes what the scan has hashed.
/// The one place for the rules of what counts as what in a content address.
Hash hashFloatingContent(const FloatingContent &content, const ContentAddressMethod &method);

/// By the rule of Nix 2.8 (see HashModulo), reading it twice more.
Hash hashFloatingContentByOlderRule(const FloatingContent &content, const ContentAddressMethod &method);

/// By the rule for `changes` that make the normal forms of Mach-O files, reading it twice more.
Hash hashNormalForm(const FloatingContent &content, const ContentAddressMethod &method);

/// Behind the offsets in an address that was made from normal forms of Mach-O files: see
/// doc/content-addressed-macho.md.
inline constexpr std::string_view normalFormMark = "|firn:content-addressed-macho:1";

/// What has to be hashed while scanning, for an output with an address of this kind.
void askForContentHash(ScanOptions &options, const ContentAddressMethod &method);

} // namespace firn
