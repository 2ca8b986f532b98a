// A file, and where it holds self-references: the last byte says how many there are, and each is three bytes
// before that. Whatever the file is, it is left alone or has one normal form, whichever form one starts from.

#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "libstore/darwin/macho-normal-form.hh"
#include "tests/unit/macho-builder.hh"

namespace {

using namespace firn;
using test::applied;
using test::MemoryBytes;

using Offsets = std::vector<uint64_t>;

const std::string hashPart = "0123456789abcdfghijklmnpqrsvwxyz";
const std::string otherHashPart = "zyxwvsrqpnmlkjihgfdcba9876543210";

void require(bool condition) {
    if (!condition) {
        std::abort();
    }
}

struct Input {
    std::string bytes;
    Offsets selfReferences;
};

Input split(std::string_view data) {
    Input input;
    if (data.empty()) {
        return input;
    }
    size_t count = std::min<size_t>(uint8_t(data.back()) % 17, (data.size() - 1) / 3);
    size_t end = data.size() - 1 - count * 3;
    input.bytes = data.substr(0, end);
    for (size_t at = end; at < data.size() - 1; at += 3) {
        input.selfReferences.push_back(uint64_t(uint8_t(data[at])) << 16 | uint8_t(data[at + 1]) << 8 |
                                       uint8_t(data[at + 2]));
    }
    std::sort(input.selfReferences.begin(), input.selfReferences.end());
    return input;
}

void requireSamePlaces(const std::vector<BytePatch> &a, const std::vector<BytePatch> &b) {
    require(std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const BytePatch &x, const BytePatch &y) {
        return x.offset == y.offset && x.bytes.size() == y.bytes.size();
    }));
}

/// Ascending, and each a self-reference, a UUID or a slot.
void requireOrder(const std::vector<BytePatch> &patches, const Input &input) {
    uint64_t end = 0, selfReferences = 0;
    for (const BytePatch &patch : patches) {
        require(patch.offset >= end && patch.bytes.size() >= 16);
        end = patch.offset + patch.bytes.size();
        selfReferences +=
            std::binary_search(input.selfReferences.begin(), input.selfReferences.end(), patch.offset);
    }
    require(end <= input.bytes.size() && selfReferences == input.selfReferences.size());
}

void requireOutside(const Input &input, const MachoNormalForm &normal) {
    require(!normal.reason.empty() && normal.reason.size() < 250 && normal.patches.empty());
    require(machoFinalFormProblem(MemoryBytes(input.bytes), input.selfReferences, hashPart) == normal.reason);
}

/// Another build of the same: in these places stands something else, but zeros only where there were some.
std::string otherBuild(std::string bytes, const std::vector<BytePatch> &places,
                       const Offsets &selfReferences) {
    for (const BytePatch &place : places) {
        bool self = std::binary_search(selfReferences.begin(), selfReferences.end(), place.offset);
        bytes.replace(place.offset, place.bytes.size(),
                      self ? otherHashPart : std::string(place.bytes.size(), 'o'));
    }
    return bytes;
}

void requireFinal(const std::string &final, const Offsets &selfReferences,
                  const std::vector<BytePatch> &places) {
    require(!machoFinalFormProblem(MemoryBytes(final), selfReferences, hashPart));
    for (const BytePatch &repair : repairAllPageHashes(MemoryBytes(final)).patches) {
        require(std::none_of(places.begin(), places.end(),
                             [&](const BytePatch &place) { return place.offset == repair.offset; }));
    }
    std::string changed = final;
    const BytePatch &place = places[final.size() % places.size()];
    changed[place.offset] = char(changed[place.offset] ^ 0x10);
    require(machoFinalFormProblem(MemoryBytes(changed), selfReferences, hashPart).has_value());
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Input input = split({reinterpret_cast<const char *>(data), size});
    const Offsets &selfReferences = input.selfReferences;
    MachoNormalForm normal = machoNormalForm(MemoryBytes(input.bytes), selfReferences);
    if (!normal.inside) {
        requireOutside(input, normal);
        return 0;
    }
    requireOrder(normal.patches, input);
    const std::string form = applied(input.bytes, normal.patches);
    auto finalPatches = machoFinalForm(MemoryBytes(form), selfReferences, hashPart);
    const std::string final = applied(form, finalPatches);
    requireSamePlaces(finalPatches, normal.patches);
    requireFinal(final, selfReferences, finalPatches);
    for (const std::string &same : {form, final, otherBuild(input.bytes, normal.patches, selfReferences)}) {
        MachoNormalForm again = machoNormalForm(MemoryBytes(same), selfReferences);
        require(again.inside);
        requireSamePlaces(again.patches, normal.patches);
        require(applied(same, again.patches) == form);
    }
    return 0;
}
