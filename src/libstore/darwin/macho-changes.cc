#include "libstore/darwin/macho-changes.hh"

#include <algorithm>
#include <cstring>
#include <string>

#include "libstore/darwin/macho-bytes.hh"

namespace firn {

namespace {

constexpr uint64_t readSize = 256 * 1024;
/// How finely changes are told apart: a list of them stays small next to the file.
constexpr uint64_t grain = 4096;

/// The smallest range that holds every difference of two equally large pieces; of size 0 if they are equal.
ByteRange differing(std::string_view a, std::string_view b) {
    if (memcmp(a.data(), b.data(), a.size()) == 0) {
        return {};
    }
    size_t begin = 0, end = a.size();
    while (a[begin] == b[begin]) {
        ++begin;
    }
    while (a[end - 1] == b[end - 1]) {
        --end;
    }
    return {begin, end - begin};
}

} // namespace

std::vector<ByteRange> normalRanges(std::vector<ByteRange> ranges, uint64_t fileSize) {
    for (ByteRange &range : ranges) {
        range.offset = std::min(range.offset, fileSize);
        range.size = std::min(range.size, fileSize - range.offset);
    }
    std::sort(ranges.begin(), ranges.end(),
              [](const ByteRange &a, const ByteRange &b) { return a.offset < b.offset; });
    std::vector<ByteRange> result;
    for (const ByteRange &range : ranges) {
        if (range.size == 0) {
            continue;
        }
        if (result.empty() || result.back().end() < range.offset) {
            result.push_back(range);
        } else {
            ByteRange &last = result.back();
            last.size = std::max(last.end(), range.end()) - last.offset;
        }
    }
    return result;
}

MachoChanges::MachoChanges(const MachoBytes &before, const MachoBytes &after,
                           const std::vector<ByteRange> &touched)
    : before_(before), after_(after) {
    for (const ByteRange &range : normalRanges(touched, after.size())) {
        for (uint64_t at = range.offset; at < range.end(); at += readSize) {
            findIn({at, std::min(readSize, range.end() - at)});
        }
    }
}

void MachoChanges::findIn(const ByteRange &range) {
    std::string a = readPiece(before_, range), b = readPiece(after_, range);
    for (uint64_t at = 0; at < range.size; at += grain) {
        std::string_view left = std::string_view(a).substr(at, grain);
        ByteRange found = differing(left, std::string_view(b).substr(at, grain));
        if (found.size == 0) {
            continue;
        }
        found.offset += range.offset + at;
        if (!ranges_.empty() && ranges_.back().end() == found.offset) {
            ranges_.back().size += found.size;
        } else {
            ranges_.push_back(found);
        }
    }
}

bool MachoChanges::any(const ByteRange &range) const {
    auto first = std::lower_bound(ranges_.begin(), ranges_.end(), range.offset,
                                  [](const ByteRange &r, uint64_t offset) { return r.end() <= offset; });
    for (auto r = first; r != ranges_.end() && r->offset < range.end(); ++r) {
        ByteRange common = intersection(*r, range);
        bool withAnEnd = common.offset == r->offset || common.end() == r->end();
        if (common.size > 0 && (withAnEnd || differs(common))) {
            return true;
        }
    }
    return false;
}

bool MachoChanges::differs(const ByteRange &range) const {
    for (uint64_t at = range.offset; at < range.end(); at += readSize) {
        ByteRange piece{at, std::min(readSize, range.end() - at)};
        if (readPiece(before_, piece) != readPiece(after_, piece)) {
            return true;
        }
    }
    return false;
}

} // namespace firn
