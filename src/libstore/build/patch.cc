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

} // namespace

void mergePatches(std::vector<Patch> &patches, std::vector<Patch> further, uint64_t size,
                  const std::string &path) {
    for (const Patch &patch : further) {
        checkPatch(patch, size, path);
    }
    std::move(further.begin(), further.end(), std::back_inserter(patches));
    std::sort(patches.begin(), patches.end(),
              [](const Patch &a, const Patch &b) { return a.offset < b.offset; });
    auto overlaps = [](const Patch &a, const Patch &b) { return a.end() > b.offset; };
    auto found = std::adjacent_find(patches.begin(), patches.end(), overlaps);
    if (found != patches.end()) {
        throw Error(ErrorKind::refused, "two patches of '{}' overlap at {}: refused", escapeForDisplay(path),
                    std::next(found)->offset);
    }
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
