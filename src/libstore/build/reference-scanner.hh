#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

// Store paths are recognised inside any bytes by their hash part alone: 32 digits of Nix's base-32. There is
// no syntax around them that could be relied on (they stand in ELF run paths, scripts, pickles, compressed-
// then-stored tables), and 160 bits do not occur by chance. What a builder hides (by compressing, by writing
// UTF-16) is not found; stock Nix has the same limit.

namespace firn {

/// An occurrence of one of the wanted hash parts.
struct PartHit {
    uint64_t offset; ///< bytes, of its first digit
    uint32_t part;   ///< as HashPartSet::add() returned it
    auto operator<=>(const PartHit &) const = default;
};

/// Called in ascending order of offsets.
using OnPartHit = std::function<void(const PartHit &)>;

/// The hash parts to look for. Thread-safe once filled.
class HashPartSet {
  public:
    static constexpr size_t length = 32;

    /// Returns the number that hits will carry: ascending from 0, the same for the same text. Throws
    /// ErrorKind::bug unless it is 32 base-32 digits.
    uint32_t add(std::string_view hashPart);

    size_t size() const { return parts_.size(); }
    const std::string &text(uint32_t part) const { return parts_[part]; }

    /// Reports every occurrence that lies wholly in `bytes`, overlapping ones too. `base` is added to the
    /// offsets. A byte that is no base-32 digit rules out 32 places at once, so most of the bytes are never
    /// looked at; a long run of digits costs one table look-up per byte.
    void scan(std::string_view bytes, uint64_t base, const OnPartHit &onHit) const;

  private:
    void grow();
    void insert(uint32_t part);
    void check(const char *candidate, uint64_t offset, const OnPartHit &onHit) const;

    std::vector<std::string> parts_;
    std::vector<uint32_t> slots_; ///< open addressing: number + 1, or 0; a power of two, at most 1/8 full
    std::vector<uint64_t>
        filter_; ///< eight bits for each slot, of which at most 1/64 are set: small and fast
};

/// Scans a stream that comes in blocks of any size; an occurrence across blocks is found as well.
class ReferenceScanner {
  public:
    /// `parts` must outlive the scanner.
    ReferenceScanner(const HashPartSet &parts, OnPartHit onHit) : parts_(parts), onHit_(std::move(onHit)) {}

    /// The next object begins: offsets start at 0 again, nothing is carried over.
    void begin();
    void write(std::string_view block);

  private:
    static constexpr size_t maxCarry = HashPartSet::length - 1;

    void scanBorder(std::string_view block);
    void carryOver(std::string_view block);

    const HashPartSet &parts_;
    OnPartHit onHit_;
    uint64_t position_ = 0;                ///< offset of the next block
    std::array<char, 2 * maxCarry> carry_; ///< the last bytes before the next block, then room for its first
    size_t carried_ = 0;
};

} // namespace firn
