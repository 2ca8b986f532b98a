#include "libstore/darwin/code-signature.hh"

#include <algorithm>

#include "libstore/darwin/macho-bytes.hh"

namespace firn {

namespace {

constexpr uint32_t magicSuperBlob = 0xfade0cc0;
constexpr uint32_t magicCodeDirectory = 0xfade0c02;

constexpr uint32_t slotTypeCodeDirectory = 0;
constexpr uint32_t slotTypeFirstAlternate = 0x1000;
constexpr uint32_t slotTypeLastAlternate = 0x1004;

constexpr uint64_t superBlobHeaderSize = 12;
constexpr uint64_t indexEntrySize = 8;
constexpr uint64_t blobHeaderSize = 8;
constexpr uint32_t flagLinkerSigned = 0x20000;

/// From which version on a CodeDirectory has which fields, and how long its header is then.
struct HeaderVersion {
    uint32_t version;
    uint32_t size;
};
constexpr HeaderVersion headerVersions[] = {
    {0x20600, 108}, {0x20500, 96}, {0x20400, 88}, {0x20300, 64}, {0x20200, 52}, {0x20100, 48}, {0x20000, 44},
};
constexpr uint32_t oldestHeaderSize = 44;
constexpr uint32_t newestHeaderSize = 108;
constexpr uint32_t versionScatter = 0x20100;
constexpr uint32_t versionTeam = 0x20200;
constexpr uint32_t versionCodeLimit64 = 0x20300;
constexpr uint32_t firstIncompatibleVersion = 0x2f000;

bool isDirectorySlot(uint32_t type) {
    return type == slotTypeCodeDirectory || (type >= slotTypeFirstAlternate && type <= slotTypeLastAlternate);
}

/// Reads one CodeDirectory. The steps throw a Stop, which read() turns into its state.
class DirectoryReader {
  public:
    DirectoryReader(const MachoBytes &file, const MachoSlice &slice, const SignatureBlob &blob)
        : file_(file), slice_(slice), blob_(blob) {}

    CodeDirectory read() {
        directory_.slotType = blob_.slotType;
        directory_.range = blob_.range;
        directory_.problem = findMalformation();
        if (!directory_.problem.empty()) {
            return directory_;
        }
        directory_.problem = findUnknown();
        directory_.state =
            directory_.problem.empty() ? CodeDirectory::State::judgeable : CodeDirectory::State::unknown;
        return directory_;
    }

  private:
    using Check = std::string (DirectoryReader::*)();

    std::string findMalformation() {
        for (Check check :
             {&DirectoryReader::readHeader, &DirectoryReader::readSizes, &DirectoryReader::placeSlots,
              &DirectoryReader::checkLimit, &DirectoryReader::countPages, &DirectoryReader::readStrings}) {
            std::string problem = (this->*check)();
            if (!problem.empty()) {
                return problem;
            }
        }
        return {};
    }

    std::string readHeader() {
        if (blob_.magic != magicCodeDirectory) {
            return "it is no CodeDirectory";
        }
        if (blob_.range.size < oldestHeaderSize) {
            return "it is too short";
        }
        header_ =
            readPiece(file_, {blob_.range.offset, std::min<uint64_t>(newestHeaderSize, blob_.range.size)});
        MachoFields header = fields();
        directory_.version = header.u32(8);
        directory_.flags = header.u32(12);
        headerSize_ = codeDirectoryHeaderSize(directory_.version);
        if (headerSize_ == 0 || directory_.version >= firstIncompatibleVersion) {
            return "its version is not known";
        }
        return headerSize_ > header_.size() ? "it is too short for its version" : "";
    }

    std::string readSizes() {
        MachoFields header = fields();
        directory_.specialSlots = header.u32(24);
        directory_.codeSlots = header.u32(28);
        directory_.codeLimit = header.u32(32);
        directory_.hashSize = header.u8(36);
        directory_.hashType = header.u8(37);
        if (directory_.version >= versionCodeLimit64 && header.u64(56) != 0) {
            directory_.codeLimit = header.u64(56);
        }
        scattered_ = directory_.version >= versionScatter && header.u32(44) != 0;
        uint32_t known = digestSize(directory_.hashType);
        if (directory_.hashSize == 0 || (known != 0 && directory_.hashSize != known)) {
            return "the size of its hashes does not fit their type";
        }
        uint8_t exponent = header.u8(39);
        if (exponent != 0 && (exponent < minPageExponent || exponent > maxPageExponent)) {
            return "its page size is impossible";
        }
        directory_.pageSize = exponent == 0 ? 0 : uint64_t(1) << exponent;
        return {};
    }

