#pragma once

// Makes small Mach-O files with code signatures, of every kind, for tests of what reads them. Shares nothing
// with the code under test: it knows where it put each slot, and digests by OpenSSL's one-shot functions.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <openssl/sha.h>

#include "libstore/darwin/macho-page-hashes.hh"

namespace firn::test {

inline void put(std::string &bytes, size_t at, uint64_t value, size_t size, bool big) {
    for (size_t i = 0; i < size; ++i) {
        bytes.at(at + (big ? size - 1 - i : i)) = char(value >> (8 * i));
    }
}

inline void put32(std::string &bytes, size_t at, uint64_t value) {
    put(bytes, at, value, 4, true);
}
inline void put64(std::string &bytes, size_t at, uint64_t value) {
    put(bytes, at, value, 8, true);
}

inline uint32_t get32(const std::string &bytes, size_t at) {
    uint32_t value = 0;
    for (size_t i = 0; i < 4; ++i) {
        value = value << 8 | uint8_t(bytes.at(at + i));
    }
    return value;
}

/// The digest as it stands in a slot of this hash type.
inline std::string slotDigest(uint8_t hashType, const std::string &bytes) {
    unsigned char digest[64];
    auto *data = reinterpret_cast<const unsigned char *>(bytes.data());
    switch (hashType) {
    case 1:
        SHA1(data, bytes.size(), digest);
        return {reinterpret_cast<char *>(digest), 20};
    case 3:
        SHA256(data, bytes.size(), digest);
        return {reinterpret_cast<char *>(digest), 20};
    case 4:
        SHA384(data, bytes.size(), digest);
        return {reinterpret_cast<char *>(digest), 48};
    default:
        SHA256(data, bytes.size(), digest);
        return {reinterpret_cast<char *>(digest), 32};
    }
}

struct DirectorySpec {
    uint32_t slotType = 0;
    uint8_t hashType = 2;
    uint8_t pageExponent = 12; ///< 0: one page
    uint32_t version = 0x20400;
    uint32_t flags = 0x20002;
    size_t codeLimit = 0; ///< 0: everything before the signature
    bool codeLimit64 = false;
    std::string identifier = "hello";
    std::string team = {}; ///< needs version 0x20200
    std::map<uint32_t, std::string> externalSlots =
        {}; ///< number and digest of special slots about files elsewhere
};

struct ImageSpec {
    bool is64 = true;
    bool big = false;
    uint32_t cpu = 0x0100000c;
    uint32_t subtype = 0;
    size_t codeSize = 3 * 4096 + 100; ///< where the signature begins
    std::vector<DirectorySpec> directories = {{}};
    std::map<uint32_t, std::string> blobs; ///< slot type and contents; 0x10000 is CMS
    std::string infoPlist;                 ///< embedded as a section
    std::string rpath = {};                ///< text of an LC_RPATH
    bool hasUuid = true;
    size_t gapAfterIndex = 0;
    size_t padding = 0; ///< after the SuperBlob; not zero
    bool isSigned = true;
};

/// An image, and where things are in it.
class Image {
  public:
    struct Directory {
        size_t at = 0;
        size_t slots = 0; ///< of code slot 0
        size_t hashSize = 0;
        size_t page = 0;
        size_t limit = 0;
        size_t codeSlots = 0;
        size_t specialSlots = 0;
        size_t slot(int64_t i) const { return slots + size_t(i * int64_t(hashSize)); }
    };

    explicit Image(ImageSpec what = {}) : spec(std::move(what)) {
        writeCode();
        if (spec.isSigned) {
            writeSignature();
            bytes = sign(bytes);
        }
    }

    /// The same bytes with every slot about something in the file made right.
    std::string sign(std::string file) const {
        for (size_t i = 0; i < directories.size(); ++i) {
            const Directory &directory = directories[i];
            uint8_t type = spec.directories[i].hashType;
            for (size_t page = 0; page < directory.codeSlots; ++page) {
                size_t begin = page * directory.page;
                std::string code = file.substr(begin, std::min(directory.page, directory.limit - begin));
                file.replace(directory.slot(int64_t(page)), directory.hashSize, slotDigest(type, code));
            }
            for (const auto &[slot, where] : subjects) {
                if (slot <= directory.specialSlots) {
                    file.replace(directory.slot(-int64_t(slot)), directory.hashSize,
                                 slotDigest(type, file.substr(where.first, where.second)));
                }
            }
        }
        return file;
    }

