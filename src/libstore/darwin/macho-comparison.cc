#include "libstore/darwin/macho-comparison.hh"

#include <algorithm>
#include <cstring>
#include <vector>

#include "libstore/darwin/macho-changes.hh"
#include "libstore/darwin/macho-slots.hh"

namespace firn {

namespace {

using Ranges = std::vector<ByteRange>;

bool sameBytes(const MachoBytes &first, const MachoBytes &second, ByteRange range) {
    constexpr uint64_t blockSize = 64 * 1024;
    std::vector<char> a(std::min(blockSize, range.size)), b(a.size());
    while (range.size > 0) {
        auto size = static_cast<size_t>(std::min<uint64_t>(a.size(), range.size));
        first.read(range.offset, a.data(), size);
        second.read(range.offset, b.data(), size);
        if (memcmp(a.data(), b.data(), size) != 0) {
            return false;
        }
        range = {range.offset + size, range.size - size};
    }
    return true;
}

bool sameIn(const MachoBytes &first, const MachoBytes &second, const Ranges &ranges) {
    return std::all_of(ranges.begin(), ranges.end(),
                       [&](const ByteRange &range) { return sameBytes(first, second, range); });
}

/// What of `whole` lies outside of the ranges, which are normal.
Ranges outside(const Ranges &ranges, const ByteRange &whole) {
    Ranges gaps;
    uint64_t begin = whole.offset;
    for (const ByteRange &range : ranges) {
        if (range.offset > begin && begin < whole.end()) {
            gaps.push_back({begin, std::min(range.offset, whole.end()) - begin});
        }
        begin = std::max(begin, range.end());
    }
    if (begin < whole.end()) {
        gaps.push_back({begin, whole.end() - begin});
    }
    return gaps;
}

/// The same images in the same places, with UUID and signature in the same places.
bool sameImages(const MachoFile &first, const MachoFile &second) {
    auto same = [](const MachoSlice &a, const MachoSlice &b) {
        return a.range == b.range && a.architecture == b.architecture && a.signature == b.signature &&
               a.uuid == b.uuid && a.problem.empty() && b.problem.empty();
    };
    return first.problem.empty() && second.problem.empty() &&
           std::equal(first.slices.begin(), first.slices.end(), second.slices.begin(), second.slices.end(),
                      same);
}

/// Where the slots over the UUID of one image lie, if they are in the same places in both files and each is
/// right in its own.
class UuidSlots {
  public:
    UuidSlots(const MachoBytes &first, const MachoBytes &second, const MachoSlice &slice)
        : first_(first), second_(second), slice_(slice) {}

    bool collect(Ranges &places) const {
        CodeSignature a = readCodeSignature(first_, slice_), b = readCodeSignature(second_, slice_);
        bool same = a.problem.empty() && b.problem.empty() && a.directories.size() == b.directories.size();
        for (size_t i = 0; same && i < a.directories.size(); ++i) {
            same = a.directories[i].state == CodeDirectory::State::judgeable &&
                   b.directories[i].state == CodeDirectory::State::judgeable &&
                   a.directories[i].sameLayout(b.directories[i]) && collectFrom(a, b, i, places);
        }
        return same;
    }

  private:
    bool collectFrom(const CodeSignature &a, const CodeSignature &b, size_t index, Ranges &places) const {
        SignedSlice firstSlice{slice_, a}, secondSlice{slice_, b};
        MachoSlots first(first_, firstSlice, firstSlice.signature.directories[index]);
        MachoSlots second(second_, secondSlice, secondSlice.signature.directories[index]);
        for (const SlotRun &run : first.codeSlotsOver({*slice_.uuid})) {
            for (int64_t slot = run.first; slot < run.end; ++slot) {
                ByteRange subject = *first.subject(slot);
                if (!first.isRight(slot, subject) || !second.isRight(slot, subject)) {
                    return false;
                }
                places.push_back(first.place(slot));
            }
        }
        return true;
    }

    const MachoBytes &first_, &second_;
    const MachoSlice &slice_;
};

bool onlyUuidAndItsSlots(const MachoBytes &first, const MachoBytes &second, const MachoFile &file) {
    Ranges allowed, signatures;
    for (const MachoSlice &slice : file.slices) {
        if (slice.signature) {
            signatures.push_back(*slice.signature);
        }
        if (slice.uuid && slice.signature && !UuidSlots(first, second, slice).collect(allowed)) {
            return false;
        }
    }
    allowed = normalRanges(std::move(allowed), first.size());
    return std::all_of(signatures.begin(), signatures.end(), [&](const ByteRange &signature) {
        return sameIn(first, second, outside(allowed, signature));
    });
}

MachoDifference classify(const MachoBytes &first, const MachoBytes &second, const MachoFile &file) {
    Ranges uuids, signatures;
    for (const MachoSlice &slice : file.slices) {
        if (slice.uuid) {
            uuids.push_back(*slice.uuid);
        }
        if (slice.signature) {
            signatures.push_back(*slice.signature);
        }
    }
    Ranges both = uuids;
    both.insert(both.end(), signatures.begin(), signatures.end());
    both = normalRanges(std::move(both), first.size());
    if (!sameIn(first, second, outside(both, {0, first.size()}))) {
        return MachoDifference::other;
    }
    bool sameUuid = sameIn(first, second, uuids), sameSignature = sameIn(first, second, signatures);
    if (sameUuid) {
        return sameSignature ? MachoDifference::none : MachoDifference::signature;
    }
    bool explained = onlyUuidAndItsSlots(first, second, file);
    return explained ? MachoDifference::uuid : MachoDifference::uuidAndSignature;
}

} // namespace

MachoComparison compareMacho(const MachoBytes &first, const MachoBytes &second) {
    MachoFile a = readMachoFile(first), b = readMachoFile(second);
    MachoComparison result;
    result.isMacho = a.isMacho && b.isMacho && !a.slices.empty() && !b.slices.empty();
    if (!result.isMacho) {
        return result;
    }
    bool comparable = first.size() == second.size() && sameImages(a, b);
    result.difference = comparable ? classify(first, second, a) : MachoDifference::other;
    result.firstStale = verifyPageHashes(first).anyStale();
    result.secondStale = verifyPageHashes(second).anyStale();
    return result;
}

} // namespace firn