    std::string placeSlots() {
        uint64_t offset = fields().u32(16);
        if (directory_.specialSlots > maxSpecialSlots) {
            return "it has more special slots than any signature";
        }
        uint64_t special = uint64_t(directory_.specialSlots) * directory_.hashSize;
        uint64_t code = uint64_t(directory_.codeSlots) * directory_.hashSize;
        if (offset < headerSize_ || offset - headerSize_ < special) {
            return "its slots lie over its header";
        }
        if (!fitsInto(offset, code, blob_.range.size)) {
            return "its slots reach beyond its end";
        }
        directory_.hashOffset = blob_.range.offset + offset;
        slots_ = {offset - special, special + code};
        return {};
    }

    std::string readStrings() {
        std::string problem = readString(fields().u32(20), "identifier", directory_.identifier);
        if (!problem.empty() || directory_.version < versionTeam) {
            return problem;
        }
        std::string team;
        return readString(fields().u32(48), "team", team);
    }

    /// An offset of zero: there is no such string.
    std::string readString(uint64_t offset, const std::string &what, std::string &text) {
        if (offset == 0) {
            return {};
        }
        if (offset < headerSize_ || offset >= blob_.range.size) {
            return "its " + what + " lies outside of it";
        }
        uint64_t size = std::min<uint64_t>(maxIdentifierLength + 1, blob_.range.size - offset);
        text = readPiece(file_, {blob_.range.offset + offset, size});
        size_t end = text.find('\0');
        if (end == std::string::npos) {
            text.clear();
            return "its " + what + " has no end";
        }
        text.resize(end);
        return overlap({offset, end + 1}, slots_) ? "its slots lie over its " + what : "";
    }

    std::string checkLimit() {
        if (directory_.codeLimit == 0) {
            return "it covers nothing";
        }
        if (directory_.codeLimit > slice_.range.size) {
            return "it covers more than there is";
        }
        return directory_.codeLimit > slice_.signature->offset - slice_.range.offset
                   ? "it covers a part of the signature itself"
                   : "";
    }

    /// Slots beyond the pages' are about nothing: loaders ignore them, and so does everything here.
    std::string countPages() {
        if (scattered_) {
            return {};
        }
        uint64_t size = directory_.pageSize == 0 ? directory_.codeLimit : directory_.pageSize;
        uint64_t pages = (directory_.codeLimit - 1) / size + 1;
        if (directory_.codeSlots < pages) {
            return "it has too few slots";
        }
        slots_.size -= (directory_.codeSlots - pages) * directory_.hashSize;
        directory_.codeSlots = uint32_t(pages);
        return {};
    }

    std::string findUnknown() const {
        if (scattered_) {
            return "it is scattered";
        }
        return digestSize(directory_.hashType) == 0
                   ? "its hash type " + std::to_string(directory_.hashType) + " is not known"
                   : "";
    }

    MachoFields fields() const { return {header_, MachoByteOrder::big}; }

    const MachoBytes &file_;
    const MachoSlice &slice_;
    const SignatureBlob &blob_;
    CodeDirectory directory_;
    std::string header_;
    uint32_t headerSize_ = 0;
    bool scattered_ = false;
    ByteRange slots_; ///< in the blob
};

/// Finds the blobs: by the index of a SuperBlob, in which they must lie without overlaps, or the one
/// CodeDirectory that stands in its place.
class BlobReader {
  public:
    BlobReader(const MachoBytes &file, const ByteRange &place, CodeSignature &signature)
        : file_(file), place_(place), signature_(signature) {}

    std::string read() {
        if (place_.size < superBlobHeaderSize) {
            return "the code signature is too short";
        }
        std::string bytes = readPiece(file_, {place_.offset, superBlobHeaderSize});
        MachoFields header(bytes, MachoByteOrder::big);
        if (header.u32(0) == magicCodeDirectory) {
            length_ = place_.size;
            signature_.index = {place_.offset, 0};
            return readBlob(slotTypeCodeDirectory, 0, 0);
        }
        if (header.u32(0) != magicSuperBlob) {
            return "the code signature is no SuperBlob";
        }
        length_ = header.u32(4);
        if (length_ < superBlobHeaderSize || length_ > place_.size) {
            return "the SuperBlob has an impossible size";
        }
        std::string problem = readIndex(header.u32(8));
        return problem.empty() ? findClash() : problem;
    }

