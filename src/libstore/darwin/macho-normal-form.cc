#include "libstore/darwin/macho-normal-form.hh"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

#include <openssl/sha.h>

#include "libstore/darwin/macho-bytes.hh"
#include "libstore/darwin/macho-slots.hh"

namespace firn {

namespace {

// Bounds that the specification names. Where a reader comes to take more, they must be checked here.
static_assert(maxMachoSlices == 42 && maxLoadCommands == 16384 && maxLoadCommandBytes == 1 << 20);
static_assert(maxSignatureBlobs == 64 && maxSpecialSlots == 256 && maxIdentifierLength == 4096);
static_assert(minPageExponent == 9 && maxPageExponent == 24);

constexpr uint32_t magicFat = 0xcafebabe;
constexpr uint32_t magicFat64 = 0xcafebabf;
constexpr uint32_t commandSegment = 0x1;
constexpr uint32_t commandSegment64 = 0x19;
constexpr uint32_t commandUuid = 0x1b;
constexpr uint32_t commandCodeSignature = 0x1d;
constexpr uint64_t uuidCommandSize = 24;
constexpr uint64_t commandHeaderSize = 8;
constexpr uint64_t blobHeaderSize = 8;
constexpr uint32_t versionPreEncrypt = 0x20500;
constexpr uint32_t versionLinkage = 0x20600;
constexpr int64_t resourcesSlot = -3;

/// Goes in front of the digest of a slice; with its final zero byte.
constexpr char uuidDomain[] = "firn:content-addressed-macho:1:uuid";

// ---- views of a file

/// The same text at each of these places, which ascend, do not overlap and lie in the file.
class FilledBytes : public MachoBytes {
  public:
    FilledBytes(const MachoBytes &file, const std::vector<uint64_t> &places, std::string_view text)
        : file_(file), places_(places), text_(text) {}

    uint64_t size() const override { return file_.size(); }

    void read(uint64_t offset, char *buffer, size_t size) const override {
        file_.read(offset, buffer, size);
        ByteRange wanted{offset, size};
        uint64_t before = offset < text_.size() ? 0 : offset - text_.size() + 1;
        for (auto place = std::lower_bound(places_.begin(), places_.end(), before);
             place != places_.end() && *place < wanted.end(); ++place) {
            ByteRange common = intersection(wanted, {*place, text_.size()});
            memcpy(buffer + (common.offset - offset), text_.data() + (common.offset - *place), common.size);
        }
    }

  private:
    const MachoBytes &file_;
    const std::vector<uint64_t> &places_;
    std::string_view text_;
};

/// With patches applied, which ascend, do not overlap and lie in the file.
class PatchedBytes : public MachoBytes {
  public:
    PatchedBytes(const MachoBytes &file, const std::vector<BytePatch> &patches)
        : file_(file), patches_(patches) {}

    uint64_t size() const override { return file_.size(); }

    void read(uint64_t offset, char *buffer, size_t size) const override {
        file_.read(offset, buffer, size);
        ByteRange wanted{offset, size};
        auto first = std::partition_point(patches_.begin(), patches_.end(), [&](const BytePatch &patch) {
            return patch.offset + patch.bytes.size() <= offset;
        });
        for (auto patch = first; patch != patches_.end() && patch->offset < wanted.end(); ++patch) {
            ByteRange common = intersection(wanted, {patch->offset, patch->bytes.size()});
            memcpy(buffer + (common.offset - offset), patch->bytes.data() + (common.offset - patch->offset),
                   common.size);
        }
    }

  private:
    const MachoBytes &file_;
    const std::vector<BytePatch> &patches_;
};

void sortByPlace(std::vector<BytePatch> &patches) {
    std::sort(patches.begin(), patches.end(),
              [](const BytePatch &a, const BytePatch &b) { return a.offset < b.offset; });
}

// ---- what the specification asks of a file

/// Where the self-references lie.
class SelfReferences {
  public:
    explicit SelfReferences(const std::vector<uint64_t> &offsets) : offsets_(offsets) {}

