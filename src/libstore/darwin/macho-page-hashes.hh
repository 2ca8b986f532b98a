#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

// The code signature of a Mach-O program holds a digest of each of its pages (a code slot) and of some blobs
// (a special slot). macOS checks a page when it is first touched, and kills the program if the digest is
// wrong: a byte changed inside a page, by whomever, makes the program die. Page digests depend on nothing but
// the page, so that they can be computed anew without the signer; only a CMS signature, which covers the
// digests themselves, can be renewed by nobody but its owner.
//
// This header and what it needs (macho-file, code-signature) lean on the standard library and OpenSSL's
// libcrypto only, so that other programs can take the files over. Facts: Apple's loader.h, fat.h and
// cs_blobs.h (xnu, osfmk/kern); there is no official specification of code signatures.
//
// Nothing here changes a file: bytes come in through MachoBytes, and patches and findings go out as plain
// values. Every byte is untrusted: no shape of a file makes these functions crash, read outside of it, or run
// longer than a bounded number of passes over its bytes. Memory: a few megabytes, and what they return, which
// grows with the number of slots (pages) that are changed or stale. The bounds on what a file may claim are
// in macho-file.hh and code-signature.hh: 42 slices, 16384 load commands in 1 MiB, 64 blobs, 6
// CodeDirectories, 256 special slots, identifiers of 4096 bytes; real files stay far below.

namespace firn {

/// Random access to a file's bytes. The functions below ask only for ranges that lie within size(). An
/// implementation may throw what it likes where reading fails; that passes through.
class MachoBytes {
  public:
    virtual ~MachoBytes() = default;
    virtual uint64_t size() const = 0;
    virtual void read(uint64_t offset, char *buffer, size_t size) const = 0;
};

/// Bytes of a file, from its beginning.
struct ByteRange {
    uint64_t offset = 0;
    uint64_t size = 0;

    uint64_t end() const { return offset + size; }
    bool operator==(const ByteRange &) const = default;
};

struct BytePatch {
    uint64_t offset = 0; ///< in the file
    std::string bytes;   ///< take the place of as many

    bool operator==(const BytePatch &) const = default;
};

/// Whether a file can be Mach-O, by its first four bytes (fewer: no). A Java class file can, too.
bool canBeMacho(std::string_view firstBytes);

/// Whether it can be a universal one, likewise.
bool canBeUniversal(std::string_view firstBytes);

/// What was found at one place of a file.
struct MachoFinding {
    enum class Kind : uint8_t {
        repaired,      ///< slots were right before the change and are recomputed
        repairedStale, ///< slots over changed bytes were wrong already before the change; they are recomputed
                       ///< too
        unrepairable,  ///< was right before the change, and nobody but the signer could make it right again;
                       ///< not patched
        staleBefore, ///< could not be made right either, but was wrong before the change already; not patched
        malformed,   ///< macOS would not load this part of the file, or no tool writes the like; not patched
    };
    Kind kind = Kind::malformed;
    uint64_t slice = 0;       ///< offset of the slice in the file; 0 in a thin file
    std::string architecture; ///< "arm64", "x86_64", …, "cpu 0x…"; empty where no slice is meant
    uint32_t directory = 0;   ///< slot type of the CodeDirectory: 0 or 0x1000 to 0x1004
    uint32_t count = 0;       ///< how many slots it is about; 0 where it is not about slots
    /// One of the slots, the first: code slots from 0, special slots from −1 down.
    int64_t firstSlot = 0;
    std::string reason; ///< for people, without the file's name; plain ASCII, bounded length
};

struct PageHashFixup {
    std::vector<BytePatch> patches; ///< ascending, not overlapping, each within one slot of one CodeDirectory
    std::vector<MachoFinding> findings;
};

/// The patches that make the signatures of a changed file right again, exactly in the slots (of every
/// CodeDirectory, of every slice) over bytes that differ between `before` and `after`, within `touched`.
/// `touched` is ascending and not overlapping, and may be the whole file where nothing better is known.
/// `before` and `after` are equally large and equal outside of `touched`; `after` is without the patches that
/// are returned.
///
/// A slot whose own bytes were changed gets back what it had, unless that was wrong. A change that leaves a
/// well-formed signature malformed, or somewhere else, is unrepairable.
///
/// The time taken depends on the number of touched pages and on the size of the signature, not of the file.
/// A file that is not Mach-O: no patches and no findings. Throws std::invalid_argument if the sizes differ,
/// and std::runtime_error if OpenSSL lacks a digest.
PageHashFixup fixupPageHashes(const MachoBytes &before, const MachoBytes &after,
                              const std::vector<ByteRange> &touched);

/// One CodeDirectory, and whether its slots are right.
struct CodeDirectoryReport {
    uint32_t slotType = 0; ///< 0: the primary one; 0x1000 to 0x1004: alternates
    ByteRange range;       ///< the blob, in the file
    uint32_t version = 0;
    uint32_t flags = 0;
    std::string identifier; ///< empty where it has none
    uint8_t hashType = 0;  ///< 1 SHA-1, 2 SHA-256, 3 SHA-256 cut to 20 bytes, 4 SHA-384; others are not known
    uint64_t pageSize = 0; ///< bytes; 0: one page for everything
    uint64_t codeLimit = 0;
    uint32_t codeSlots = 0; ///< without those beyond the last page, which are about nothing
    uint32_t specialSlots = 0;
    std::vector<uint32_t> staleCodeSlots;    ///< ascending
    std::vector<uint32_t> staleSpecialSlots; ///< 1 for slot −1, …
    /// Special slots in use whose subject is not in the file (a bundle's Info.plist, its resources): not
    /// judged.
    std::vector<uint32_t> externalSpecialSlots;
    std::string problem; ///< why its slots could not be judged; empty if they were
};

enum class SignatureKind : uint8_t {
    none,         ///< unsigned
    linkerSigned, ///< ad hoc, by a linker
    adHoc,        ///< no CMS signature
    cms,          ///< with a CMS signature (never judged here, whether that is right)
};

struct SliceReport {
    ByteRange range; ///< in the file
    std::string architecture;
    SignatureKind kind = SignatureKind::none;
    std::vector<CodeDirectoryReport> directories;
    std::string problem; ///< malformed; empty if not
};

struct MachoReport {
    bool isMacho = false;
    std::vector<SliceReport> slices;
    std::string problem; ///< of the container; empty if there is none

    bool anyStale() const;   ///< a slot is wrong
    bool anyProblem() const; ///< something could not be judged
};

/// Looks at every slot of every CodeDirectory, or, with `within`, at those only over bytes in these ranges
/// (ascending, not overlapping). Reads each byte once per CodeDirectory. An embedded Info.plist that slot −1
/// does not fit is taken for another than the one that is meant: that slot is then external, not stale.
MachoReport verifyPageHashes(const MachoBytes &file,
                             const std::optional<std::vector<ByteRange>> &within = std::nullopt);

/// The patches that make every stale slot right, in every slice without CMS signature. What could not be
/// repaired is among the findings: staleBefore under a CMS signature, unrepairable where it cannot be judged.
PageHashFixup repairAllPageHashes(const MachoBytes &file);

} // namespace firn
