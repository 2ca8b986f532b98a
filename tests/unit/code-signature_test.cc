#include "libstore/darwin/code-signature.hh"

#include <gtest/gtest.h>

#include "tests/unit/macho-builder.hh"
#include "tests/unit/macho-malformed.hh"
#include "tests/unit/macho-seeds.hh"

namespace firn {
namespace {

using namespace test;
using State = CodeDirectory::State;

CodeSignature read(const std::string &bytes) {
    MemoryBytes file(bytes);
    return readCodeSignature(file, readMachoFile(file).slices.at(0));
}

TEST(CodeSignature, HasTheFieldsOfItsDirectories) {
    ImageSpec spec;
    spec.directories[0] = {
        .hashType = 1, .version = 0x20500, .flags = 0x10002, .identifier = "org.example.one"};
    spec.directories.push_back({.slotType = 0x1000, .pageExponent = 14, .identifier = "two"});
    spec.blobs = {{2, "requirement"}, {5, "entitlements"}, {0x10000, ""}};
    spec.padding = 7;
    Image image(spec);
    CodeSignature signature = read(image.bytes);
    EXPECT_EQ(signature.problem, "");
    EXPECT_EQ(signature.kind, SignatureKind::adHoc);
    EXPECT_EQ(signature.index, (ByteRange{image.superBlob, 12 + 5 * 8}));
    ASSERT_EQ(signature.directories.size(), 2u);
    const CodeDirectory &one = signature.directories[0], &two = signature.directories[1];
    EXPECT_EQ(one.state, State::judgeable);
    EXPECT_EQ(one.range.offset, image.directories[0].at);
    EXPECT_EQ(one.version, 0x20500u);
    EXPECT_EQ(one.flags, 0x10002u);
    EXPECT_EQ(one.identifier, "org.example.one");
    EXPECT_EQ(one.hashType, 1);
    EXPECT_EQ(one.hashSize, 20);
    EXPECT_EQ(one.pageSize, 4096u);
    EXPECT_EQ(one.codeLimit, spec.codeSize);
    EXPECT_EQ(one.codeSlots, 4u);
    EXPECT_EQ(one.specialSlots, 5u);
    EXPECT_EQ(one.hashOffset, image.directories[0].slots);
    EXPECT_EQ(two.slotType, 0x1000u);
    EXPECT_EQ(two.pageSize, 16384u);
    EXPECT_EQ(two.codeSlots, 1u);
    EXPECT_EQ(two.hashSize, 32);
    ASSERT_NE(signature.blob(5), nullptr);
    EXPECT_EQ(signature.blob(5)->range, (ByteRange{image.blobAt[5], 8 + 12}));
    EXPECT_EQ(signature.blob(7), nullptr);
}

TEST(CodeSignature, KindIsToldByTheCmsBlobAndThenByTheFlags) {
    EXPECT_EQ(read(Image(machoSpecs()["plain"]).bytes).kind, SignatureKind::linkerSigned);
    EXPECT_EQ(read(Image(machoSpecs()["blobs"]).bytes).kind, SignatureKind::adHoc);
    EXPECT_EQ(read(Image(machoSpecs()["cms"]).bytes).kind, SignatureKind::cms);
    EXPECT_EQ(read(Image(machoSpecs()["unsigned"]).bytes).kind, SignatureKind::none);
}

TEST(CodeSignature, EveryVersionIsRead) {
    for (uint32_t version :
         {0x20000u, 0x20001u, 0x20100u, 0x20200u, 0x20300u, 0x20400u, 0x20500u, 0x20600u}) {
        ImageSpec spec;
        spec.directories[0].version = version;
        CodeSignature signature = read(Image(spec).bytes);
        ASSERT_EQ(signature.directories.size(), 1u);
        EXPECT_EQ(signature.directories[0].problem, "") << version;
        EXPECT_EQ(signature.directories[0].identifier, "hello");
    }
}

TEST(CodeSignature, CodeLimit64IsUsedWhereItIsNotZero) {
    ImageSpec spec;
    spec.directories[0].codeLimit64 = true;
    Image image(spec);
    EXPECT_EQ(read(image.bytes).directories[0].codeLimit, spec.codeSize);
    EXPECT_EQ(read(image.bytes).directories[0].problem, "");
}

TEST(CodeSignature, CodeLimit64WinsOverAConflictingCodeLimit) {
    ImageSpec spec;
    spec.directories[0].codeLimit64 = true;
    Image image(spec);
    put32(image.bytes, image.directories[0].at + 32, 4096);
    EXPECT_EQ(read(image.bytes).directories[0].codeLimit, spec.codeSize);
    EXPECT_FALSE(verifyPageHashes(MemoryBytes(image.bytes)).anyStale());
}

TEST(CodeSignature, DirectoriesThatDisagreeAreEachTakenForThemselves) {
    ImageSpec spec;
    spec.directories.push_back({.slotType = 0x1000, .hashType = 4, .pageExponent = 0, .codeLimit = 5000});
    Image image(spec);
    MachoReport report = verifyPageHashes(MemoryBytes(image.bytes));
    EXPECT_FALSE(report.anyProblem());
    EXPECT_FALSE(report.anyStale());
    EXPECT_EQ(report.slices[0].directories[1].codeLimit, 5000u);
}

TEST(CodeSignature, AMalformedDirectoryLeavesTheOthersAlone) {
    ImageSpec spec;
    spec.directories.push_back({.slotType = 0x1000, .hashType = 1});
    Image image(spec);
    image.bytes[image.directories[0].at + 39] = 31;
    CodeSignature signature = read(image.bytes);
    EXPECT_EQ(signature.directories.at(0).state, State::malformed);
    EXPECT_EQ(signature.directories.at(1).state, State::judgeable);
}

class MalformedSignature : public testing::TestWithParam<Malformed> {};

TEST_P(MalformedSignature, IsRefused) {
    expectRefused(GetParam());
}

ImageSpec withBlobs() {
    ImageSpec spec = smallSpec();
    spec.blobs = {{2, "requirement"}, {5, "entitlements"}};
    return spec;
}

/// The entry of the index, in the order 2, 5, 0.
size_t entry(const Image &image, size_t i) {
    return image.superBlob + 12 + 8 * i;
}

std::vector<Malformed> malformedSuperBlobs() {
    std::vector<Malformed> cases;
    auto add = [&](const std::string &name, const std::string &problem, auto &&change) {
        Image image(withBlobs());
        change(image, image.bytes);
        cases.push_back({name, image.bytes, problem});
    };
    using I = Image &;
    using B = std::string &;
    const char *number = "impossible number", *size = "SuperBlob has an impossible size";
    const char *outside = "lies outside", *blobSize = "blob of the signature has an impossible size";
    add("TooSmall", "too short", [](I i, B b) { put(b, i.signatureCommand + 12, 11, 4, false); });
    add("Empty", "too short", [](I i, B b) { put(b, i.signatureCommand + 12, 0, 4, false); });
    add("WrongMagic", "no SuperBlob", [](I i, B b) { b[i.superBlob] = 0; });
    add("LengthUnder12", size, [](I i, B b) { put32(b, i.superBlob + 4, 11); });
    add("LengthOverDatasize", size, [](I i, B b) { put32(b, i.superBlob + 4, b.size() - i.superBlob + 1); });
    add("HugeLength", size, [](I i, B b) { put32(b, i.superBlob + 4, 0xffffffff); });
    add("HugeCount", number, [](I i, B b) { put32(b, i.superBlob + 8, 0xffffffff); });
    add("CountWrapping32Bits", number, [](I i, B b) { put32(b, i.superBlob + 8, 0x20000003); });
    add("CountBeyondTheLength", number, [](I i, B b) { put32(b, i.superBlob + 8, 60); });
    add("OffsetInsideTheIndex", outside, [](I i, B b) { put32(b, entry(i, 0) + 4, 35); });
    add("OffsetZero", outside, [](I i, B b) { put32(b, entry(i, 0) + 4, 0); });
    add("OffsetPastTheEnd", outside, [](I i, B b) { put32(b, entry(i, 0) + 4, b.size() - i.superBlob - 7); });
    add("OffsetHuge", outside, [](I i, B b) { put32(b, entry(i, 0) + 4, 0xfffffffc); });
    add("BlobLengthUnder8", blobSize, [](I i, B b) { put32(b, i.blobAt[5] + 4, 7); });
    add("BlobLengthPastTheEnd", blobSize, [](I i, B b) { put32(b, i.blobAt[5] + 4, b.size()); });
    add("BlobLengthHuge", blobSize, [](I i, B b) { put32(b, i.blobAt[5] + 4, 0xffffffff); });
    add("DirectoryLengthOverTheSuperBlob", blobSize,
        [](I i, B b) { put32(b, i.directories[0].at + 4, b.size() - i.directories[0].at + 1); });
    add("DuplicateSlots", "two blobs of one kind", [](I i, B b) { put32(b, entry(i, 1), 2); });
    add("OverlappingBlobs", "overlap", [](I i, B b) { put32(b, i.blobAt[2] + 4, 24); });
    add("TwoEntriesForOneDirectory", "overlap", [](I i, B b) {
        put32(b, entry(i, 1), 0x1000), put32(b, entry(i, 1) + 4, i.directories[0].at - i.superBlob);
    });
    add("NoDirectory", "no primary", [](I i, B b) { put32(b, entry(i, 2), 3); });
    add("NoBlobs", "no primary", [](I i, B b) { put32(b, i.superBlob + 8, 0); });
    add("OnlyAnAlternate", "no primary", [](I i, B b) { put32(b, entry(i, 2), 0x1000); });
    return cases;
}

INSTANTIATE_TEST_SUITE_P(SuperBlob, MalformedSignature, testing::ValuesIn(malformedSuperBlobs()),
                         malformedName);

std::vector<Malformed> malformedDirectories() {
    std::vector<Malformed> cases;
    auto add = [&](const std::string &name, const std::string &problem, auto &&change) {
        ImageSpec spec = smallSpec();
        spec.directories[0].team = "TEAM";
        Image image(spec);
        change(image.bytes, image.directories[0].at, image);
        cases.push_back({name, image.bytes, problem});
    };
    using I = Image &;
    using B = std::string &;
    add("LengthUnder44", "it is too short", [](B b, size_t d, I) { put32(b, d + 4, 43); });
    add("LengthWithoutSlots", "beyond its end", [](B b, size_t d, I) { put32(b, d + 4, 120); });
    add("OtherMagic", "no CodeDirectory", [](B b, size_t d, I) { b[d] = 0; });
    for (uint32_t version : {0u, 0x1ffffu, 0x2f000u, 0x30000u, 0xffffffffu}) {
        add("Version" + std::to_string(version), "version is not known",
            [&](B b, size_t d, I) { put32(b, d + 8, version); });
    }
    add("HashSizeNotOfItsType", "does not fit", [](B b, size_t d, I) { b[d + 36] = 20; });
    add("HashSizeZero", "does not fit", [](B b, size_t d, I) { b[d + 36] = 0; });
    add("HashSizeZeroOfUnknownType", "does not fit", [](B b, size_t d, I) { b[d + 36] = 0, b[d + 37] = 99; });
    for (int exponent : {1, 8, 25, 31, 32, 63, 64, 255}) {
        add("PageExponent" + std::to_string(exponent), "page size is impossible",
            [&](B b, size_t d, I) { b[d + 39] = char(exponent); });
    }
    add("TooFewSlots", "too few", [](B b, size_t d, I) { put32(b, d + 28, 1); });
    add("NoSlots", "too few", [](B b, size_t d, I) { put32(b, d + 28, 0); });
    add("TooManySlots", "too many", [](B b, size_t d, I) { put32(b, d + 32, 512); });
    add("TooManySlotsForOnePage", "too many", [](B b, size_t d, I) { b[d + 39] = 0; });
    add("SlotsBeyondTheEnd", "beyond its end", [](B b, size_t d, I) { put32(b, d + 28, 3); });
    add("SlotsWrapping32Bits", "beyond its end", [](B b, size_t d, I) { put32(b, d + 28, 0x08000002); });
    add("HugeNumberOfSlots", "beyond its end", [](B b, size_t d, I) { put32(b, d + 28, 0xffffffff); });
    add("SlotsOverTheHeader", "over its header", [](B b, size_t d, I) { put32(b, d + 16, 87); });
    add("SlotsHugeOffset", "beyond its end", [](B b, size_t d, I) { put32(b, d + 16, 0xfffffff0); });
    add("SlotsOverTheIdentifier", "over its identifier", [](B b, size_t d, I) { put32(b, d + 16, 88); });
    add("SlotsOverTheTeam", "over its team", [](B b, size_t d, I) { put32(b, d + 16, 97); });
    add("SpecialSlotsOverTheHeader", "over its header", [](B b, size_t d, I) { put32(b, d + 24, 200); });
    add("SpecialSlotsOverTheIdentifier", "over its identifier", [](B b, size_t d, I i) {
        put32(b, d + 24, 1), put32(b, d + 16, i.directories[0].slots - d + 21), put32(b, d + 28, 1);
        put32(b, d + 32, 512);
    });
    add("HugeNumberOfSpecialSlots", "more special slots",
        [](B b, size_t d, I) { put32(b, d + 24, 0xffffffff); });
    add("CodeLimit0", "covers nothing", [](B b, size_t d, I) { put32(b, d + 32, 0); });
    add("CodeLimitPastTheSlice", "more than there is",
        [](B b, size_t d, I) { put32(b, d + 32, b.size() + 1); });
    add("CodeLimit64PastTheSlice", "more than there is",
        [](B b, size_t d, I) { put64(b, d + 56, UINT64_MAX); });
    add("CodeLimitIntoTheSignature", "signature itself",
        [](B b, size_t d, I i) { put32(b, d + 32, i.superBlob + 1); });
    add("IdentifierOutside", "identifier lies outside",
        [](B b, size_t d, I) { put32(b, d + 20, 0xffffffff); });
    add("IdentifierInTheHeader", "identifier lies outside", [](B b, size_t d, I) { put32(b, d + 20, 87); });
    add("IdentifierWithoutEnd", "identifier has no end", [](B b, size_t d, I) {
        b.back() = 'x';
        put32(b, d + 20, b.size() - 1 - d);
    });
    add("TeamOutside", "team lies outside", [](B b, size_t d, I) { put32(b, d + 48, 0x7fffffff); });
    add("TeamWithoutEnd", "team has no end", [](B b, size_t d, I) {
        b.back() = 'x';
        put32(b, d + 48, b.size() - 1 - d);
    });
    return cases;
}

INSTANTIATE_TEST_SUITE_P(CodeDirectory, MalformedSignature, testing::ValuesIn(malformedDirectories()),
                         malformedName);

TEST(MalformedSignature, VersionClaimingFieldsPastItsLengthIsRefused) {
    ImageSpec spec = smallSpec();
    spec.directories[0] = {.hashType = 1, .pageExponent = 9, .version = 0x20000, .identifier = "h"};
    Image image(spec);
    put32(image.bytes, image.directories[0].at + 8, 0x20600);
    expectRefused({"", image.bytes, "too short for its version"});
}

TEST(MalformedSignature, IdentifierLongerThanAnyPathIsRefused) {
    ImageSpec spec = smallSpec();
    spec.directories[0].identifier = std::string(maxIdentifierLength + 1, 'i');
    expectRefused({"", Image(spec).bytes, "identifier has no end"});
}

TEST(MalformedSignature, MoreBlobsThanAnySignatureAreRefused) {
    ImageSpec spec = smallSpec();
    for (uint32_t i = 0; i < maxSignatureBlobs; ++i) {
        spec.blobs[0x2000 + i] = "x";
    }
    expectRefused({"", Image(spec).bytes, "impossible number"});
}

TEST(UnknownDirectory, IsWellFormedButCannotBeJudged) {
    Image image(smallSpec());
    size_t directory = image.directories[0].at;
    std::string type = image.bytes, scattered = image.bytes;
    type[directory + 37] = 9;
    put32(scattered, directory + 44, 88);
    EXPECT_EQ(read(type).directories[0].state, State::unknown);
    EXPECT_EQ(read(type).directories[0].problem, "its hash type 9 is not known");
    EXPECT_EQ(read(scattered).directories[0].state, State::unknown);
    EXPECT_EQ(read(scattered).directories[0].problem, "it is scattered");
}

TEST(UnknownDirectory, ScatteredInACircleIsNotFollowed) {
    Image image(smallSpec());
    put32(image.bytes, image.directories[0].at + 44, 44); // its own offset
    EXPECT_EQ(read(image.bytes).directories[0].problem, "it is scattered");
}

} // namespace
} // namespace firn