    std::string problem(uint64_t fileSize) const {
        if (offsets_.empty()) {
            return "it holds no self-reference";
        }
        uint64_t end = 0;
        for (uint64_t offset : offsets_) {
            if (!fitsInto(offset, machoHashPartSize, fileSize)) {
                return "a self-reference lies outside of it";
            }
            if (offset < end) {
                return "its self-references overlap";
            }
            end = offset + machoHashPartSize;
        }
        return {};
    }

    bool meet(const ByteRange &range) const {
        auto next = firstEndingAfter(range.offset);
        return range.size > 0 && next != offsets_.end() && *next < range.end();
    }

    /// Whether one lies on both sides of this place.
    bool cross(uint64_t place) const {
        auto next = firstEndingAfter(place);
        return next != offsets_.end() && *next < place;
    }

    /// Those that meet the range, whole.
    std::vector<ByteRange> in(const ByteRange &range) const {
        std::vector<ByteRange> found;
        for (auto at = firstEndingAfter(range.offset); at != offsets_.end() && *at < range.end(); ++at) {
            found.push_back({*at, machoHashPartSize});
        }
        return found;
    }

  private:
    std::vector<uint64_t>::const_iterator firstEndingAfter(uint64_t place) const {
        uint64_t before = place < machoHashPartSize ? 0 : place - machoHashPartSize + 1;
        return std::lower_bound(offsets_.begin(), offsets_.end(), before);
    }

    const std::vector<uint64_t> &offsets_;
};

/// Looks at a slice that macho-file takes for what the specification asks beyond that. Each step returns why
/// the slice is outside, or an empty text.
class SliceCheck {
  public:
    SliceCheck(const MachoBytes &file, const SignedSlice &slice, const SelfReferences &selfReferences)
        : file_(file), slice_(slice), selfReferences_(selfReferences), begin_(slice.macho.range.offset) {}

    std::string run() {
        if (!slice_.problem().empty()) {
            return slice_.problem();
        }
        if (selfReferences_.cross(begin_) || selfReferences_.cross(slice_.macho.range.end())) {
            return "a self-reference lies across the border of a slice";
        }
        std::string problem = checkCommands();
        return problem.empty() && slice_.isSigned() ? checkSignature() : problem;
    }

  private:
    std::string checkCommands() {
        // The magic number's first byte tells the order of bytes, and its odd or even end the width.
        std::string magic = readPiece(file_, {begin_, 4});
        auto order = magic[0] == '\xfe' ? MachoByteOrder::big : MachoByteOrder::little;
        is64_ = MachoFields(magic, order).u32(0) & 1;
        uint64_t headerSize = is64_ ? 32 : 28;
        std::string bytes = readPiece(file_, {begin_, headerSize});
        MachoFields header(bytes, order);
        uint32_t count = header.u32(16), size = header.u32(20);
        commandsEnd_ = begin_ + headerSize + size;
        if (selfReferences_.meet({begin_, headerSize})) {
            return "a self-reference lies in its header";
        }
        bytes = readPiece(file_, {begin_ + headerSize, size});
        MachoFields commands(bytes, order);
        uint64_t at = 0;
        for (uint32_t i = 0; i < count; ++i) {
            uint64_t length = commands.u32(at + 4);
            std::string problem =
                checkCommand(commands.u32(at), commands.from(at, length), {begin_ + headerSize + at, length});
            if (!problem.empty()) {
                return problem;
            }
            at += length;
        }
        return {};
    }

    std::string checkCommand(uint32_t type, const MachoFields &command, const ByteRange &place) {
        bool structure = type == commandSegment || type == commandSegment64 || type == commandUuid ||
                         type == commandCodeSignature;
        if (selfReferences_.meet({place.offset, structure ? place.size : commandHeaderSize})) {
            return "a self-reference lies in the structure of its load commands";
        }
        if (type == commandUuid) {
            if (std::exchange(hasUuid_, true)) {
                return "it has two LC_UUID";
            }
            return place.size == uuidCommandSize ? "" : "its LC_UUID has an impossible size";
        }
        return type == (is64_ ? commandSegment64 : commandSegment) && slice_.isSigned()
                   ? checkSections(command)
                   : "";
    }

