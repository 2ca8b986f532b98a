#include "libstore/build/patch.hh"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "libutil/error.hh"

namespace firn {

namespace {

void checkPatch(const Patch &patch, uint64_t size, const std::string &path) {
    if (patch.place != Patch::Place::contents || patch.bytes.empty() || patch.bytes.size() > size ||
        patch.offset > size - patch.bytes.size()) {
        throw Error(ErrorKind::refused,
                    "the repair of '{}' wants to write {} bytes at {} of a file of {} bytes: refused",
                    escapeForDisplay(path), patch.bytes.size(), patch.offset, size);
    }
}

/// What is left of `patch` where none of `others` (ascending, not overlapping) lies over it.
void addUncovered(const Patch &patch, const std::vector<Patch> &others, std::vector<Patch> &pieces) {
    auto endsBehind = [](uint64_t offset, const Patch &other) { return offset < other.end(); };
    auto other = std::upper_bound(others.begin(), others.end(), patch.offset, endsBehind);
    uint64_t at = patch.offset;
    auto addUpTo = [&](uint64_t end) {
        if (at < end) {
            pieces.push_back({patch.place, at, patch.bytes.substr(at - patch.offset, end - at)});
        }
    };
    for (; other != others.end() && other->offset < patch.end(); ++other) {
        addUpTo(other->offset);
        at = other->end();
    }
    addUpTo(patch.end());
}

} // namespace

void mergePatches(std::vector<Patch> &patches, std::vector<Patch> further, uint64_t size,
                  const std::string &path) {
    for (const Patch &patch : further) {
        checkPatch(patch, size, path);
    }
    auto byOffset = [](const Patch &a, const Patch &b) { return a.offset < b.offset; };
    std::sort(further.begin(), further.end(), byOffset);
    auto overlaps = [](const Patch &a, const Patch &b) { return a.end() > b.offset; };
    auto found = std::adjacent_find(further.begin(), further.end(), overlaps);
    if (found != further.end()) {
        throw Error(ErrorKind::refused, "two patches of '{}' overlap at {}: refused", escapeForDisplay(path),
                    std::next(found)->offset);
    }
    std::vector<Patch> merged;
    merged.reserve(patches.size() + further.size());
    for (const Patch &patch : patches) {
        addUncovered(patch, further, merged);
    }
    std::move(further.begin(), further.end(), std::back_inserter(merged));
    std::sort(merged.begin(), merged.end(), byOffset);
    patches = std::move(merged);
}

size_t overlayPatches(const std::vector<Patch> &patches, size_t first, char *piece, size_t size,
                      uint64_t offset) {
    for (; first < patches.size() && patches[first].offset < offset + size; ++first) {
        const Patch &patch = patches[first];
        uint64_t begin = std::max(patch.offset, offset), end = std::min(patch.end(), offset + size);
        if (begin < end) {
            std::memcpy(piece + (begin - offset), patch.bytes.data() + (begin - patch.offset), end - begin);
        }
        if (patch.end() > offset + size) {
            break; // the next piece needs it too
        }
    }
    return first;
}

} // namespace firn
