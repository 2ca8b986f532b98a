#include "libstore/darwin/macho-file.hh"

#include <algorithm>
#include <cstdio>

#include "libstore/darwin/macho-bytes.hh"

namespace firn {

namespace {

constexpr uint32_t magic32 = 0xfeedface;
constexpr uint32_t magic64 = 0xfeedfacf;
constexpr uint32_t magicFat = 0xcafebabe;
constexpr uint32_t magicFat64 = 0xcafebabf;
constexpr uint32_t magicBitcode = 0x4243c0de;        // "BC" …
constexpr uint32_t magicBitcodeWrapper = 0xdec0170b; // as its bytes lie in the file: 0b 17 c0 de
constexpr uint64_t fatHeaderSize = 8;

constexpr uint32_t commandSegment = 0x1;
constexpr uint32_t commandSegment64 = 0x19;
constexpr uint32_t commandUuid = 0x1b;
constexpr uint32_t commandCodeSignature = 0x1d;
constexpr uint64_t commandHeaderSize = 8;

struct CpuName {
    uint32_t type;
    uint32_t subtype;
    const char *name;
};

constexpr uint32_t anySubtype = 0xffffffff;
constexpr CpuName cpuNames[] = {
    {0x01000007, 8, "x86_64h"},
    {0x01000007, anySubtype, "x86_64"},
    {0x0100000c, 2, "arm64e"},
    {0x0100000c, anySubtype, "arm64"},
    {0x0200000c, anySubtype, "arm64_32"},
    {7, anySubtype, "i386"},
    {12, 6, "armv6"},
    {12, 9, "armv7"},
    {12, 11, "armv7s"},
    {12, 12, "armv7k"},
    {12, anySubtype, "arm"},
    {18, anySubtype, "ppc"},
    {0x01000012, anySubtype, "ppc64"},
};

std::string architectureName(uint32_t type, uint32_t subtype) {
    subtype &= 0x00ffffff; // above: capabilities
    for (const CpuName &cpu : cpuNames) {
        if (cpu.type == type && (cpu.subtype == subtype || cpu.subtype == anySubtype)) {
            return cpu.name;
        }
    }
    char text[32];
    snprintf(text, sizeof text, "cpu 0x%08x", type);
    return text;
}

uint32_t magicOf(std::string_view bytes) {
    return bytes.size() < 4 ? 0 : MachoFields(bytes, MachoByteOrder::big).u32(0);
}

struct ImageKind {
    MachoByteOrder order;
    bool is64;
    uint64_t headerSize() const { return is64 ? 32 : 28; }
};

std::optional<ImageKind> imageKind(uint32_t magic) {
    switch (magic) {
    case magic32:
        return ImageKind{MachoByteOrder::big, false};
    case magic64:
        return ImageKind{MachoByteOrder::big, true};
    case __builtin_bswap32(magic32):
        return ImageKind{MachoByteOrder::little, false};
    case __builtin_bswap32(magic64):
        return ImageKind{MachoByteOrder::little, true};
    default:
        return std::nullopt;
    }
}

/// Reads one image. Each step returns why it cannot go on, or an empty text.
class ImageReader {
  public:
    ImageReader(const MachoBytes &file, MachoSlice &slice) : file_(file), slice_(slice) {}

    std::string read(const ImageKind &kind, std::optional<uint32_t> expectedCpu) {
        kind_ = kind;
        if (slice_.range.size < kind.headerSize()) {
            return "its header is cut off";
        }
        std::string bytes = readPiece(file_, {slice_.range.offset, kind.headerSize()});
        MachoFields header(bytes, kind.order);
        slice_.architecture = architectureName(header.u32(4), header.u32(8));
        slice_.fileType = header.u32(12);
        if (expectedCpu && header.u32(4) != *expectedCpu) {
            return "its header and the table of slices disagree about the architecture";
        }
        std::string problem = readCommands(header.u32(16), header.u32(20));
        dropUnusablePlist();
        return problem;
    }

