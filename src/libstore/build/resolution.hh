#pragma once

#include <map>
#include <string>

#include "libstore/model/derivation.hh"

// A derivation whose inputs' paths were not known when it was written names them by placeholders. Once they
// are built it is resolved: the paths take the places of the placeholders and become plain sources. What
// comes of it says nothing of how its inputs were made, so that inputs that came out the same give the same
// resolved derivation, which then needs no build.

namespace firn {

/// Paths of the inputs' outputs: one output of a derivation, which may have been made itself, → path.
using InputPaths = std::map<BuiltPath, StorePath>;

/// `inputs` must have every output that the derivation needs (ErrorKind::notFound if not). Deferred outputs
/// get their paths, and the environment variables that hold them.
Derivation resolveDerivation(const StoreDir &store, DerivationHasher &hasher, const Derivation &drv,
                             const InputPaths &inputs);

} // namespace firn
