#include "libstore/darwin/macho-slots.hh"

#include <algorithm>

#include "libstore/darwin/macho-bytes.hh"

namespace firn {

namespace {

constexpr uint32_t slotTypeInfoPlist = 1;

/// Slots are read in pieces of this size: a few pages' slots are wanted of a directory of megabytes.
constexpr uint64_t slotsReadSize = 4096;

} // namespace

MachoSlots::MachoSlots(const MachoBytes &file, const SignedSlice &slice, const CodeDirectory &directory)
    : file_(file), slice_(slice), directory_(directory), digest_(file, directory.hashType) {}

std::vector<SlotRun> MachoSlots::codeSlotsOver(const std::vector<ByteRange> &ranges) const {
    uint64_t page = directory_.pageSize == 0 ? directory_.codeLimit : directory_.pageSize;
    return runsOver(ranges, {slice_.macho.range.offset, directory_.codeLimit}, page);
}

std::vector<SlotRun> MachoSlots::slotsIn(const std::vector<ByteRange> &ranges) const {
    uint64_t begin = place(specialEnd() + 1).offset;
    uint64_t end = place(codeEnd()).offset;
    std::vector<SlotRun> runs = runsOver(ranges, {begin, end - begin}, directory_.hashSize);
    for (SlotRun &run : runs) {
        run.first -= directory_.specialSlots;
        run.end -= directory_.specialSlots;
    }
    return runs;
}

/// The pieces, of size `each`, of a region that these ranges meet.
std::vector<SlotRun> MachoSlots::runsOver(const std::vector<ByteRange> &ranges, const ByteRange &region,
                                          uint64_t each) const {
    std::vector<SlotRun> runs;
    for (const ByteRange &range : ranges) {
        ByteRange common = intersection(range, region);
        if (common.size == 0) {
            continue;
        }
        int64_t first = int64_t((common.offset - region.offset) / each);
        int64_t end = int64_t((common.end() - 1 - region.offset) / each) + 1;
        if (!runs.empty() && first <= runs.back().end) {
            runs.back().end = std::max(runs.back().end, end);
        } else {
            runs.push_back({first, end});
        }
    }
    return runs;
}

std::optional<ByteRange> MachoSlots::subject(int64_t slot) const {
    if (slot < 0) {
        const SignatureBlob *blob = slice_.signature.blob(uint32_t(-slot));
        return blob                                  ? blob->range
               : slot == -int64_t(slotTypeInfoPlist) ? slice_.macho.infoPlist
                                                     : std::nullopt;
    }
    uint64_t page = directory_.pageSize == 0 ? directory_.codeLimit : directory_.pageSize;
    uint64_t begin = uint64_t(slot) * page;
    return ByteRange{slice_.macho.range.offset + begin, std::min(page, directory_.codeLimit - begin)};
}

bool MachoSlots::subjectIsGuessed(int64_t slot) const {
    return slot == -int64_t(slotTypeInfoPlist) && !slice_.signature.blob(slotTypeInfoPlist);
}

ByteRange MachoSlots::place(int64_t slot) const {
    return {directory_.hashOffset + uint64_t(slot * int64_t(directory_.hashSize)), directory_.hashSize};
}

std::string_view MachoSlots::stored(int64_t slot) {
    ByteRange wanted = place(slot);
    if (wanted.offset < bufferOffset_ ||
        !fitsInto(wanted.offset - bufferOffset_, wanted.size, buffer_.size())) {
        uint64_t size = std::min(slotsReadSize, place(codeEnd()).offset - wanted.offset);
        buffer_ = readPiece(file_, {wanted.offset, size});
        bufferOffset_ = wanted.offset;
    }
    return std::string_view(buffer_).substr(wanted.offset - bufferOffset_, wanted.size);
}

bool MachoSlots::inUse(int64_t slot) {
    return slot >= 0 || stored(slot).find_first_not_of('\0') != std::string_view::npos;
}

void MachoSlots::willCompute(const SlotRun &run) {
    digest_.readAhead(subject(run.end - 1)->end());
}

} // namespace firn