  private:
    std::string readCommands(uint32_t count, uint32_t size) {
        if (!fitsInto(kind_.headerSize(), size, slice_.range.size)) {
            return "its load commands reach beyond its end";
        }
        if (count > maxLoadCommands || size > maxLoadCommandBytes) {
            return "it has more load commands than any program";
        }
        commandsEnd_ = kind_.headerSize() + size;
        std::string bytes = readPiece(file_, {slice_.range.offset + kind_.headerSize(), size});
        MachoFields commands(bytes, kind_.order);
        uint64_t at = 0;
        for (uint32_t i = 0; i < count; ++i) {
            if (!fitsInto(at, commandHeaderSize, size)) {
                return "it has fewer load commands than its header says";
            }
            uint32_t length = commands.u32(at + 4);
            if (length < commandHeaderSize || !fitsInto(at, length, size)) {
                return "a load command has an impossible size";
            }
            std::string problem = readCommand(commands.u32(at), commands.from(at, length), at);
            if (!problem.empty()) {
                return problem;
            }
            at += length;
        }
        return {};
    }

    std::string readCommand(uint32_t type, const MachoFields &command, uint64_t at) {
        switch (type) {
        case commandCodeSignature:
            return readSignatureCommand(command);
        case commandSegment:
            return kind_.is64 ? "" : readSegment(command);
        case commandSegment64:
            return kind_.is64 ? readSegment(command) : "";
        case commandUuid:
            if (command.size() >= 24 && !slice_.uuid) {
                slice_.uuid = ByteRange{slice_.range.offset + kind_.headerSize() + at + 8, 16};
            }
            return {};
        default:
            return {};
        }
    }

    std::string readSignatureCommand(const MachoFields &command) {
        if (slice_.signature) {
            return "it has two code signatures";
        }
        if (command.size() < 16) {
            return "its LC_CODE_SIGNATURE is too short";
        }
        uint64_t offset = command.u32(8), size = command.u32(12);
        if (!fitsInto(offset, size, slice_.range.size)) {
            return "its code signature reaches beyond its end";
        }
        if (offset < commandsEnd_) {
            return "its code signature lies in its load commands";
        }
        slice_.signature = ByteRange{slice_.range.offset + offset, size};
        return {};
    }

    std::string readSegment(const MachoFields &segment) {
        const uint64_t head = kind_.is64 ? 72 : 56, each = kind_.is64 ? 80 : 68;
        if (segment.size() < head) {
            return "a segment's load command is too short";
        }
        uint64_t count = segment.u32(head - 8);
        if (count > (segment.size() - head) / each) {
            return "a segment's sections do not fit into its load command";
        }
        for (uint64_t i = 0; i < count; ++i) {
            readSection(segment.from(head + i * each, each));
        }
        return {};
    }

    void readSection(const MachoFields &section) {
        if (slice_.infoPlist || section.name(0, 16) != "__info_plist" || section.name(16, 16) != "__TEXT") {
            return;
        }
        uint64_t size = kind_.is64 ? section.u64(40) : section.u32(36);
        uint64_t offset = section.u32(kind_.is64 ? 48 : 40);
        if (size > 0 && fitsInto(offset, size, slice_.range.size)) {
            slice_.infoPlist = ByteRange{slice_.range.offset + offset, size};
        }
    }

    /// A digest of what holds the digest itself could never be right.
    void dropUnusablePlist() {
        if (slice_.infoPlist && slice_.signature && slice_.infoPlist->end() > slice_.signature->offset) {
            slice_.infoPlist.reset();
        }
    }

