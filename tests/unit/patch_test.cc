#include <string>

#include <gtest/gtest.h>

#include "libstore/build/patch.hh"
#include "libutil/error.hh"

namespace firn {
namespace {

Patch at(uint64_t offset, std::string bytes) {
    return {Patch::Place::contents, offset, std::move(bytes)};
}

TEST(MergePatches, SortsThemByOffset) {
    std::vector<Patch> patches{at(10, "cc")};
    mergePatches(patches, {at(20, "d"), at(0, "aaa")}, 21, "file");
    ASSERT_EQ(patches.size(), 3u);
    EXPECT_EQ(patches[0].bytes + patches[1].bytes + patches[2].bytes, "aaaccd");
}

/// "10:cccc 14:x"
std::string shown(const std::vector<Patch> &patches) {
    std::string text;
    for (const Patch &patch : patches) {
        text += (text.empty() ? "" : " ") + std::to_string(patch.offset) + ":" + patch.bytes;
    }
    return text;
}

TEST(MergePatches, LaysTheFurtherOnesOverThoseThatAreThere) {
    auto merged = [](std::vector<Patch> patches, std::vector<Patch> further) {
        mergePatches(patches, std::move(further), 100, "file");
        return shown(patches);
    };
    EXPECT_EQ(merged({at(10, "cccc")}, {at(13, "x")}), "10:ccc 13:x");
    EXPECT_EQ(merged({at(10, "cccc")}, {at(8, "xyz")}), "8:xyz 11:ccc");
    EXPECT_EQ(merged({at(10, "cccc")}, {at(11, "xy")}), "10:c 11:xy 13:c");
    EXPECT_EQ(merged({at(10, "abcdef")}, {at(14, "y"), at(11, "x")}), "10:a 11:x 12:cd 14:y 15:f");
    EXPECT_EQ(merged({at(10, "cc"), at(12, "dd")}, {at(9, "123456")}), "9:123456");
    EXPECT_EQ(merged({at(10, "cccc")}, {at(14, "x"), at(8, "yz")}), "8:yz 10:cccc 14:x");
}

TEST(MergePatches, RefusesFurtherOnesThatOverlapEachOther) {
    std::vector<Patch> patches{at(10, "cccc")};
    EXPECT_THROW(mergePatches(patches, {at(20, "xyz"), at(22, "x")}, 100, "file"), Error);
    EXPECT_EQ(shown(patches), "10:cccc");
}

TEST(MergePatches, RefusesWhatReachesBeyondTheFile) {
    std::vector<Patch> patches;
    EXPECT_THROW(mergePatches(patches, {at(99, "xx")}, 100, "file"), Error);
    EXPECT_THROW(mergePatches(patches, {at(UINT64_MAX, "xx")}, 100, "file"), Error);
    EXPECT_THROW(mergePatches(patches, {at(0, "xx")}, 1, "file"), Error);
    mergePatches(patches, {at(98, "xx")}, 100, "file");
    EXPECT_EQ(patches.size(), 1u);
}

TEST(MergePatches, RefusesEmptyPatchesAndOtherPlaces) {
    std::vector<Patch> patches;
    EXPECT_THROW(mergePatches(patches, {at(5, "")}, 100, "file"), Error);
    EXPECT_THROW(mergePatches(patches, {{Patch::Place::entryName, 0, "x"}}, 100, "file"), Error);
}

TEST(OverlayPatches, GivesTheSameBytesWhateverThePieces) {
    std::vector<Patch> patches{at(0, "AB"), at(2, "CDEFGHIJ"), at(15, "P"), at(18, "ST")};
    const std::string plain = "abcdefghijklmnopqrst";
    for (size_t size = 1; size <= plain.size(); ++size) {
        std::string result;
        size_t patch = 0;
        for (size_t offset = 0; offset < plain.size(); offset += size) {
            std::string piece = plain.substr(offset, size);
            patch = overlayPatches(patches, patch, piece.data(), piece.size(), offset);
            result += piece;
        }
        EXPECT_EQ(result, "ABCDEFGHIJklmnoPqrST") << size;
    }
}

} // namespace
} // namespace firn