    /// A slot may be about the section __TEXT,__info_plist: nobody is to doubt which bytes that is.
    std::string checkSections(const MachoFields &segment) {
        const uint64_t head = is64_ ? 72 : 56, each = is64_ ? 80 : 68;
        for (uint64_t i = 0, count = segment.u32(head - 8); i < count; ++i) {
            MachoFields section = segment.from(head + i * each, each);
            if (section.name(0, 16) != "__info_plist" || section.name(16, 16) != "__TEXT") {
                continue;
            }
            if (std::exchange(hasInfoPlist_, true)) {
                return "it has two embedded Info.plist";
            }
            uint64_t size = is64_ ? section.u64(40) : section.u32(36);
            uint64_t offset = section.u32(is64_ ? 48 : 40);
            uint64_t signature = slice_.macho.signature->offset - begin_;
            if (size > 0 && (offset < commandsEnd_ - begin_ || !fitsInto(offset, size, signature))) {
                return "its embedded Info.plist lies in an impossible place";
            }
        }
        return {};
    }

    std::string checkSignature() {
        const CodeSignature &signature = slice_.signature;
        if (signature.kind == SignatureKind::cms) {
            return "it has a CMS signature, which nobody but its signer can renew";
        }
        if (signature.index.size == 0) {
            return "its code signature is no SuperBlob";
        }
        bool inStructure = selfReferences_.meet(signature.index);
        for (const SignatureBlob &blob : signature.blobs) {
            inStructure = inStructure || selfReferences_.meet({blob.range.offset, blobHeaderSize});
        }
        if (inStructure) {
            return "a self-reference lies in the structure of its code signature";
        }
        for (const CodeDirectory &directory : signature.directories) {
            std::string problem = checkDirectory(directory);
            if (!problem.empty()) {
                return "CodeDirectory " + std::to_string(directory.slotType) + ": " + problem;
            }
        }
        return {};
    }

    std::string checkDirectory(const CodeDirectory &directory) {
        if (directory.state != CodeDirectory::State::judgeable) {
            return directory.problem;
        }
        ByteRange header{directory.range.offset, codeDirectoryHeaderSize(directory.version)};
        std::string bytes = readPiece(file_, header);
        MachoFields fields(bytes, MachoByteOrder::big);
        if ((directory.version >= versionPreEncrypt && fields.u32(92) != 0) ||
            (directory.version >= versionLinkage && fields.u32(100) != 0)) {
            return "it has more digests than those of pages and blobs";
        }
        uint64_t special = uint64_t(directory.specialSlots) * directory.hashSize;
        uint64_t code = uint64_t(directory.codeSlots) * directory.hashSize;
        bool met = selfReferences_.meet(header) ||
                   selfReferences_.meet({directory.hashOffset - special, special + code});
        return met ? "a self-reference lies in its header or its slots" : "";
    }

    const MachoBytes &file_;
    const SignedSlice &slice_;
    const SelfReferences &selfReferences_;
    uint64_t begin_;
    uint64_t commandsEnd_ = 0;
    bool is64_ = false;
    bool hasUuid_ = false;
    bool hasInfoPlist_ = false;
};

/// The table of slices of a fat file; nothing in a thin one. The file is Mach-O.
struct Table {
    uint64_t count = 0;
    ByteRange range;
};

std::optional<Table> readTable(const MachoBytes &file) {
    std::string bytes = readPiece(file, {0, 8});
    MachoFields header(bytes, MachoByteOrder::big);
    uint32_t magic = header.u32(0), count = header.u32(4);
    if (magic != magicFat && magic != magicFat64) {
        return std::nullopt;
    }
    return Table{count, {0, 8 + uint64_t(count) * (magic == magicFat64 ? 32 : 20)}};
}

/// What all forms of a file have in common: where things are in it.
class Layout {
  public:
    Layout(const MachoBytes &file, const std::vector<uint64_t> &selfReferences)
        : selfReferences_(selfReferences) {
        problem_ = selfReferences_.problem(file.size());
        if (problem_.empty()) {
            // With the same text in place of every self-reference nothing depends on which form this is; and
            // it has no zeros, so that strings end where they do in the final form.
            problem_ = read(FilledBytes(file, selfReferences, std::string(machoHashPartSize, '0')));
        }
    }

    const std::string &problem() const { return problem_; } ///< why it is outside; empty if it is not
    const std::vector<SignedSlice> &slices() const { return slices_; }

