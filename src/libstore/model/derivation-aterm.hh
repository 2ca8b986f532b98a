#pragma once

#include <map>
#include <string>

#include "libstore/model/derivation.hh"

// Inside the model only: the variants of a derivation's text that its hashes are made of.

namespace firn {

struct AtermOptions {
    /// Output paths, and environment variables named like outputs, become empty.
    bool maskOutputs = false;
    /// Written in place of the input derivations: base-16 hash and wanted outputs. Not owned. The constructor
    /// stays that of the derivation itself.
    const std::map<std::string, StringSet> *inputs = nullptr;
};

std::string writeAterm(const StoreDir &store, const Derivation &drv, const AtermOptions &options);

} // namespace firn
