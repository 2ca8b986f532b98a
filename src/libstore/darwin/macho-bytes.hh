#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "libstore/darwin/macho-page-hashes.hh"

// Small pieces that the readers of Mach-O files share. Leans on the standard library only, see
// macho-page-hashes.hh.

namespace firn {

enum class MachoByteOrder : uint8_t { little, big };

/// Numbers inside a piece of a file. The caller has checked that they lie in it.
class MachoFields {
  public:
    MachoFields(std::string_view bytes, MachoByteOrder order) : bytes_(bytes), order_(order) {}

    uint8_t u8(size_t at) const { return uint8_t(number(at, 1)); }
    uint32_t u32(size_t at) const { return uint32_t(number(at, 4)); }
    uint64_t u64(size_t at) const { return number(at, 8); }
    /// Characters of a field of fixed size, up to the first NUL.
    std::string_view name(size_t at, size_t size) const {
        std::string_view field = bytes_.substr(at, size);
        return field.substr(0, field.find('\0'));
    }
    MachoFields from(size_t at, size_t size) const { return {bytes_.substr(at, size), order_}; }
    size_t size() const { return bytes_.size(); }

  private:
    uint64_t number(size_t at, size_t size) const {
        assert(at <= bytes_.size() && size <= bytes_.size() - at);
        uint64_t value = 0;
        for (size_t i = 0; i < size; ++i) {
            size_t place = order_ == MachoByteOrder::big ? at + i : at + size - 1 - i;
            value = value << 8 | uint8_t(bytes_[place]);
        }
        return value;
    }

    std::string_view bytes_;
    MachoByteOrder order_;
};

/// Whether [offset, offset + size) lies in [0, whole), whatever the numbers.
inline bool fitsInto(uint64_t offset, uint64_t size, uint64_t whole) {
    return offset <= whole && size <= whole - offset;
}

inline bool overlap(const ByteRange &a, const ByteRange &b) {
    return a.offset < b.end() && b.offset < a.end();
}

/// What two ranges have in common; of size 0 if that is nothing.
inline ByteRange intersection(const ByteRange &a, const ByteRange &b) {
    uint64_t begin = a.offset > b.offset ? a.offset : b.offset;
    uint64_t end = a.end() < b.end() ? a.end() : b.end();
    return {begin, end > begin ? end - begin : 0};
}

/// A small piece of a file, which must lie in it.
inline std::string readPiece(const MachoBytes &file, const ByteRange &range) {
    std::string bytes(range.size, '\0');
    if (range.size > 0) {
        file.read(range.offset, bytes.data(), bytes.size());
    }
    return bytes;
}

} // namespace firn
