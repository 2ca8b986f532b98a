#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "libstore/build/output-tree.hh"

// A macOS bundle (a program, a framework) is a directory whose _CodeSignature/CodeResources holds digests of
// everything in it but its main program, and the code directories of the bundles and programs inside; the
// main program's signature binds that file and Info.plist. Whatever of this a rewrite changes breaks the
// seal, and nobody but the signer can renew it.

namespace firn {

struct BrokenSeal {
    uint32_t bundle;  ///< its directory: "X.app", "X.framework"
    uint32_t changed; ///< what no longer is what the seal says
    bool operator==(const BrokenSeal &) const = default;
};

/// Which bundles of an output are broken when these objects (files, symlinks, renamed directories) change:
/// each once, with the first object, in the order of the objects. By names alone. A bundle's main program is
/// taken to be the file that bears its name, or the only one in Contents/MacOS; when it changes, its own seal
/// holds (if its page hashes are right) and that of the bundle around it breaks.
std::vector<BrokenSeal> brokenSeals(const OutputTree &tree, const std::vector<uint32_t> &changed);

/// Files with the debug symbols (in a .dSYM) of programs with these names. A debugger finds them by the
/// LC_UUID, which both have: when one gets another, they no longer belong together.
std::vector<uint32_t> debugSymbolsOf(const OutputTree &tree, const std::set<std::string> &programs);

} // namespace firn