    /// The bytes of a slice, other than slots, that differ between forms.
    std::vector<ByteRange> changesIn(const MachoSlice &slice) const {
        std::vector<ByteRange> changes = selfReferences_.in(slice.range);
        if (slice.uuid) {
            auto after = std::find_if(changes.begin(), changes.end(), [&](const ByteRange &range) {
                return range.offset > slice.uuid->offset;
            });
            changes.insert(after, *slice.uuid);
        }
        return changes;
    }

    bool hasSelfReferenceIn(const ByteRange &range) const { return selfReferences_.meet(range); }

  private:
    std::string read(const MachoBytes &file) {
        MachoFile macho = readMachoFile(file);
        if (!macho.isMacho || !macho.problem.empty()) {
            return macho.isMacho ? macho.problem : "it is not Mach-O";
        }
        std::optional<Table> table = readTable(file);
        if (table && selfReferences_.meet(table->range)) {
            return "a self-reference lies in its table of slices";
        }
        if (table && table->count != macho.slices.size()) {
            return "a part of it is not Mach-O";
        }
        for (const MachoSlice &slice : macho.slices) {
            slices_.push_back({slice, readCodeSignature(file, slice)});
            std::string problem = SliceCheck(file, slices_.back(), selfReferences_).run();
            if (!problem.empty()) {
                return "slice " + slice.architecture + " at " + std::to_string(slice.range.offset) + ": " +
                       problem;
            }
        }
        return {};
    }

    SelfReferences selfReferences_;
    std::vector<SignedSlice> slices_;
    std::string problem_;
};

// ---- its forms

/// Adds the slots of one CodeDirectory over what differs between forms, as they are in this one.
class SlotsOfForm {
  public:
    SlotsOfForm(const MachoBytes &form, const Layout &layout, const SignedSlice &slice,
                const CodeDirectory &directory, std::vector<BytePatch> &patches)
        : slots_(form, slice, directory), layout_(layout), slice_(slice), patches_(patches) {}

    void run() {
        for (const SlotRun &run : slots_.codeSlotsOver(layout_.changesIn(slice_.macho))) {
            slots_.willCompute(run);
            for (int64_t slot = run.first; slot < run.end; ++slot) {
                add(slot);
            }
        }
        for (int64_t slot = -1; slot > slots_.specialEnd(); --slot) {
            std::optional<ByteRange> subject = slots_.subject(slot);
            if (subject && layout_.hasSelfReferenceIn(*subject) && slots_.inUse(slot) && !isOutside(slot)) {
                add(slot);
            }
        }
    }

  private:
    /// A signature that has a digest of a bundle's resources has one of the bundle's Info.plist too, and none
    /// of an embedded one. Neither that nor its being zero is changed by any form.
    bool isOutside(int64_t slot) {
        return slots_.subjectIsGuessed(slot) && slots_.specialEnd() < resourcesSlot &&
               slots_.inUse(resourcesSlot);
    }

    void add(int64_t slot) {
        patches_.push_back({slots_.place(slot).offset, std::string(slots_.computed(*slots_.subject(slot)))});
    }

