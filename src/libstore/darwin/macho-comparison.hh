#pragma once

#include <cstdint>

#include "libstore/darwin/macho-page-hashes.hh"

// What sets two builds of a program apart. A linker makes LC_UUID from what it writes, so that one other
// byte, a store path of the same length for instance, gives another UUID, and another digest of the page
// that holds it. As everywhere here: bytes in, plain values out, every byte untrusted.

namespace firn {

/// The least that contains every differing byte.
enum class MachoDifference : uint8_t {
    none,
    uuid,             ///< LC_UUID, and the slots over it, each of which is right in its own file
    signature,        ///< the code signature
    uuidAndSignature, ///< both, or LC_UUID with a slot over it that is wrong
    other,            ///< more, or not even the same images in the same places
};

struct MachoComparison {
    bool isMacho = false; ///< both are; else the rest says nothing
    MachoDifference difference = MachoDifference::none;
    bool firstStale = false;  ///< a slot of the first file is wrong
    bool secondStale = false; ///< of the second
};

/// Reads each byte a few times; memory and bounds as for verifyPageHashes().
MachoComparison compareMacho(const MachoBytes &first, const MachoBytes &second);

} // namespace firn
