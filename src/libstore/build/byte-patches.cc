#include "libstore/build/byte-patches.hh"

#include <algorithm>
#include <string>

#include "libutil/positioned-io.hh"

namespace firn {

std::vector<Patch> asPatches(std::vector<BytePatch> bytes) {
    std::vector<Patch> patches;
    patches.reserve(bytes.size());
    for (BytePatch &patch : bytes) {
        patches.push_back({Patch::Place::contents, patch.offset, std::move(patch.bytes)});
    }
    return patches;
}

bool holds(int file, const std::vector<BytePatch> &patches) {
    return std::ranges::all_of(patches, [&](const BytePatch &patch) {
        std::string there(patch.bytes.size(), '\0');
        readFullAt(file, patch.offset, there.data(), there.size());
        return there == patch.bytes;
    });
}

} // namespace firn
