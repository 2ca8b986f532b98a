#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "libstore/darwin/macho-file.hh"
#include "libstore/darwin/macho-page-hashes.hh"

// The code signature of a Mach-O image: a SuperBlob, an index of slot type and offset followed by the blobs,
// everything big-endian. A CodeDirectory (slot type 0, and alternates from 0x1000 up with another kind of
// hash) holds an array of digests that grows in both directions from hashOffset: upwards the pages of the
// image, downwards the blobs of slot type 1, 2, …. Later versions of it only append fields to its header.
// Facts: Apple's cs_blobs.h. How strict to be: what xnu refuses when it loads a program is malformed here,
// and also what no signer writes and would make two digests depend on each other (overlapping blobs), lay
// slots over other fields, or exceed the bounds below. What xnu takes though it is unusual is judged: a
// CodeDirectory in place of the SuperBlob, alternates without a primary one, no identifier, and more code
// slots than pages, of which the surplus is about nothing.

namespace firn {

/// Bounds on what a signature may claim; real ones have some ten blobs, eleven special slots, and identifiers
/// shorter than a path.
constexpr uint32_t maxSignatureBlobs = 64;
constexpr uint32_t maxSpecialSlots = 256;
constexpr uint32_t maxIdentifierLength = 4096;

/// Pages from 512 bytes to 16 MiB (and a single one for everything) are taken; real ones have 4 or 16 KiB.
constexpr uint32_t minPageExponent = 9;
constexpr uint32_t maxPageExponent = 24;

struct SignatureBlob {
    uint32_t slotType = 0;
    uint32_t magic = 0;
    ByteRange range; ///< in the file, with its header of 8 bytes

    bool operator==(const SignatureBlob &) const = default;
};

/// Can be in use only where `state` is judgeable: then all slots lie in its blob, over no other field of it,
/// and the pages end before the signature.
struct CodeDirectory {
    enum class State : uint8_t {
        judgeable,
        unknown,   ///< well-formed as far as known, but its digests cannot be computed here
        malformed, ///< macOS would not load it, or no signer writes it
    };
    State state = State::malformed;
    std::string problem; ///< why it is not judgeable
    uint32_t slotType = 0;
    ByteRange range; ///< the blob, in the file
    uint32_t version = 0;
    uint32_t flags = 0;
    std::string identifier; ///< empty where it has none
    uint8_t hashType = 0;
    uint8_t hashSize = 0;
    uint64_t pageSize = 0;   ///< 0: one page for everything
    uint64_t codeLimit = 0;  ///< what is hashed of the slice, from its beginning
    uint64_t hashOffset = 0; ///< of code slot 0, in the file
    uint32_t codeSlots = 0;  ///< one for each page, without a surplus; as it claims where it is scattered
    uint32_t specialSlots = 0;

    /// The same slots in the same places over the same pages, whatever they hold.
    bool sameLayout(const CodeDirectory &other) const;
};

struct CodeSignature {
    ByteRange index; ///< header and index of the SuperBlob, in the file; empty where there is none
    std::vector<SignatureBlob> blobs;
    std::vector<CodeDirectory> directories; ///< by slot type: the primary one, if there is one, first
    SignatureKind kind = SignatureKind::none;
    std::string problem; ///< why it is malformed; empty if it is not

    /// The blob of a slot type, or null.
    const SignatureBlob *blob(uint32_t slotType) const;
};

constexpr uint32_t slotTypeCms = 0x10000;

/// Bytes that a digest of this type takes in a slot; 0 for a type that is not known.
uint32_t digestSize(uint8_t hashType);

/// Bytes of a CodeDirectory's header, by its version; 0 for versions before those that are known.
uint32_t codeDirectoryHeaderSize(uint32_t version);

/// Reads a slice's signature, without the slots themselves. Of an unsigned slice, or one that has a problem
/// itself: kind none and nothing else.
CodeSignature readCodeSignature(const MachoBytes &file, const MachoSlice &slice);

} // namespace firn