    ImageSpec spec;
    std::string bytes;
    std::vector<Directory> directories;
    size_t headerSize = 0;
    size_t commandsEnd = 0;
    size_t rpathAt = 0; ///< its text
    size_t uuidCommand = 0;
    size_t signatureCommand = 0;
    size_t superBlob = 0;
    std::map<uint32_t, size_t> blobAt; ///< where the blob of a slot type begins
    /// What special slots are about: begin and size.
    std::map<uint32_t, std::pair<size_t, size_t>> subjects;

  private:
    void number(size_t at, uint64_t value, size_t size = 4) { put(bytes, at, value, size, spec.big); }

    void writeCode() {
        bytes.resize(spec.codeSize);
        uint32_t random = 12345;
        for (char &c : bytes) {
            random = random * 1103515245 + 12345;
            c = char(random >> 16);
        }
        headerSize = spec.is64 ? 32 : 28;
        size_t at = headerSize;
        uint32_t count = 0;
        if (!spec.infoPlist.empty()) {
            at += writeSegment(at);
            ++count;
        }
        if (!spec.rpath.empty()) {
            at += writeRpath(at);
            ++count;
        }
        uuidCommand = at;
        if (spec.hasUuid) {
            number(at, 0x1b), number(at + 4, 24);
            at += 24;
            ++count;
        }
        if (spec.isSigned) {
            signatureCommand = at;
            number(at, 0x1d), number(at + 4, 16), number(at + 8, spec.codeSize), number(at + 12, 0);
            at += 16;
            ++count;
        }
        commandsEnd = at;
        number(0, spec.is64 ? 0xfeedfacf : 0xfeedface);
        number(4, spec.cpu), number(8, spec.subtype), number(12, 2);
        number(16, count), number(20, commandsEnd - headerSize), number(24, 0);
        placePlist();
    }

    size_t writeSegment(size_t at) {
        const size_t head = spec.is64 ? 72 : 56, each = spec.is64 ? 80 : 68;
        std::fill_n(bytes.begin() + long(at), head + each, '\0');
        number(at, spec.is64 ? 0x19 : 1), number(at + 4, head + each);
        bytes.replace(at + 8, 6, "__TEXT");
        number(at + head - 8, 1);
        bytes.replace(at + head, 12, "__info_plist");
        bytes.replace(at + head + 16, 6, "__TEXT");
        section_ = at + head;
        return head + each;
    }

    size_t writeRpath(size_t at) {
        const size_t head = 12, size = (head + spec.rpath.size() + 8) / 8 * 8;
        number(at, 0x8000001c), number(at + 4, size), number(at + 8, head);
        std::fill_n(bytes.begin() + long(at + head), size - head, '\0');
        bytes.replace(at + head, spec.rpath.size(), spec.rpath);
        rpathAt = at + head;
        return size;
    }

    void placePlist() {
        if (spec.infoPlist.empty()) {
            return;
        }
        size_t at = commandsEnd + 8;
        bytes.replace(at, spec.infoPlist.size(), spec.infoPlist);
        if (spec.is64) {
            number(section_ + 40, spec.infoPlist.size(), 8), number(section_ + 48, at);
        } else {
            number(section_ + 36, spec.infoPlist.size()), number(section_ + 40, at);
        }
        subjects[1] = {at, spec.infoPlist.size()};
    }

    static uint32_t magic(uint32_t slotType) {
        switch (slotType) {
        case 2:
            return 0xfade0c01;
        case 5:
            return 0xfade7171;
        case 7:
            return 0xfade7172;
        case 8:
        case 9:
        case 10:
        case 11:
            return 0xfade8181;
        default:
            return 0xfade0b01;
        }
    }

    void writeSignature() {
        superBlob = bytes.size();
        size_t count = spec.directories.size() + spec.blobs.size();
        bytes.append(12 + 8 * count + spec.gapAfterIndex, '\0');
        size_t entry = superBlob + 12;
        auto begin = [&](uint32_t type) {
            put32(bytes, entry, type), put32(bytes, entry + 4, bytes.size() - superBlob);
            entry += 8;
            blobAt[type] = bytes.size();
        };
        for (const auto &[type, contents] : spec.blobs) {
            begin(type);
            bytes.append(8, '\0');
            put32(bytes, bytes.size() - 8, magic(type)), put32(bytes, bytes.size() - 4, contents.size() + 8);
            if (type < 0x1000) {
                subjects[type] = {bytes.size() - 8, contents.size() + 8};
            }
            bytes += contents;
        }
        for (const DirectorySpec &directory : spec.directories) {
            begin(directory.slotType);
            writeDirectory(directory);
        }
        put32(bytes, superBlob, 0xfade0cc0), put32(bytes, superBlob + 4, bytes.size() - superBlob);
        put32(bytes, superBlob + 8, count);
        bytes.append(spec.padding, 'p');
        number(signatureCommand + 12, bytes.size() - superBlob);
    }

