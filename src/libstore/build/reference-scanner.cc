#include "libstore/build/reference-scanner.hh"

#include <algorithm>
#include <cstring>

#include "libutil/error.hh"

namespace firn {

namespace {

using DigitTable = std::array<bool, 256>;

constexpr DigitTable makeDigitTable() {
    DigitTable table{};
    for (char c : std::string_view("0123456789abcdfghijklmnpqrsvwxyz")) {
        table[static_cast<unsigned char>(c)] = true;
    }
    return table;
}

constexpr DigitTable digitTable = makeDigitTable();

inline bool isDigit(char c) {
    return digitTable[static_cast<unsigned char>(c)];
}

/// Mixed bits of a hash part's first eight digits, which hold 40 of its 160 bits: plenty.
inline size_t mixedBits(const char *text) {
    uint64_t head;
    std::memcpy(&head, text, sizeof head);
    return head * 0x9e3779b97f4a7c15u >> 32;
}

/// Number of bytes at the start of a window of 32 up to and including the last that is no digit; 0: all are.
inline size_t lastNonDigit(const char *window) {
    size_t end = HashPartSet::length;
    while (end > 0 && isDigit(window[end - 1])) {
        --end;
    }
    return end;
}

} // namespace

uint32_t HashPartSet::add(std::string_view hashPart) {
    if (hashPart.size() != length || lastNonDigit(hashPart.data()) != 0) {
        throw Error(ErrorKind::bug, "'{}' is not the hash part of a store path", escapeForDisplay(hashPart));
    }
    if (slots_.size() < 8 * (parts_.size() + 1)) {
        grow();
    }
    uint32_t found = UINT32_MAX;
    check(hashPart.data(), 0, [&](const PartHit &hit) { found = hit.part; });
    if (found == UINT32_MAX) {
        found = static_cast<uint32_t>(parts_.size());
        parts_.emplace_back(hashPart);
        insert(found);
    }
    return found;
}

void HashPartSet::grow() {
    slots_.assign(std::max<size_t>(64, 2 * slots_.size()), 0);
    filter_.assign(slots_.size() / 8, 0);
    for (uint32_t part = 0; part < parts_.size(); ++part) {
        insert(part);
    }
}

void HashPartSet::insert(uint32_t part) {
    size_t mask = slots_.size() - 1, bits = mixedBits(parts_[part].data());
    filter_[bits / 64 & (filter_.size() - 1)] |= uint64_t(1) << bits % 64;
    size_t slot = bits & mask;
    while (slots_[slot] != 0) {
        slot = (slot + 1) & mask;
    }
    slots_[slot] = part + 1;
}

inline void HashPartSet::check(const char *candidate, uint64_t offset, const OnPartHit &onHit) const {
    size_t mask = slots_.size() - 1, bits = mixedBits(candidate);
    if ((filter_[bits / 64 & (filter_.size() - 1)] >> bits % 64 & 1) == 0) {
        return;
    }
    for (size_t slot = bits & mask; slots_[slot] != 0; slot = (slot + 1) & mask) {
        uint32_t part = slots_[slot] - 1;
        if (std::memcmp(parts_[part].data(), candidate, length) == 0) {
            onHit({offset, part});
            return;
        }
    }
}

void HashPartSet::scan(std::string_view bytes, uint64_t base, const OnPartHit &onHit) const {
    if (parts_.empty() || bytes.size() < length) {
        return;
    }
    const char *const begin = bytes.data();
    const size_t last = bytes.size() - length; // where the last candidate starts
    for (size_t place = 0; place <= last;) {
        if (size_t skip = lastNonDigit(begin + place); skip > 0) {
            place += skip;
            continue;
        }
        // A run of digits: each further digit makes a further candidate.
        do {
            check(begin + place, base + place, onHit);
            ++place;
        } while (place <= last && isDigit(begin[place + length - 1]));
        place += length; // behind the byte that ended the run
    }
}

void ReferenceScanner::begin() {
    position_ = 0;
    carried_ = 0;
}

void ReferenceScanner::write(std::string_view block) {
    scanBorder(block);
    parts_.scan(block, position_, onHit_);
    carryOver(block);
    position_ += block.size();
}

/// Every occurrence that starts before the block and ends in it.
void ReferenceScanner::scanBorder(std::string_view block) {
    size_t head = std::min(block.size(), maxCarry);
    if (carried_ == 0 || head == 0) {
        return;
    }
    std::memcpy(carry_.data() + carried_, block.data(), head);
    parts_.scan({carry_.data(), carried_ + head}, position_ - carried_, onHit_);
}

void ReferenceScanner::carryOver(std::string_view block) {
    if (block.size() >= maxCarry) {
        std::memcpy(carry_.data(), block.data() + block.size() - maxCarry, maxCarry);
        carried_ = maxCarry;
        return;
    }
    std::memcpy(carry_.data() + carried_, block.data(), block.size());
    size_t total = carried_ + block.size();
    size_t keep = std::min(total, maxCarry);
    std::memmove(carry_.data(), carry_.data() + total - keep, keep);
    carried_ = keep;
}

} // namespace firn
