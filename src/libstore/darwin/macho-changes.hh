#pragma once

#include <vector>

#include "libstore/darwin/macho-page-hashes.hh"

namespace firn {

/// Sorts ranges, joins those that meet, and cuts them to the file.
std::vector<ByteRange> normalRanges(std::vector<ByteRange> ranges, uint64_t fileSize);

/// Where two versions of a file differ, within given ranges. Reads these once, and later again only what it
/// is asked about.
class MachoChanges {
  public:
    MachoChanges(const MachoBytes &before, const MachoBytes &after, const std::vector<ByteRange> &touched);

    /// Ascending, not overlapping. Both ends of each differ, not necessarily everything in between.
    const std::vector<ByteRange> &ranges() const { return ranges_; }

    /// Whether any byte of this range differs.
    bool any(const ByteRange &range) const;

  private:
    void findIn(const ByteRange &range);
    bool differs(const ByteRange &range) const;

    const MachoBytes &before_;
    const MachoBytes &after_;
    std::vector<ByteRange> ranges_;
};

} // namespace firn
