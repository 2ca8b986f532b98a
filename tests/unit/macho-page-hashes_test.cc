#include "libstore/darwin/macho-page-hashes.hh"

#include <concepts>
#include <filesystem>
#include <fstream>
#include <stdexcept>

#include <gtest/gtest.h>

#include "tests/unit/macho-builder.hh"
#include "tests/unit/macho-seeds.hh"
#include "tests/unit/test-data.hh"

namespace firn {
namespace {

using namespace test;
using Kind = MachoFinding::Kind;

const std::string hashPart = "0123456789abcdfghijklmnpqrsvwxyz";

/// A file, its changed version, and what was made of that.
struct Outcome {
    Outcome(std::string from, const std::vector<size_t> &places) : before(std::move(from)), after(before) {
        for (size_t place : places) {
            after.replace(place, hashPart.size(), hashPart);
            touched.push_back({place, hashPart.size()});
        }
        repair();
    }
    template<std::same_as<std::string> Text>
    Outcome(std::string from, const Text &to) : before(std::move(from)), after(to) {
        touched = {{0, before.size()}};
        repair();
    }

    void repair() {
        fixup = fixupPageHashes(MemoryBytes(before), MemoryBytes(after), touched);
        fixed = applied(after, fixup.patches);
    }

    /// "repaired 0x0/0: 2 from 1" …
    std::vector<std::string> said() const {
        const char *names[] = {"repaired", "repairedStale", "unrepairable", "staleBefore", "malformed"};
        std::vector<std::string> all;
        for (const MachoFinding &finding : fixup.findings) {
            all.push_back(std::string(names[int(finding.kind)]) + " " + std::to_string(finding.directory) +
                          ": " + std::to_string(finding.count) + " from " +
                          std::to_string(finding.firstSlot));
        }
        return all;
    }