    const MachoBytes &file_;
    MachoSlice &slice_;
    ImageKind kind_{};
    uint64_t commandsEnd_ = 0;
};

/// An entry of the table, and what it claims.
struct TableEntry {
    uint32_t cpu = 0;
    uint32_t subtype = 0;
    ByteRange range; ///< cut to the file
    std::string problem;
};

TableEntry readEntry(const MachoFields &entry, bool is64, uint64_t tableEnd, uint64_t fileSize) {
    uint64_t offset = is64 ? entry.u64(8) : entry.u32(8);
    uint64_t size = is64 ? entry.u64(16) : entry.u32(12);
    TableEntry result{entry.u32(0), entry.u32(4), {}, {}};
    result.range.offset = std::min(offset, fileSize);
    result.range.size = std::min(size, fileSize - result.range.offset);
    if (offset < tableEnd) {
        result.problem = "it lies in the table of slices";
    } else if (!fitsInto(offset, size, fileSize)) {
        result.problem = "it reaches beyond the end of the file";
    } else if (size == 0) {
        result.problem = "it is empty";
    }
    return result;
}

/// A byte that belongs to two slices would have to be right in both.
void markOverlaps(std::vector<TableEntry> &entries) {
    std::vector<TableEntry *> sorted;
    for (TableEntry &entry : entries) {
        if (entry.problem.empty()) {
            sorted.push_back(&entry);
        }
    }
    std::sort(sorted.begin(), sorted.end(),
              [](const TableEntry *a, const TableEntry *b) { return a->range.offset < b->range.offset; });
    TableEntry *furthest = nullptr;
    for (TableEntry *entry : sorted) {
        if (furthest && entry->range.offset < furthest->range.end()) {
            entry->problem = furthest->problem = "it overlaps another slice";
        }
        if (!furthest || entry->range.end() > furthest->range.end()) {
            furthest = entry;
        }
    }
}

bool isOtherKnownKind(std::string_view head) {
    uint32_t magic = magicOf(head);
    return head.starts_with("!<arch>\n") || magic == magicBitcode || magic == magicBitcodeWrapper ||
           magic == __builtin_bswap32(magicBitcodeWrapper);
}

/// The slice of a table's entry; none if it is something other than Mach-O.
std::optional<MachoSlice> readSlice(const MachoBytes &file, const TableEntry &entry) {
    MachoSlice slice;
    slice.range = entry.range;
    slice.architecture = architectureName(entry.cpu, entry.subtype);
    slice.problem = entry.problem;
    if (!slice.problem.empty()) {
        return slice;
    }
    std::string head = readPiece(file, {slice.range.offset, std::min<uint64_t>(8, slice.range.size)});
    if (isOtherKnownKind(head)) {
        return std::nullopt;
    }
    std::optional<ImageKind> kind = imageKind(magicOf(head));
    slice.problem = kind ? ImageReader(file, slice).read(*kind, entry.cpu) : "it is no Mach-O image";
    return slice;
}

MachoFile readFat(const MachoBytes &file, bool is64) {
    MachoFile result;
    if (file.size() < fatHeaderSize) {
        return result;
    }
    std::string header = readPiece(file, {0, fatHeaderSize});
    uint32_t count = MachoFields(header, MachoByteOrder::big).u32(4);
    if (!is64 && count > maxMachoSlices) {
        return result; // a Java class
    }
    result.isMacho = true;
    const uint64_t each = is64 ? 32 : 20;
    if (count == 0 || count > maxMachoSlices) {
        result.problem = "its table has an impossible number of slices";
        return result;
    }
    if (!fitsInto(fatHeaderSize, count * each, file.size())) {
        result.problem = "its table of slices is cut off";
        return result;
    }
    std::string bytes = readPiece(file, {fatHeaderSize, count * each});
    MachoFields table(bytes, MachoByteOrder::big);
    std::vector<TableEntry> entries;
    for (uint32_t i = 0; i < count; ++i) {
        entries.push_back(
            readEntry(table.from(i * each, each), is64, fatHeaderSize + count * each, file.size()));
    }
    markOverlaps(entries);
    for (const TableEntry &entry : entries) {
        if (std::optional<MachoSlice> slice = readSlice(file, entry)) {
            result.slices.push_back(std::move(*slice));
        }
    }
    return result;
}

MachoFile readThin(const MachoBytes &file, const ImageKind &kind) {
    MachoFile result;
    result.isMacho = true;
    MachoSlice slice;
    slice.range = {0, file.size()};
    slice.problem = ImageReader(file, slice).read(kind, std::nullopt);
    result.slices.push_back(std::move(slice));
    return result;
}

} // namespace

bool canBeMacho(std::string_view firstBytes) {
    return canBeUniversal(firstBytes) || imageKind(magicOf(firstBytes)).has_value();
}

bool canBeUniversal(std::string_view firstBytes) {
    uint32_t magic = magicOf(firstBytes);
    return magic == magicFat || magic == magicFat64;
}

MachoFile readMachoFile(const MachoBytes &file) {
    uint32_t magic = magicOf(readPiece(file, {0, std::min<uint64_t>(4, file.size())}));
    if (magic == magicFat || magic == magicFat64) {
        return readFat(file, magic == magicFat64);
    }
    std::optional<ImageKind> kind = imageKind(magic);
    return kind ? readThin(file, *kind) : MachoFile{};
}

} // namespace firn
