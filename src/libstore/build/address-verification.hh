#pragma once

#include <set>
#include <string>

#include "libstore/build/macho-jail.hh"
#include "libstore/model/path-info.hh"
#include "libstore/model/store-path.hh"
#include "libstore/store/local-store.hh"

// Whether a store path follows from what lies under it: the reverse of output-decision.hh, for paths that
// come from elsewhere.

namespace firn {

/// By which rule it does.
enum class AddressRule {
    none,
    nix,        ///< of either generation, for archives under SHA-256
    normalForm, ///< doc/content-addressed-macho.md; every file with a normal form is in its final form
};

/// A tree that is canonical (as everything in a store is) and that nobody changes.
struct AddressedTree {
    const StoreDir &storeDir;
    int dir;           ///< holds the tree's root
    std::string entry; ///< its name there, which need not be the path's
    const StorePath &path;
    const StorePathSet &references;    ///< are believed, as in every content address
    std::set<std::string> ignoredAcls; ///< extended attributes that may be there
};

/// Reads the tree twice; three times where no rule holds that comes first. Throws where something cannot be
/// read, or where the jail does not answer.
AddressRule verifyAddress(const AddressedTree &tree, MachoJail &jail);

/// Has the store take paths that follow from their contents by AddressRule::normalForm without a signature.
void acceptNormalFormAddresses(LocalStore &store);

} // namespace firn
