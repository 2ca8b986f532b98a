#include "libstore/darwin/macho-comparison.hh"

#include <gtest/gtest.h>

#include "unit/macho-builder.hh"

namespace firn {
namespace {

using test::Image;
using test::ImageSpec;
using test::MemoryBytes;

MachoComparison compare(const std::string &first, const std::string &second) {
    return compareMacho(MemoryBytes(first), MemoryBytes(second));
}

std::string withByte(std::string bytes, size_t place) {
    bytes.at(place) = char(bytes.at(place) ^ 0x55);
    return bytes;
}

/// As a linker would have made it.
std::string withUuid(const Image &image) {
    return image.sign(withByte(image.bytes, image.uuidCommand + 8 + 15));
}

TEST(MachoComparison, TheSameBytesDoNotDiffer) {
    Image image;
    MachoComparison found = compare(image.bytes, image.bytes);
    EXPECT_TRUE(found.isMacho);
    EXPECT_EQ(found.difference, MachoDifference::none);
    EXPECT_FALSE(found.firstStale || found.secondStale);
}

TEST(MachoComparison, AUuidWithItsSlotsIsKnownInEveryKindOfImage) {
    for (bool big : {false, true}) {
        for (bool is64 : {false, true}) {
            for (uint8_t hashType : {1, 2, 3, 4}) {
                for (uint8_t page : {0, 12, 14}) {
                    ImageSpec spec;
                    spec.big = big;
                    spec.is64 = is64;
                    spec.directories = {{.hashType = hashType, .pageExponent = page}};
                    Image image(spec);
                    EXPECT_EQ(compare(image.bytes, withUuid(image)).difference, MachoDifference::uuid);
                }
            }
        }
    }
}

TEST(MachoComparison, EveryDirectorysSlotsBelongToAUuid) {
    ImageSpec spec;
    spec.directories = {{.hashType = 1}, {.slotType = 0x1000}};
    Image image(spec);
    EXPECT_EQ(compare(image.bytes, withUuid(image)).difference, MachoDifference::uuid);
    std::string half = withUuid(image);
    half.replace(image.directories[1].slot(0), 32, image.bytes.substr(image.directories[1].slot(0), 32));
    MachoComparison found = compare(image.bytes, half);
    EXPECT_EQ(found.difference, MachoDifference::uuidAndSignature);
    EXPECT_FALSE(found.firstStale);
    EXPECT_TRUE(found.secondStale);
}

TEST(MachoComparison, AnUnsignedProgramHasJustItsUuid) {
    ImageSpec spec;
    spec.isSigned = false;
    Image image(spec);
    EXPECT_EQ(compare(image.bytes, withByte(image.bytes, image.uuidCommand + 8)).difference,
              MachoDifference::uuid);
}

TEST(MachoComparison, AUuidWhoseSlotIsStaleIsNotExplained) {
    Image image;
    std::string stale = withByte(image.bytes, image.uuidCommand + 8);
    MachoComparison found = compare(stale, image.bytes);
    EXPECT_EQ(found.difference, MachoDifference::uuidAndSignature);
    EXPECT_TRUE(found.firstStale);
    EXPECT_FALSE(found.secondStale);
}

TEST(MachoComparison, AnotherSlotIsADifferenceOfTheSignature) {
    Image image;
    size_t last = image.directories[0].slot(3);
    EXPECT_EQ(compare(image.bytes, withByte(image.bytes, last)).difference, MachoDifference::signature);
    EXPECT_EQ(compare(image.bytes, withByte(withUuid(image), last)).difference,
              MachoDifference::uuidAndSignature);
    EXPECT_EQ(compare(image.bytes, withByte(image.bytes, last)).secondStale, true);
}

TEST(MachoComparison, ACmsSignatureIsADifferenceOfTheSignature) {
    ImageSpec spec;
    spec.blobs = {{0x10000, "some signer's words"}};
    Image image(spec);
    size_t place = image.blobAt.at(0x10000) + 10;
    EXPECT_EQ(compare(image.bytes, withByte(image.bytes, place)).difference, MachoDifference::signature);
    EXPECT_EQ(compare(image.bytes, withByte(withUuid(image), place)).difference,
              MachoDifference::uuidAndSignature);
}

TEST(MachoComparison, AnyByteElsewhereIsAnotherDifference) {
    Image image;
    size_t beforeUuid = image.uuidCommand - 1, afterUuid = image.uuidCommand + 24 + 16;
    for (size_t place : {size_t{24}, beforeUuid, afterUuid, size_t{5000}, image.superBlob - 1}) {
        EXPECT_EQ(compare(image.bytes, image.sign(withByte(image.bytes, place))).difference,
                  MachoDifference::other)
            << place;
    }
    EXPECT_EQ(compare(image.bytes, image.bytes + "x").difference, MachoDifference::other);
}

TEST(MachoComparison, EverySliceOfAFatFileCounts) {
    ImageSpec other;
    other.cpu = 0x01000007;
    Image arm, intel(other);
    auto fat = [](const std::string &a, const std::string &b) {
        return test::Fat({{0x0100000c, a}, {0x01000007, b}}).bytes;
    };
    std::string first = fat(arm.bytes, intel.bytes);
    EXPECT_EQ(compare(first, fat(withUuid(arm), withUuid(intel))).difference, MachoDifference::uuid);
    EXPECT_EQ(compare(first, fat(arm.bytes, withUuid(intel))).difference, MachoDifference::uuid);
    EXPECT_EQ(compare(first, fat(withUuid(arm), intel.sign(withByte(intel.bytes, 5000)))).difference,
              MachoDifference::other);
    EXPECT_EQ(compare(first, fat(intel.bytes, arm.bytes)).difference, MachoDifference::other);
}

TEST(MachoComparison, WhatIsNoMachOIsNotCompared) {
    Image image;
    for (const std::string &bytes : {std::string(), std::string(500, '.'), image.bytes.substr(0, 3),
                                     std::string("\xca\xfe\xba\xbe\0\0\0\x34 class", 14)}) {
        for (const MachoComparison &found : {compare(image.bytes, bytes), compare(bytes, image.bytes)}) {
            EXPECT_FALSE(found.isMacho);
            EXPECT_EQ(found.difference, MachoDifference::none);
        }
    }
}

TEST(MachoComparison, AMalformedImageIsAnotherDifferenceWithoutACrash) {
    Image image;
    for (size_t size = 4; size < image.bytes.size(); size += 97) {
        MachoComparison found = compare(image.bytes, image.bytes.substr(0, size));
        EXPECT_TRUE(!found.isMacho || found.difference == MachoDifference::other) << size;
    }
    for (size_t place = 4; place < image.commandsEnd; ++place) {
        MachoDifference found = compare(image.bytes, withByte(image.bytes, place)).difference;
        bool inUuid = place >= image.uuidCommand + 8 && place < image.uuidCommand + 24;
        EXPECT_TRUE(found == (inUuid ? MachoDifference::uuidAndSignature : MachoDifference::other) ||
                    (!inUuid && found == MachoDifference::none))
            << place;
    }
}

} // namespace
} // namespace firn