    MachoSlots slots_;
    const Layout &layout_;
    const SignedSlice &slice_;
    std::vector<BytePatch> &patches_;
};

/// The UUID of each slice that has one, in the order of slices.
using Uuids = std::vector<std::string>;

/// A form of a file: what stands in place of self-references and of UUIDs, and the slots that fit.
std::vector<BytePatch> patchesOf(const MachoBytes &file, const Layout &layout,
                                 const std::vector<uint64_t> &selfReferences, std::string_view hashPart,
                                 const Uuids &uuids) {
    std::vector<BytePatch> uuidPatches;
    for (const SignedSlice &slice : layout.slices()) {
        if (slice.macho.uuid) {
            uuidPatches.push_back({slice.macho.uuid->offset, uuids.at(uuidPatches.size())});
        }
    }
    sortByPlace(uuidPatches);
    FilledBytes filled(file, selfReferences, hashPart);
    PatchedBytes form(filled, uuidPatches);
    std::vector<BytePatch> patches = uuidPatches;
    for (const SignedSlice &slice : layout.slices()) {
        for (const CodeDirectory &directory : slice.signature.directories) {
            SlotsOfForm(form, layout, slice, directory, patches).run();
        }
    }
    for (uint64_t offset : selfReferences) {
        patches.push_back({offset, std::string(hashPart)});
    }
    sortByPlace(patches);
    return patches;
}

std::vector<BytePatch> normalPatches(const MachoBytes &file, const Layout &layout,
                                     const std::vector<uint64_t> &selfReferences) {
    return patchesOf(file, layout, selfReferences, std::string(machoHashPartSize, '\0'),
                     Uuids(layout.slices().size(), std::string(16, '\0')));
}

std::string sha256(std::string_view bytes) {
    unsigned char digest[SHA256_DIGEST_LENGTH];
    SHA256(reinterpret_cast<const unsigned char *>(bytes.data()), bytes.size(), digest);
    return {reinterpret_cast<const char *>(digest), sizeof digest};
}

/// A UUID of version 8 and of the variant that RFC 9562 defines.
std::string uuidOf(const MachoBytes &normalForm, const ByteRange &slice) {
    MachoDigest digest(normalForm, 2);
    std::string uuid = sha256(std::string(uuidDomain, sizeof uuidDomain) + std::string(digest.of(slice)));
    uuid.resize(16);
    uuid[6] = char((uuid[6] & 0x0f) | 0x80);
    uuid[8] = char((uuid[8] & 0x3f) | 0x80);
    return uuid;
}

std::vector<BytePatch> finalPatches(const MachoBytes &file, const Layout &layout,
                                    const std::vector<uint64_t> &selfReferences, std::string_view hashPart) {
    std::vector<BytePatch> patches = normalPatches(file, layout, selfReferences);
    PatchedBytes normalForm(file, patches);
    Uuids uuids;
    for (const SignedSlice &slice : layout.slices()) {
        if (slice.macho.uuid) {
            uuids.push_back(uuidOf(normalForm, slice.macho.range));
        }
    }
    return patchesOf(file, layout, selfReferences, hashPart, uuids);
}

/// What a patch that changes something says about the file.
std::string describe(const Layout &layout, const BytePatch &patch) {
    std::string at = " at offset " + std::to_string(patch.offset);
    if (layout.hasSelfReferenceIn({patch.offset, 1})) {
        return "the text" + at + " is not its own hash part";
    }
    for (const SignedSlice &slice : layout.slices()) {
        if (slice.macho.uuid && slice.macho.uuid->offset == patch.offset) {
            return "the LC_UUID" + at + " is not the one that follows from its contents";
        }
    }
    return "the digest" + at + ", in its code signature, is not that of its contents";
}

} // namespace

MachoNormalForm machoNormalForm(const MachoBytes &file, const std::vector<uint64_t> &selfReferences) {
    Layout layout(file, selfReferences);
    if (!layout.problem().empty()) {
        return {false, layout.problem(), {}};
    }
    return {true, {}, normalPatches(file, layout, selfReferences)};
}

std::vector<BytePatch> machoFinalForm(const MachoBytes &file, const std::vector<uint64_t> &selfReferences,
                                      std::string_view hashPart) {
    if (hashPart.size() != machoHashPartSize) {
        throw std::invalid_argument("final form of Mach-O: a hash part has 32 bytes");
    }
    Layout layout(file, selfReferences);
    if (!layout.problem().empty()) {
        throw std::invalid_argument("final form of Mach-O: " + layout.problem());
    }
    return finalPatches(file, layout, selfReferences, hashPart);
}

std::optional<std::string> machoFinalFormProblem(const MachoBytes &file,
                                                 const std::vector<uint64_t> &selfReferences,
                                                 std::string_view hashPart) {
    Layout layout(file, selfReferences);
    if (!layout.problem().empty()) {
        return layout.problem();
    }
    if (hashPart.size() != machoHashPartSize) {
        return "a hash part has 32 bytes";
    }
    for (const BytePatch &patch : finalPatches(file, layout, selfReferences, hashPart)) {
        if (readPiece(file, {patch.offset, patch.bytes.size()}) != patch.bytes) {
            return describe(layout, patch);
        }
    }
    return std::nullopt;
}

} // namespace firn