    std::string before;
    std::string after;
    std::vector<ByteRange> touched;
    PageHashFixup fixup;
    std::string fixed;
};

using Said = std::vector<std::string>;

MachoReport verify(const std::string &bytes) {
    return verifyPageHashes(MemoryBytes(bytes));
}

bool allRight(const std::string &bytes) {
    MachoReport report = verify(bytes);
    return report.isMacho && !report.anyStale() && !report.anyProblem();
}

class EveryMachoKind : public testing::TestWithParam<std::pair<const std::string, ImageSpec>> {};

TEST_P(EveryMachoKind, IsRightAsItComes) {
    EXPECT_TRUE(allRight(Image(GetParam().second).bytes));
}

TEST_P(EveryMachoKind, IsSignedAnewWhereverAHashIsReplaced) {
    const Image image(GetParam().second);
    size_t last = std::min(image.bytes.size(), image.spec.codeSize) - hashPart.size();
    for (size_t place : {image.commandsEnd + 40, size_t(500), last}) {
        Outcome outcome(image.bytes, {place});
        if (GetParam().first == "cms") {
            EXPECT_TRUE(outcome.fixup.patches.empty());
            EXPECT_EQ(outcome.fixup.findings.at(0).kind, Kind::unrepairable);
            continue;
        }
        EXPECT_TRUE(outcome.fixed == image.sign(outcome.after)) << place;
        for (const MachoFinding &finding : outcome.fixup.findings) {
            EXPECT_EQ(finding.kind, Kind::repaired);
        }
        EXPECT_TRUE(allRight(outcome.fixed));
    }
}

TEST_P(EveryMachoKind, IsSignedAnewThroughTheWholeFileAsTouched) {
    const Image image(GetParam().second);
    std::string after = image.bytes;
    for (size_t i = image.commandsEnd; i < image.spec.codeSize; ++i) {
        after[i] = char(~after[i]);
    }
    Outcome outcome(image.bytes, after);
    EXPECT_TRUE(outcome.fixed == (GetParam().first == "cms" ? after : image.sign(after)));
}

TEST_P(EveryMachoKind, RepairsEverySlotThatWasMadeWrong) {
    const Image image(GetParam().second);
    std::string broken = image.bytes;
    for (const Image::Directory &directory : image.directories) {
        for (size_t slot = 0; slot < directory.codeSlots; ++slot) {
            broken[directory.slot(int64_t(slot))] ^= 1;
        }
    }
    PageHashFixup fixup = repairAllPageHashes(MemoryBytes(broken));
    bool cms = GetParam().first == "cms";
    EXPECT_TRUE(applied(broken, fixup.patches) == (cms ? broken : image.bytes));
    EXPECT_EQ(fixup.findings.size(), image.directories.size());
    for (const MachoFinding &finding : fixup.findings) {
        EXPECT_EQ(finding.kind, cms ? Kind::staleBefore : Kind::repairedStale);
        EXPECT_EQ(finding.firstSlot, 0);
    }
}

std::string kindName(const testing::TestParamInfo<std::pair<const std::string, ImageSpec>> &info) {
    std::string name = info.param.first;
    std::replace(name.begin(), name.end(), '-', '_');
    return name;
}

INSTANTIATE_TEST_SUITE_P(, EveryMachoKind, testing::ValuesIn(machoSpecs()), kindName);

TEST(VerifyPageHashes, NamesTheStaleSlots) {
    Image image;
    std::string bytes = image.bytes;
    bytes[4096] ^= 1;
    bytes[image.spec.codeSize - 1] ^= 1;
    MachoReport report = verify(bytes);
    EXPECT_TRUE(report.anyStale());
    EXPECT_FALSE(report.anyProblem());
    const CodeDirectoryReport &directory = report.slices.at(0).directories.at(0);
    EXPECT_EQ(directory.staleCodeSlots, (std::vector<uint32_t>{1, 3}));
    EXPECT_TRUE(directory.staleSpecialSlots.empty());
    EXPECT_EQ(directory.identifier, "hello");
    EXPECT_EQ(directory.flags, 0x20002u);
    EXPECT_EQ(directory.codeSlots, 4u);
    EXPECT_EQ(report.slices[0].kind, SignatureKind::linkerSigned);
}

TEST(VerifyPageHashes, LooksOnlyAtTheGivenRanges) {
    Image image;
    std::string bytes = image.bytes;
    bytes[4096] ^= 1;
    bytes[8192] ^= 1;
    MemoryBytes file(bytes);
    MachoReport report = verifyPageHashes(file, std::vector<ByteRange>{{0, 10}, {8190, 3}});
    EXPECT_EQ(report.slices.at(0).directories.at(0).staleCodeSlots, (std::vector<uint32_t>{1, 2}));
    report = verifyPageHashes(file, std::vector<ByteRange>{{8191, 1}});
    EXPECT_EQ(report.slices.at(0).directories.at(0).staleCodeSlots, std::vector<uint32_t>{1});
    EXPECT_FALSE(verifyPageHashes(file, std::vector<ByteRange>{}).anyStale());
}

TEST(VerifyPageHashes, JudgesSpecialSlotsWhoseBlobIsThere) {
    ImageSpec spec = machoSpecs()["blobs"];
    Image image(spec);
    std::string bytes = image.bytes;
    bytes[image.blobAt[5] + 9] ^= 1;
    CodeDirectoryReport directory = verify(bytes).slices.at(0).directories.at(0);
    EXPECT_EQ(directory.staleSpecialSlots, std::vector<uint32_t>{5});
    EXPECT_EQ(directory.externalSpecialSlots, std::vector<uint32_t>{3});
    EXPECT_EQ(directory.specialSlots, 8u);
}

TEST(VerifyPageHashes, DoesNotJudgeAnInfoPlistThatMayBeAnotherFile) {
    ImageSpec spec = machoSpecs()["plist"];
    Image image(spec);
    EXPECT_TRUE(verify(image.bytes).slices.at(0).directories.at(0).externalSpecialSlots.empty());
    image.bytes[image.directories[0].slot(-1)] ^= 1;
    CodeDirectoryReport directory = verify(image.bytes).slices.at(0).directories.at(0);
    EXPECT_TRUE(directory.staleSpecialSlots.empty());
    EXPECT_EQ(directory.externalSpecialSlots, std::vector<uint32_t>{1});
}

TEST(VerifyPageHashes, HasAProblemWithWhatItCannotCompute) {
    Image image;
    image.bytes[image.directories[0].at + 37] = 7;
    MachoReport report = verify(image.bytes);
    EXPECT_TRUE(report.anyProblem());
    EXPECT_FALSE(report.anyStale());
}

TEST(FixupPageHashes, OfSomethingElseIsNothing) {
    Outcome outcome(std::string(5000, 'x'), {100});
    EXPECT_TRUE(outcome.fixup.patches.empty());
    EXPECT_TRUE(outcome.fixup.findings.empty());
}

TEST(FixupPageHashes, OfUnequalSizesIsAMistakeOfTheCaller) {
    Image image;
    EXPECT_THROW(fixupPageHashes(MemoryBytes(image.bytes), MemoryBytes(image.bytes + "x"), {}),
                 std::invalid_argument);
}

TEST(FixupPageHashes, ChangesOnePageHashForAHashInTheMiddleOfAPage) {
    Image image;
    Outcome outcome(image.bytes, {5000});
    EXPECT_TRUE(outcome.fixed == image.sign(outcome.after));
    ASSERT_EQ(outcome.fixup.patches.size(), 1u);
    EXPECT_EQ(outcome.fixup.patches[0].offset, image.directories[0].slot(1));
    EXPECT_EQ(outcome.fixup.patches[0].bytes, slotDigest(2, outcome.after.substr(4096, 4096)));
    EXPECT_EQ(outcome.said(), Said{"repaired 0: 1 from 1"});
    EXPECT_EQ(outcome.fixup.findings[0].architecture, "arm64");
}

TEST(FixupPageHashes, ChangesTwoForAHashAcrossAPageBorder) {
    Image image;
    Outcome outcome(image.bytes, {8192 - 10});
    EXPECT_TRUE(outcome.fixed == image.sign(outcome.after));
    EXPECT_EQ(outcome.said(), Said{"repaired 0: 2 from 1"});
}

TEST(FixupPageHashes, ReachesTheLastPageUpToTheLimit) {
    Image image;
    Outcome outcome(image.bytes, {image.spec.codeSize - hashPart.size()});
    EXPECT_TRUE(outcome.fixed == image.sign(outcome.after));
    EXPECT_EQ(outcome.said(), Said{"repaired 0: 1 from 3"});
}

TEST(FixupPageHashes, AcrossTheLimitCountsWhatIsBeforeIt) {
    ImageSpec spec;
    spec.directories[0].codeLimit = 2 * 4096 + 50;
    Image image(spec);
    Outcome across(image.bytes, {2 * 4096 + 40});
    EXPECT_TRUE(across.fixed == image.sign(across.after));
    EXPECT_EQ(across.said(), Said{"repaired 0: 1 from 2"});
    Outcome behind(image.bytes, {2 * 4096 + 50});
    EXPECT_TRUE(behind.fixup.patches.empty());
    EXPECT_TRUE(behind.fixup.findings.empty());
}

TEST(FixupPageHashes, LeavesTouchedPagesAloneThatDidNotChange) {
    Image image;
    std::string stale = image.bytes;
    stale[image.directories[0].slot(0)] ^= 1;
    std::string after = stale;
    after[9000] ^= 1;
    Outcome outcome(stale, after);
    EXPECT_EQ(outcome.said(), Said{"repaired 0: 1 from 2"});
    EXPECT_EQ(verify(outcome.fixed).slices[0].directories[0].staleCodeSlots, std::vector<uint32_t>{0});
}

TEST(FixupPageHashes, LooksOnlyWhereItIsTold) {
    Image image;
    std::string after = image.bytes;
    after[100] ^= 1;
    after[9000] ^= 1;
    auto fixup = fixupPageHashes(MemoryBytes(image.bytes), MemoryBytes(after), {{9000, 1}});
    ASSERT_EQ(fixup.patches.size(), 1u);
    EXPECT_EQ(fixup.patches[0].offset, image.directories[0].slot(2));
}

TEST(FixupPageHashes, SaysWhatWasStaleBefore) {
    Image image;
    std::string stale = image.bytes;
    stale[image.directories[0].slot(1)] ^= 1;
    Outcome outcome(stale, {5000, 9000});
    EXPECT_EQ(outcome.said(), (Said{"repairedStale 0: 1 from 1", "repaired 0: 1 from 2"}));
    EXPECT_TRUE(outcome.fixed == image.sign(outcome.after));
}

TEST(FixupPageHashes, RepairsEveryAlternate) {
    ImageSpec spec;
    spec.directories[0].hashType = 1;
    spec.directories.push_back({.slotType = 0x1000, .pageExponent = 14});
    Image image(spec);
    Outcome outcome(image.bytes, {4090});
    EXPECT_EQ(outcome.said(), (Said{"repaired 0: 2 from 0", "repaired 4096: 1 from 0"}));
    EXPECT_TRUE(outcome.fixed == image.sign(outcome.after));
}

TEST(FixupPageHashes, RepairsWhatItCanNextToAMalformedDirectory) {
    ImageSpec spec;
    spec.directories.push_back({.slotType = 0x1000, .hashType = 1});
    Image image(spec);
    image.bytes[image.directories[0].at + 39] = 31;
    Outcome outcome(image.bytes, {5000});
    EXPECT_EQ(outcome.said(), (Said{"malformed 0: 0 from 0", "repaired 4096: 1 from 1"}));
    ASSERT_EQ(outcome.fixup.patches.size(), 1u);
    EXPECT_EQ(outcome.fixup.patches[0].offset, image.directories[1].slot(1));
}

TEST(FixupPageHashes, RecomputesTheSlotOfAChangedBlob) {
    ImageSpec spec;
    for (uint32_t type : {2u, 5u, 7u, 8u, 9u, 10u, 11u}) {
        spec.blobs[type] = std::string(40, char('a' + type));
    }
    spec.directories.push_back({.slotType = 0x1000, .hashType = 1});
    Image image(spec);
    for (uint32_t type : {2u, 5u, 7u, 8u, 9u, 10u, 11u}) {
        Outcome outcome(image.bytes, {image.blobAt[type] + 12});
        std::string slot = std::to_string(-int(type));
        EXPECT_EQ(outcome.said(), (Said{"repaired 0: 1 from " + slot, "repaired 4096: 1 from " + slot}));
        EXPECT_TRUE(outcome.fixed == image.sign(outcome.after));
    }
}

TEST(FixupPageHashes, NeverFillsASpecialSlotThatIsNotInUse) {
    ImageSpec spec;
    spec.blobs = {{2, std::string(40, 'r')}, {5, "entitlements"}};
    Image image(spec);
    image.bytes.replace(image.directories[0].slot(-2), 32, 32, '\0');
    Outcome outcome(image.bytes, {image.blobAt[2] + 8});
    EXPECT_TRUE(outcome.fixup.patches.empty());
    EXPECT_TRUE(outcome.fixup.findings.empty());
    EXPECT_TRUE(allRight(image.bytes));
}

TEST(FixupPageHashes, RecomputesAnEmbeddedInfoPlistThatWasMeant) {
    ImageSpec spec;
    spec.infoPlist = "<plist>" + std::string(60, 'h') + "</plist>";
    Image image(spec);
    size_t place = image.subjects[1].first + 10;
    Outcome outcome(image.bytes, {place});
    EXPECT_EQ(outcome.said(), Said{"repaired 0: 2 from 0"});
    EXPECT_TRUE(outcome.fixed == image.sign(outcome.after));

    image.bytes[image.directories[0].slot(-1)] ^= 1; // about a file of a bundle
    Outcome other(image.bytes, {place});
    EXPECT_EQ(other.said(), Said{"repaired 0: 1 from 0"});
    EXPECT_EQ(other.fixed.substr(image.directories[0].slot(-1), 32),
              image.bytes.substr(image.directories[0].slot(-1), 32));
}

TEST(FixupPageHashes, InTheIdentifierNeedsNothing) {
    ImageSpec spec;
    spec.directories[0].identifier = std::string(32, 'i') + "-program";
    Image image(spec);
    Outcome outcome(image.bytes, {image.directories[0].at + 88});
    EXPECT_TRUE(outcome.fixup.patches.empty());
    EXPECT_TRUE(outcome.fixup.findings.empty());
    EXPECT_TRUE(allRight(outcome.fixed));
    EXPECT_EQ(verify(outcome.fixed).slices[0].directories[0].identifier, hashPart + "-program");
}

TEST(FixupPageHashes, InSlotsMakesThemRightAgain) {
    ImageSpec spec;
    spec.blobs = {{2, "requirement"}};
    Image image(spec);
    for (int64_t slot : {-2, 0, 2}) {
        Outcome outcome(image.bytes, {image.directories[0].slot(slot)});
        EXPECT_TRUE(outcome.fixed == image.bytes);
        EXPECT_EQ(outcome.said(), Said{"repaired 0: 1 from " + std::to_string(slot)});
        // Into the next one, too; −1 is not in use.
        Outcome across(image.bytes, {image.directories[0].slot(slot) + 7});
        EXPECT_TRUE(across.fixed == image.bytes);
    }
}

TEST(FixupPageHashes, InASlotThatWasStaleLeavesItAsItIs) {
    Image image;
    image.bytes[image.directories[0].slot(1)] ^= 1;
    Outcome outcome(image.bytes, {image.directories[0].slot(1)});
    EXPECT_TRUE(outcome.fixup.patches.empty());
}

TEST(FixupPageHashes, InTheLoadCommandsConcernsTheFirstPage) {
    Image image;
    std::string after = image.bytes;
    after[image.uuidCommand + 10] ^= 1;
    Outcome outcome(image.bytes, after);
    EXPECT_EQ(outcome.said(), Said{"repaired 0: 1 from 0"});
    EXPECT_TRUE(outcome.fixed == image.sign(after));
}

TEST(FixupPageHashes, ThatDestroysTheStructureIsUnrepairable) {
    Image image;
    struct Case {
        const char *what;
        size_t place;
    };
    for (const Case &c :
         {Case{"a command's size", image.uuidCommand + 4},
          Case{"the signature's place", image.signatureCommand + 8},
          Case{"the SuperBlob's index", image.superBlob + 12},
          Case{"the CodeDirectory's header", image.directories[0].at + 16}, Case{"the magic number", 0}}) {
        std::string after = image.bytes;
        after[c.place] ^= 1;
        after[c.place + 3] ^= 1;
        Outcome outcome(image.bytes, after);
        EXPECT_TRUE(outcome.fixup.patches.empty()) << c.what;
        ASSERT_EQ(outcome.said(), Said{"unrepairable 0: 0 from 0"}) << c.what;
    }
}

TEST(FixupPageHashes, ThatHidesASliceIsUnrepairable) {
    Fat fat({{0x0100000c, Image().bytes}});
    std::string after = fat.bytes;
    put32(after, 16, 0);
    EXPECT_EQ(Outcome(fat.bytes, after).fixup.findings.at(0).kind, Kind::unrepairable);
}

ImageSpec cmsSpec() {
    ImageSpec spec;
    spec.directories[0].flags = 0;
    spec.directories[0].identifier = std::string(40, 'i');
    spec.blobs = {{2, std::string(40, 'r')}, {0x10000, std::string(100, 's')}};
    return spec;
}

TEST(FixupPageHashes, UnderACmsSignatureIsUnrepairable) {
    Image image(cmsSpec());
    Outcome page(image.bytes, {5000});
    EXPECT_TRUE(page.fixup.patches.empty());
    EXPECT_EQ(page.said(), Said{"unrepairable 0: 1 from 1"});
    EXPECT_NE(page.fixup.findings[0].reason.find("CMS"), std::string::npos);
    EXPECT_EQ(Outcome(image.bytes, {image.blobAt[2] + 8}).said(), Said{"unrepairable 0: 1 from -2"});
}

TEST(FixupPageHashes, InTheCmsSignatureOrWhatItCoversIsUnrepairable) {
    Image image(cmsSpec());
    for (size_t place :
         {image.blobAt[0x10000] + 20, image.directories[0].at + 88, image.directories[0].slot(2)}) {
        Outcome outcome(image.bytes, {place});
        EXPECT_TRUE(outcome.fixup.patches.empty());
        EXPECT_EQ(outcome.said(), Said{"unrepairable 0: 0 from 0"});
    }
}

TEST(FixupPageHashes, UnderACmsSignatureThatWasStaleIsRegisteredAsItIs) {
    Image image(cmsSpec());
    std::string stale = image.bytes;
    stale[5000] ^= 1;
    Outcome outcome(stale, {6000});
    EXPECT_TRUE(outcome.fixup.patches.empty());
    EXPECT_EQ(outcome.said(), Said{"staleBefore 0: 1 from 1"});
}

TEST(FixupPageHashes, OutsideOfEverythingThatIsHashedNeedsNothing) {
    ImageSpec spec = cmsSpec();
    spec.padding = 100;
    spec.gapAfterIndex = 100;
    Image image(spec);
    Outcome outcome(image.bytes, {image.bytes.size() - 60, image.superBlob + 12 + 3 * 8 + 20});
    EXPECT_TRUE(outcome.fixup.patches.empty());
    EXPECT_TRUE(outcome.fixup.findings.empty());
}

TEST(FixupPageHashes, UnderAnUnknownHashTypeOrScatteredIsUnrepairable) {
    ImageSpec spec;
    spec.blobs = {{2, std::string(40, 'r')}};
    spec.directories[0].identifier = std::string(40, 'i');
    Image image(spec);
    size_t directory = image.directories[0].at;
    for (bool scattered : {false, true}) {
        std::string bytes = image.bytes;
        scattered ? put32(bytes, directory + 44, 88) : put(bytes, directory + 37, 9, 1, true);
        for (size_t place : {size_t(5000), image.blobAt[2] + 8, image.directories[0].slot(1)}) {
            Outcome outcome(bytes, {place});
            EXPECT_TRUE(outcome.fixup.patches.empty());
            EXPECT_EQ(outcome.said(), Said{"unrepairable 0: 0 from 0"}) << place;
        }
        EXPECT_TRUE(Outcome(bytes, {directory + 88}).fixup.findings.empty()) << "identifier";
    }
}

TEST(FixupPageHashes, TreatsEachSliceForItself) {
    ImageSpec unsignedSpec, ppc;
    unsignedSpec.isSigned = false, unsignedSpec.cpu = 7;
    ppc.is64 = false, ppc.big = true, ppc.cpu = 18;
    Image arm, intel(unsignedSpec), old(ppc), cms(cmsSpec());
    cms.spec.cpu = 0x0100000c;
    for (bool is64 : {false, true}) {
        Fat fat({{0x0100000c, arm.bytes},
                 {7, intel.bytes},
                 {18, old.bytes},
                 {12, "!<arch>\n" + std::string(100, 'a')},
                 {0x0100000c, cms.bytes}},
                is64);
        std::string before = fat.bytes + std::string(100, 't');
        size_t trailing = fat.bytes.size() + 10;
        Outcome outcome(before, {fat.at[0] + 5000, fat.at[1] + 5000, fat.at[2] + 9000, fat.at[3] + 20,
                                 fat.at[4] + 100 * 32, trailing});
        EXPECT_EQ(outcome.said(),
                  (Said{"repaired 0: 1 from 1", "repaired 0: 1 from 2", "unrepairable 0: 1 from 0"}));
        EXPECT_EQ(outcome.fixup.findings[0].slice, fat.at[0]);
        EXPECT_EQ(outcome.fixup.findings[1].slice, fat.at[2]);
        EXPECT_EQ(outcome.fixup.findings[1].architecture, "ppc");
        std::string expected = outcome.after;
        expected.replace(fat.at[0], arm.bytes.size(), arm.sign(expected.substr(fat.at[0], arm.bytes.size())));
        expected.replace(fat.at[2], old.bytes.size(), old.sign(expected.substr(fat.at[2], old.bytes.size())));
        EXPECT_TRUE(outcome.fixed == expected);
    }
}

TEST(FixupPageHashes, ReportsAMalformedSliceOnlyWhereItIsTouched) {
    std::string image = Image().bytes;
    Fat fat({{7, image}, {0x0100000c, image}}); // the first is no i386
    EXPECT_EQ(Outcome(fat.bytes, {fat.at[1] + 5000}).said(), Said{"repaired 0: 1 from 1"});
    EXPECT_EQ(Outcome(fat.bytes, {fat.at[0] + 5000}).said(), Said{"malformed 0: 0 from 0"});
}

TEST(FixupPageHashes, LeavesFlagsPaddingAndOtherSlotsAlone) {
    ImageSpec spec = cmsSpec();
    spec.blobs[0x10000] = "";
    spec.padding = 50;
    spec.directories[0].externalSlots = {{3, std::string(32, 'r')}};
    Image image(spec);
    Outcome outcome(image.bytes, {5000});
    size_t slot = image.directories[0].slot(1);
    EXPECT_EQ(outcome.fixed.substr(0, slot), outcome.after.substr(0, slot));
    EXPECT_EQ(outcome.fixed.substr(slot + 32), outcome.after.substr(slot + 32));
    EXPECT_NE(outcome.fixed.substr(slot, 32), outcome.after.substr(slot, 32));
}

TEST(FixupPageHashes, IsDoneAfterwards) {
    Image image;
    Outcome outcome(image.bytes, {5000, 9000});
    auto again = fixupPageHashes(MemoryBytes(image.bytes), MemoryBytes(outcome.fixed), outcome.touched);
    EXPECT_TRUE(again.patches.empty());
    EXPECT_TRUE(again.findings.empty());
}

TEST(FixupPageHashes, ReadsAFewPagesOfALargeProgram) {
    ImageSpec spec;
    spec.codeSize = 32 << 20;
    Image image(spec);
    std::string after = image.bytes;
    std::vector<ByteRange> touched;
    for (size_t place : {size_t(5000), size_t(10000000), size_t(30000000)}) {
        after.replace(place, hashPart.size(), hashPart);
        touched.push_back({place, hashPart.size()});
    }
    MemoryBytes from(image.bytes), to(after);
    PageHashFixup fixup = fixupPageHashes(from, to, touched);
    EXPECT_TRUE(applied(after, fixup.patches) == image.sign(after));
    EXPECT_EQ(fixup.patches.size(), 3u);
    EXPECT_LT(from.wasRead + to.wasRead, 200000u);
}

/// What the fuzzers start from: a file, and the same with four changes (macho-fixup_fuzzer.cc).
std::map<std::string, std::string> fuzzerSeeds(const std::string &fuzzer) {
    std::map<std::string, std::string> seeds = machoSeeds();
    if (fuzzer == "macho") {
        return seeds;
    }
    for (auto &[name, bytes] : seeds) {
        std::string changes;
        for (size_t place : {size_t(40), bytes.size() / 4, bytes.size() / 2, bytes.size() - 40}) {
            changes += {char(place >> 16), char(place >> 8), char(place), 4};
            changes += "bbbb";
        }
        bytes += changes + char(4);
    }
    return seeds;
}

/// With FIRN_WRITE_SEEDS set they are written anew.
TEST(MachoSeeds, AreTheFilesThatTheFuzzersStartFrom) {
    for (const std::string fuzzer : {"macho", "macho-fixup"}) {
        for (const auto &[name, bytes] : fuzzerSeeds(fuzzer)) {
            std::filesystem::path path = testData("fuzz/corpus/" + fuzzer + "/" + name);
            if (getenv("FIRN_WRITE_SEEDS")) {
                std::ofstream(path, std::ios::binary) << bytes;
            }
            std::ifstream file(path, std::ios::binary);
            EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), bytes) << path;
        }
    }
}

} // namespace
} // namespace firn
