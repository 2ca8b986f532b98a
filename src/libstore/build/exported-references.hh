#pragma once

#include "libstore/model/derivation-options.hh"
#include "libstore/store/local-store.hh"

// The attribute exportReferencesGraph: a builder that is to copy a closure somewhere gets a description of
// it.

namespace firn {

/// Files by name, in the form of `nix-store --register-validity` without hashes: path, empty deriver, number
/// of references, references, a line each. Throws badInput for paths outside `inputClosure`.
StringMap exportedReferenceFiles(LocalStore &store, const DerivationOptions &options,
                                 const StorePathSet &inputClosure);

/// With structured attributes: JSON texts by attribute, arrays of objects with path, narHash, narSize,
/// references and closureSize.
StringMap exportedReferenceJson(LocalStore &store, const DerivationOptions &options,
                                const StorePathSet &inputClosure);

} // namespace firn