  private:
    std::string readIndex(uint64_t count) {
        uint64_t end = superBlobHeaderSize + count * indexEntrySize;
        if (count > maxSignatureBlobs || end > length_) {
            return "the SuperBlob has an impossible number of blobs";
        }
        signature_.index = {place_.offset, end};
        std::string bytes = readPiece(file_, signature_.index);
        MachoFields index(bytes, MachoByteOrder::big);
        for (uint64_t at = superBlobHeaderSize; at < end; at += indexEntrySize) {
            std::string problem = readBlob(index.u32(at), index.u32(at + 4), end);
            if (!problem.empty()) {
                return problem;
            }
        }
        return {};
    }

    std::string readBlob(uint32_t type, uint64_t offset, uint64_t indexEnd) {
        if (offset < indexEnd || !fitsInto(offset, blobHeaderSize, length_)) {
            return "a blob of the signature lies outside of it";
        }
        std::string bytes = readPiece(file_, {place_.offset + offset, blobHeaderSize});
        MachoFields header(bytes, MachoByteOrder::big);
        uint64_t size = header.u32(4);
        if (size < blobHeaderSize || !fitsInto(offset, size, length_)) {
            return "a blob of the signature has an impossible size";
        }
        signature_.blobs.push_back({type, header.u32(0), {place_.offset + offset, size}});
        return {};
    }

    std::string findClash() const {
        const std::vector<SignatureBlob> &blobs = signature_.blobs;
        for (size_t i = 0; i < blobs.size(); ++i) {
            for (size_t j = 0; j < i; ++j) {
                if (blobs[i].slotType == blobs[j].slotType) {
                    return "the signature has two blobs of one kind";
                }
                if (overlap(blobs[i].range, blobs[j].range)) {
                    return "blobs of the signature overlap";
                }
            }
        }
        return {};
    }

    const MachoBytes &file_;
    ByteRange place_;
    CodeSignature &signature_;
    uint64_t length_ = 0;
};

SignatureKind signatureKind(const CodeSignature &signature) {
    const SignatureBlob *cms = signature.blob(slotTypeCms);
    if (cms && cms->range.size > blobHeaderSize) {
        return SignatureKind::cms;
    }
    bool linker = !signature.directories.empty() && signature.directories[0].flags & flagLinkerSigned;
    return linker ? SignatureKind::linkerSigned : SignatureKind::adHoc;
}

std::string readDirectories(const MachoBytes &file, const MachoSlice &slice, CodeSignature &signature) {
    for (const SignatureBlob &blob : signature.blobs) {
        if (isDirectorySlot(blob.slotType)) {
            signature.directories.push_back(DirectoryReader(file, slice, blob).read());
        }
    }
    std::sort(signature.directories.begin(), signature.directories.end(),
              [](const CodeDirectory &a, const CodeDirectory &b) { return a.slotType < b.slotType; });
    return signature.directories.empty() ? "the signature has no CodeDirectory" : "";
}

} // namespace

uint32_t digestSize(uint8_t hashType) {
    switch (hashType) {
    case 1:
        return 20;
    case 2:
        return 32;
    case 3:
        return 20;
    case 4:
        return 48;
    default:
        return 0;
    }
}

uint32_t codeDirectoryHeaderSize(uint32_t version) {
    for (const HeaderVersion &entry : headerVersions) {
        if (version >= entry.version) {
            return entry.size;
        }
    }
    return 0;
}

bool CodeDirectory::sameLayout(const CodeDirectory &other) const {
    return state == other.state && slotType == other.slotType && range == other.range &&
           hashType == other.hashType && hashSize == other.hashSize && pageSize == other.pageSize &&
           codeLimit == other.codeLimit && hashOffset == other.hashOffset && codeSlots == other.codeSlots &&
           specialSlots == other.specialSlots;
}

const SignatureBlob *CodeSignature::blob(uint32_t slotType) const {
    for (const SignatureBlob &blob : blobs) {
        if (blob.slotType == slotType) {
            return &blob;
        }
    }
    return nullptr;
}

CodeSignature readCodeSignature(const MachoBytes &file, const MachoSlice &slice) {
    CodeSignature signature;
    if (!slice.signature || !slice.problem.empty()) {
        return signature;
    }
    signature.problem = BlobReader(file, *slice.signature, signature).read();
    if (signature.problem.empty()) {
        signature.problem = readDirectories(file, slice, signature);
    }
    signature.kind = signatureKind(signature);
    return signature;
}

} // namespace firn
