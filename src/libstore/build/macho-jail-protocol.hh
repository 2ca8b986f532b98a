#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libstore/build/patch.hh"
#include "libstore/darwin/macho-comparison.hh"
#include "libstore/darwin/macho-page-hashes.hh"

// What the daemon and firn-macho-jail say to each other over a Unix stream socket: a request with one open
// file or two, an answer, the next request. All numbers are little-endian and of fixed size. What the jail
// reads comes from the daemon; what the daemon reads comes from a process that parsed what a build made, and
// may have been taken over by it: its decoder believes nothing.

namespace firn::jail {

/// Before each body, in both directions: magic, kind or outcome (4 bytes each), size of the body (8).
constexpr size_t headerSize = 16;

/// With which the jail ends where it cannot give something up; nothing was read then.
enum class ExitCode : int { descriptors = 10, user, privileges, limits, filter };

enum class Kind : uint32_t {
    fixup = 1,   ///< which patches make the signatures right again?
    verify = 2,  ///< which slots are wrong in the file as it is?
    compare = 3, ///< what sets the file and a second one apart?
    /// Which UUIDs and slots make the normal form, or the final form, of the file with its rewrites? See
    /// doc/content-addressed-macho.md.
    normalForm = 4,
    finalForm = 5,
};

enum class Outcome : uint32_t {
    done = 1,
    failed = 2, ///< the body is a text that says why
};

struct Header {
    uint32_t word = 0; ///< a Kind or an Outcome
    uint64_t bodySize = 0;
};

/// From one store path's hash part to another's; both of 32 bytes.
struct RewriteRule {
    std::string from, to;
    bool operator==(const RewriteRule &) const = default;
};

struct Request {
    Kind kind = Kind::fixup;
    uint64_t fileSize = 0;
    uint64_t secondSize = 0; ///< compare: of the second file
    /// fixup, forms: what the rewrite changes, ascending and not overlapping.
    std::vector<Patch> patches;
    /// fixup, forms: not empty if every occurrence changes (before `patches` do).
    std::vector<RewriteRule> rules;
    /// verify: slots over bytes in these are looked at.
    std::vector<ByteRange> ranges;
    /// Forms, else empty: what a self-reference reads once all that is done; in the final form, too.
    std::string selfPart;
    /// Forms, else empty: offsets of the self-references, ascending and not overlapping; none: they are to be
    /// looked for.
    std::vector<uint64_t> selfReferences;
};

/// A slot that does not hold the digest of its bytes.
struct StaleSlot {
    uint64_t slice = 0; ///< offset of the slice in the file
    ByteRange range;    ///< of the slot itself, in the file
    bool operator==(const StaleSlot &) const = default;
};

/// What makes one form of a file, but for the self-references.
struct Form {
    bool inside = false;            ///< of the specification
    std::string reason;             ///< why it is not; empty if it is
    uint64_t selfReferences = 0;    ///< how many there are
    std::vector<BytePatch> patches; ///< UUIDs and slots
};

struct Answer {
    PageHashFixup fixup;
    std::vector<StaleSlot> stale; ///< ascending by place
    MachoComparison comparison;
    Form form;
};

constexpr size_t minSlotSize = 20, maxSlotSize = 64; ///< bytes of the shortest and of the longest digest
constexpr uint64_t selfReferenceSize = 32;           ///< bytes of a hash part
constexpr size_t maxFindings = 64 * 1024;            ///< a fat file's slices and their directories
constexpr size_t maxArchitecture = 64;               ///< bytes
constexpr size_t maxReason = 512;                    ///< bytes
constexpr uint64_t maxRequestBody = 1 << 26;         ///< bytes
/// What an answer about a file of this size can need, in bytes: a patch for each page, five times over, and
/// findings.
uint64_t maxAnswerBody(uint64_t fileSize);

std::string encodeHeader(const Header &header);
/// nullopt where it is not of this protocol. `bytes` has headerSize bytes.
std::optional<Header> decodeHeader(std::string_view bytes);

std::string encodeRequest(const Request &request);
/// nullopt for what encodeRequest() does not make.
std::optional<Request> decodeRequest(Kind kind, std::string_view body);

/// Texts that are too long are cut. Throws badInput for more than `maxFindings` findings.
std::string encodeAnswer(const Answer &answer);
/// The daemon's view: nullopt unless every patch and slot lies within a file of this size, ascending and not
/// overlapping, of the size of a digest (of a UUID or a digest that the specification knows, in a form),
/// every count and length is within its bound, texts are plain ASCII, and no byte is left. For each answer
/// there is one encoding.
std::optional<Answer> decodeAnswer(std::string_view body, uint64_t fileSize);

} // namespace firn::jail
