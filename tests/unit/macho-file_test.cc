#include "libstore/darwin/macho-file.hh"

#include <gtest/gtest.h>

#include "tests/unit/macho-builder.hh"
#include "tests/unit/macho-malformed.hh"
#include "tests/unit/macho-seeds.hh"

namespace firn {
namespace {

using namespace test;

MachoFile read(const std::string &bytes) {
    return readMachoFile(MemoryBytes(bytes));
}

TEST(CanBeMacho, TellsByTheFirstFourBytes) {
    for (const char *magic : {"\xfe\xed\xfa\xce", "\xfe\xed\xfa\xcf", "\xce\xfa\xed\xfe", "\xcf\xfa\xed\xfe",
                              "\xca\xfe\xba\xbe", "\xca\xfe\xba\xbf"}) {
        EXPECT_TRUE(canBeMacho(magic));
        EXPECT_FALSE(canBeMacho(std::string(magic).substr(0, 3)));
    }
    EXPECT_FALSE(canBeMacho(""));
    EXPECT_FALSE(canBeMacho("\x7f"
                            "ELF"));
    EXPECT_FALSE(canBeMacho("\xbe\xba\xfe\xca"));
}

TEST(CanBeMacho, TellsUniversalOnesFromOthers) {
    EXPECT_TRUE(canBeUniversal("\xca\xfe\xba\xbe"));
    EXPECT_TRUE(canBeUniversal("\xca\xfe\xba\xbf"));
    EXPECT_FALSE(canBeUniversal("\xca\xfe\xba"));
    EXPECT_FALSE(canBeUniversal("\xcf\xfa\xed\xfe"));
}

TEST(MachoFile, OfOtherFilesIsNothing) {
    for (std::string bytes : {std::string(), std::string("#!/bin/sh\n"), std::string("\xca\xfe\xba\xbe"),
                              std::string("\xca\xfe\xba\xbe\0\0", 6)}) {
        MachoFile file = read(bytes);
        EXPECT_FALSE(file.isMacho);
        EXPECT_TRUE(file.slices.empty());
    }
}

TEST(MachoFile, JavaClassIsNone) {
    for (uint32_t version : {45u, 52u, 65u, 0x0003002du, 0xffff0041u}) {
        std::string bytes("\xca\xfe\xba\xbe", 4);
        bytes.resize(5000);
        put32(bytes, 4, version);
        EXPECT_FALSE(read(bytes).isMacho) << version;
        EXPECT_TRUE(fixupPageHashes(MemoryBytes(bytes), MemoryBytes(bytes.substr(0, 4999) + "x"), {{0, 5000}})
                        .findings.empty());
    }
}

struct Kind {
    const char *name;
    bool is64;
    bool big;
    uint32_t cpu;
    uint32_t subtype;
    const char *architecture;
};

class MachoKinds : public testing::TestWithParam<Kind> {};

TEST_P(MachoKinds, HasItsParts) {
    ImageSpec spec;
    spec.is64 = GetParam().is64, spec.big = GetParam().big;
    spec.cpu = GetParam().cpu, spec.subtype = GetParam().subtype;
    spec.infoPlist = "<plist/>";
    Image image(spec);
    MachoFile file = read(image.bytes);
    ASSERT_EQ(file.slices.size(), 1u);
    const MachoSlice &slice = file.slices[0];
    EXPECT_EQ(slice.problem, "");
    EXPECT_EQ(slice.architecture, GetParam().architecture);
    EXPECT_EQ(slice.range, (ByteRange{0, image.bytes.size()}));
    EXPECT_EQ(slice.fileType, 2u);
    EXPECT_EQ(slice.signature, (ByteRange{spec.codeSize, image.bytes.size() - spec.codeSize}));
    EXPECT_EQ(slice.uuid, (ByteRange{image.uuidCommand + 8, 16}));
    EXPECT_EQ(slice.infoPlist, (ByteRange{image.subjects[1].first, 8}));
}

INSTANTIATE_TEST_SUITE_P(, MachoKinds,
                         testing::Values(Kind{"Arm64", true, false, 0x0100000c, 0, "arm64"},
                                         Kind{"Arm64e", true, false, 0x0100000c, 0x80000002, "arm64e"},
                                         Kind{"X86", true, false, 0x01000007, 3, "x86_64"},
                                         Kind{"X86Haswell", true, false, 0x01000007, 8, "x86_64h"},
                                         Kind{"I386", false, false, 7, 3, "i386"},
                                         Kind{"ArmV7", false, false, 12, 9, "armv7"},
                                         Kind{"Arm6432", false, false, 0x0200000c, 1, "arm64_32"},
                                         Kind{"PowerPc", false, true, 18, 0, "ppc"},
                                         Kind{"PowerPc64", true, true, 0x01000012, 0, "ppc64"},
                                         Kind{"Unknown", true, false, 0x77, 0, "cpu 0x00000077"}),
                         [](const auto &info) { return info.param.name; });

TEST(MachoFile, UniversalHasTheSlicesOfItsTable) {
    std::string arm = Image().bytes;
    ImageSpec spec;
    spec.cpu = 0x01000007, spec.isSigned = false;
    std::string intel = Image(spec).bytes;
    for (bool is64 : {false, true}) {
        Fat fat({{0x01000007, intel}, {0x0100000c, arm}}, is64);
        MachoFile file = read(fat.bytes + "trailing bytes");
        EXPECT_EQ(file.problem, "");
        ASSERT_EQ(file.slices.size(), 2u);
        EXPECT_EQ(file.slices[0].range, (ByteRange{fat.at[0], intel.size()}));
        EXPECT_EQ(file.slices[0].architecture, "x86_64");
        EXPECT_FALSE(file.slices[0].signature);
        EXPECT_EQ(file.slices[1].range, (ByteRange{fat.at[1], arm.size()}));
        EXPECT_EQ(file.slices[1].problem, "");
        EXPECT_EQ(file.slices[1].signature->offset, fat.at[1] + ImageSpec().codeSize);
    }
}

TEST(MachoFile, ArchivesAndBitcodeAsSlicesAreLeftOut) {
    Fat fat({{12, "!<arch>\nfoo.o"}, {0x0100000c, Image().bytes}, {7, "BC\xc0\xde bitcode"}});
    MachoFile file = read(fat.bytes);
    ASSERT_EQ(file.slices.size(), 1u);
    EXPECT_EQ(file.slices[0].problem, "");
}

TEST(MachoFile, FewerLoadCommandsThanTheirSizeMeansThatTheRestIsUnused) {
    Image image;
    put(image.bytes, 16, 1, 4, false);
    MachoFile file = read(image.bytes);
    EXPECT_EQ(file.slices.at(0).problem, "");
    EXPECT_FALSE(file.slices.at(0).signature);
}

TEST(MachoFile, InfoPlistOutsideOfTheProgramIsNone) {
    ImageSpec spec;
    spec.infoPlist = "<plist/>";
    Image image(spec);
    size_t section = image.headerSize + 72;
    for (uint64_t size : {uint64_t(image.bytes.size()), UINT64_MAX, uint64_t(spec.codeSize), uint64_t(0)}) {
        put(image.bytes, section + 40, size, 8, false);
        EXPECT_FALSE(read(image.bytes).slices.at(0).infoPlist) << size;
    }
}

class MalformedFile : public testing::TestWithParam<Malformed> {};

TEST_P(MalformedFile, IsRefused) {
    expectRefused(GetParam());
}

std::vector<Malformed> malformedTables() {
    const Image image(smallSpec());
    std::vector<Malformed> cases;
    auto add = [&](const std::string &name, const std::string &problem, bool is64, auto &&change) {
        std::string bytes = Fat({{0x0100000c, image.bytes}}, is64).bytes;
        change(bytes);
        cases.push_back({name, bytes, problem});
    };
    add("NoSlices", "impossible number", false, [](auto &b) { put32(b, 4, 0); });
    add("HugeNumberOfSlices", "impossible number", true, [](auto &b) { put32(b, 4, 0xffffffff); });
    add("TableCutOff", "is cut off", false, [](auto &b) { b.resize(20); });
    add("MoreSlicesThanTheFileHolds", "is cut off", false, [](auto &b) { put32(b, 4, 42), b.resize(500); });
    add("SliceInsideTheTable", "lies in the table", false, [](auto &b) { put32(b, 16, 8); });
    add("SlicePastTheEnd", "beyond the end", false, [](auto &b) { put32(b, 20, b.size()); });
    add("SliceWrapping64Bits", "beyond the end", true, [](auto &b) {
        put64(b, 24, UINT64_MAX - 0xff); // from 256 on
    });
    add("HeaderAndTableDisagreeing", "disagree", false, [](auto &b) { put32(b, 8, 7); });
    add("SliceOfSomethingElse", "no Mach-O image", false, [](auto &b) { b[256] = 'x'; });
    add("TableInATable", "no Mach-O image", false, [](auto &b) { put32(b, 256, 0xcafebabe); });
    add("SliceShorterThanAHeader", "header is cut off", false, [](auto &b) { put32(b, 20, 31); });
    cases.push_back(
        {"OverlappingSlices", Fat({{0x0100000c, image.bytes}, {0x0100000c, image.bytes}}).bytes, "overlaps"});
    put32(cases.back().bytes, 28 + 8, 256 + 128);
    put32(cases.back().bytes, 28 + 12, 64);
    return cases;
}

INSTANTIATE_TEST_SUITE_P(Table, MalformedFile, testing::ValuesIn(malformedTables()), malformedName);

TEST(MachoFile, EmptySliceIsMalformed) {
    Fat fat({{0x0100000c, Image().bytes}});
    put32(fat.bytes, 20, 0);
    EXPECT_EQ(read(fat.bytes).slices.at(0).problem, "it is empty");
}

TEST(MachoFile, SliceBeyondEverythingIsMalformed) {
    Fat fat({{0x0100000c, Image().bytes}}, true);
    put64(fat.bytes, 16, UINT64_MAX - 15);
    put64(fat.bytes, 24, 256);
    MachoFile file = read(fat.bytes);
    EXPECT_EQ(file.slices.at(0).problem, "it reaches beyond the end of the file");
    EXPECT_EQ(file.slices.at(0).range, (ByteRange{fat.bytes.size(), 0}));
}

TEST(MachoFile, OneBadSliceDoesNotHinderTheOthers) {
    std::string image = Image().bytes;
    Fat fat({{0x01000007, image}, {0x0100000c, image}});
    MachoFile file = read(fat.bytes);
    ASSERT_EQ(file.slices.size(), 2u);
    EXPECT_NE(file.slices[0].problem, "");
    EXPECT_EQ(file.slices[1].problem, "");
}

std::vector<Malformed> malformedCommands() {
    std::vector<Malformed> cases;
    auto add = [&](const std::string &name, const std::string &problem, auto &&change) {
        ImageSpec spec = smallSpec();
        spec.infoPlist = "<plist/>";
        Image image(spec);
        auto set = [&](size_t at, uint64_t value) { put(image.bytes, at, value, 4, false); };
        change(image, set);
        cases.push_back({name, image.bytes, problem});
    };
    using I = Image &;
    add("HeaderCutOff", "header is cut off", [](I i, auto) { i.bytes.resize(31); });
    add("CommandOfSize0", "impossible size", [](I i, auto set) { set(i.uuidCommand + 4, 0); });
    add("CommandOfSize7", "impossible size", [](I i, auto set) { set(i.uuidCommand + 4, 7); });
    add("CommandPastTheEnd", "impossible size", [](I i, auto set) { set(i.uuidCommand + 4, 41); });
    add("CommandOfHugeSize", "impossible size", [](I i, auto set) { set(i.uuidCommand + 4, 0xffffffff); });
    add("NcmdsTooLarge", "fewer load commands", [](I, auto set) { set(16, 99); });
    add("NcmdsHuge", "more load commands", [](I, auto set) { set(16, 0xffffffff); });
    add("SizeofcmdsTooSmall", "impossible size", [](I, auto set) { set(20, 160); });
    add("SizeofcmdsZero", "fewer load commands", [](I, auto set) { set(20, 0); });
    add("SizeofcmdsPastTheEnd", "beyond its end", [](I i, auto set) { set(20, i.bytes.size()); });
    add("SizeofcmdsHuge", "beyond its end", [](I, auto set) { set(20, 0xffffffff); });
    add("TwoSignatures", "two code signatures", [](I i, auto set) {
        set(i.uuidCommand, 0x1d);
        i.bytes.replace(i.uuidCommand + 8, 8, i.bytes.substr(i.signatureCommand + 8, 8));
    });
    add("ShortSignatureCommand", "too short", [](I i, auto set) { set(i.signatureCommand + 4, 12); });
    add("SignatureWrapping", "beyond its end",
        [](I i, auto set) { set(i.signatureCommand + 8, 0xffffff00), set(i.signatureCommand + 12, 0x400); });
    add("SignaturePastTheSlice", "beyond its end",
        [](I i, auto set) { set(i.signatureCommand + 12, i.bytes.size() - i.superBlob + 1); });
    add("SignatureInsideTheHeader", "in its load commands",
        [](I i, auto set) { set(i.signatureCommand + 8, 16); });
    add("SignatureInsideTheCommands", "in its load commands",
        [](I i, auto set) { set(i.signatureCommand + 8, i.commandsEnd - 1); });
    add("ShortSegmentCommand", "segment", [](I i, auto set) {
        set(i.uuidCommand, 0x19); // 24 bytes
    });
    add("SectionsBeyondTheirCommand", "sections do not fit",
        [](I i, auto set) { set(i.headerSize + 64, 0xffffffff); });
    return cases;
}

INSTANTIATE_TEST_SUITE_P(LoadCommands, MalformedFile, testing::ValuesIn(malformedCommands()), malformedName);

TEST(MachoFile, MoreBytesOfLoadCommandsThanAnyProgramAreRefused) {
    ImageSpec spec;
    spec.codeSize = 3 << 20;
    Image image(spec);
    put(image.bytes, 20, maxLoadCommandBytes + 1, 4, false);
    MemoryBytes file(image.bytes);
    EXPECT_NE(readMachoFile(file).slices.at(0).problem, "");
    EXPECT_LT(file.wasRead, 1000u);
}

} // namespace
} // namespace firn