    static size_t directoryHeader(uint32_t version) {
        const std::pair<uint32_t, size_t> sizes[] = {{0x20600, 108}, {0x20500, 96}, {0x20400, 88},
                                                     {0x20300, 64},  {0x20200, 52}, {0x20100, 48},
                                                     {0, 44}};
        return std::find_if(std::begin(sizes), std::end(sizes), [&](auto &s) { return version >= s.first; })
            ->second;
    }

    size_t countSpecialSlots(const DirectorySpec &what) const {
        size_t count = subjects.empty() ? 0 : subjects.rbegin()->first;
        return what.externalSlots.empty() ? count
                                          : std::max<size_t>(count, what.externalSlots.rbegin()->first);
    }

    void writeDirectory(const DirectorySpec &what) {
        Directory place;
        place.at = bytes.size();
        place.hashSize = slotDigest(what.hashType, "").size();
        place.limit = what.codeLimit ? what.codeLimit : spec.codeSize;
        place.page = what.pageExponent ? size_t(1) << what.pageExponent : place.limit;
        place.codeSlots = (place.limit + place.page - 1) / place.page;
        place.specialSlots = countSpecialSlots(what);
        const size_t header = directoryHeader(what.version);
        bytes.append(header, '\0');
        bytes += what.identifier + '\0' + what.team + '\0';
        bytes.append(place.specialSlots * place.hashSize, '\0');
        place.slots = bytes.size();
        bytes.append(place.codeSlots * place.hashSize, '\0');
        const size_t at = place.at;
        put32(bytes, at, 0xfade0c02), put32(bytes, at + 4, bytes.size() - at);
        put32(bytes, at + 8, what.version), put32(bytes, at + 12, what.flags);
        put32(bytes, at + 16, place.slots - at), put32(bytes, at + 20, header);
        put32(bytes, at + 24, place.specialSlots), put32(bytes, at + 28, place.codeSlots);
        put32(bytes, at + 32, what.codeLimit64 ? 0 : place.limit);
        bytes[at + 36] = char(place.hashSize), bytes[at + 37] = char(what.hashType);
        bytes[at + 39] = char(what.pageExponent);
        if (!what.team.empty()) {
            put32(bytes, at + 48, header + what.identifier.size() + 1);
        }
        if (what.codeLimit64) {
            put64(bytes, at + 56, place.limit);
        }
        for (const auto &[slot, digest] : what.externalSlots) {
            bytes.replace(place.slot(-int64_t(slot)), place.hashSize, digest);
        }
        directories.push_back(place);
    }

    size_t section_ = 0;
};

/// Several files behind a table.
struct Fat {
    struct Part {
        uint32_t cpu = 0;
        std::string bytes;
    };

    explicit Fat(const std::vector<Part> &parts, bool is64 = false) {
        const size_t each = is64 ? 32 : 20;
        bytes.resize(8 + each * parts.size());
        put32(bytes, 0, is64 ? 0xcafebabf : 0xcafebabe), put32(bytes, 4, parts.size());
        for (size_t i = 0; i < parts.size(); ++i) {
            bytes.resize((bytes.size() + 255) / 256 * 256, 'g');
            at.push_back(bytes.size());
            size_t entry = 8 + i * each;
            put32(bytes, entry, parts[i].cpu);
            put(bytes, entry + 8, bytes.size(), is64 ? 8 : 4, true);
            put(bytes, entry + (is64 ? 16 : 12), parts[i].bytes.size(), is64 ? 8 : 4, true);
            bytes += parts[i].bytes;
        }
    }

    std::string bytes;
    std::vector<size_t> at; ///< where each part begins
};

/// A file in memory; reading outside of it ends the program.
class MemoryBytes : public MachoBytes {
  public:
    explicit MemoryBytes(std::string bytes) : bytes_(std::move(bytes)) {}
    uint64_t size() const override { return bytes_.size(); }
    void read(uint64_t offset, char *buffer, size_t size) const override {
        if (offset > bytes_.size() || size > bytes_.size() - offset) {
            std::abort();
        }
        bytes_.copy(buffer, size, offset);
        wasRead += size;
    }
    mutable uint64_t wasRead = 0;

  private:
    std::string bytes_;
};

inline std::string applied(std::string bytes, const std::vector<BytePatch> &patches) {
    for (const BytePatch &patch : patches) {
        bytes.replace(patch.offset, patch.bytes.size(), patch.bytes);
    }
    return bytes;
}

} // namespace firn::test
