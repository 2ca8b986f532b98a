#include <atomic>
#include <thread>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "expect-error.hh"
#include "firn/macho/change-report.hh"
#include "firn/macho/description.hh"
#include "firn/macho/macho.hh"
#include "firn/macho/progress.hh"
#include "firn/macho/report-merge.hh"
#include "firn/macho/work-pool.hh"

namespace firn {
namespace {

using Words = std::vector<std::string>;

constexpr const char *oldPart = "0v1ay8q0j8s2hmg3dqylhnfl4kd5bzq9";
constexpr const char *newPart = "zyxwvsrqpnmlkjihgfdcba9876543210";

MachoReport reportOf(CodeDirectoryReport directory) {
    SliceReport slice;
    slice.range = {0, 1000};
    slice.architecture = "arm64";
    slice.kind = SignatureKind::adHoc;
    slice.directories = {std::move(directory)};
    return {true, {slice}, ""};
}

CodeDirectoryReport staleAt(std::vector<uint32_t> code, std::vector<uint32_t> special = {}) {
    CodeDirectoryReport directory;
    directory.hashType = 2;
    directory.pageSize = 4096;
    directory.codeSlots = 100;
    directory.staleCodeSlots = std::move(code);
    directory.staleSpecialSlots = std::move(special);
    return directory;
}

// ---- names

TEST(MachoTools, FlagsAreNamedAsCodesignNamesThem) {
    EXPECT_EQ(signatureFlagNames(0), Words{});
    EXPECT_EQ(signatureFlagNames(0x20002), (Words{"adhoc", "linker-signed"}));
    EXPECT_EQ(signatureFlagNames(0x10002), (Words{"adhoc", "runtime"}));
    EXPECT_EQ(signatureFlagNames(0x12b00),
              (Words{"hard", "kill", "restrict", "library-validation", "runtime"}));
}

TEST(MachoTools, FlagsWithoutANameAreShownAsANumber) {
    EXPECT_EQ(signatureFlagNames(0x80000002), (Words{"adhoc", "0x80000000"}));
    EXPECT_EQ(signatureFlagNames(0xC0000000), (Words{"0xc0000000"}));
}

TEST(MachoTools, HashTypesAreNamed) {
    EXPECT_EQ(hashTypeName(1), "sha1");
    EXPECT_EQ(hashTypeName(2), "sha256");
    EXPECT_EQ(hashTypeName(3), "sha256-truncated");
    EXPECT_EQ(hashTypeName(4), "sha384");
    EXPECT_EQ(hashTypeName(9), "unknown-9");
}

TEST(MachoTools, SpecialSlotsWithoutANameHaveNone) {
    EXPECT_EQ(specialSlotName(1), "Info.plist");
    EXPECT_EQ(specialSlotName(7), "DER entitlements");
    EXPECT_EQ(specialSlotName(0), "");
    EXPECT_EQ(specialSlotName(12), "");
    EXPECT_EQ(specialSlotName(UINT32_MAX), "");
}

TEST(MachoTools, NumbersAreShownAsRangesAndCut) {
    EXPECT_EQ(describeNumbers({}), "");
    EXPECT_EQ(describeNumbers({7}), "7");
    EXPECT_EQ(describeNumbers({0, 2, 3, 4, 9, 10}), "0, 2-4, 9-10");
    EXPECT_EQ(describeNumbers({1, 3, 5, 7, 8}, 2), "1, 3 … and 3 more");
    EXPECT_EQ(describeNumbers({UINT32_MAX - 1, UINT32_MAX}), "4294967294-4294967295");
}

TEST(MachoTools, SizesAreShownInTheFittingUnit) {
    EXPECT_EQ(describeSize(0), "0 bytes");
    EXPECT_EQ(describeSize(1023), "1023 bytes");
    EXPECT_EQ(describeSize(1536), "1.5 KiB");
    EXPECT_EQ(describeSize(uint64_t(3) << 30), "3.0 GiB");
    EXPECT_EQ(describeSize(UINT64_MAX), "16.0 EiB");
}

TEST(MachoTools, ProgressFitsTheTerminalAndNeverPassesItsEnd) {
    EXPECT_EQ(progressLine(50, 100, 46), "[#######        ]  50 %  50 bytes of 100 bytes");
    EXPECT_EQ(progressLine(50, 100, 40), "  50 %  50 bytes of 100 bytes");
    EXPECT_EQ(progressLine(300, 100, 200), "[" + std::string(50, '#') + "] 100 %  100 bytes of 100 bytes");
    EXPECT_EQ(progressLine(0, 0, 200), "[" + std::string(50, '#') + "] 100 %  0 bytes of 0 bytes");
    for (size_t width = 0; width < 200; ++width) {
        EXPECT_LE(progressLine(1, 3, width).size(), width);
    }
}

// ---- escaping

TEST(MachoTools, TextFromFilesIsEscapedInDescriptions) {
    CodeDirectoryReport directory = staleAt({1});
    directory.identifier = "a\x1b[31mb";
    directory.problem = "bad\x07";
    MachoReport report = reportOf(directory);
    report.slices[0].architecture = "arm\x1b";
    std::string text = describeReport(report);
    EXPECT_EQ(text.find('\x1b'), std::string::npos);
    EXPECT_EQ(text.find('\x07'), std::string::npos);
    EXPECT_NE(text.find("'a\\x1b[31mb'"), std::string::npos) << text;
}

TEST(MachoTools, JsonIsAsciiWhateverTheTextIs) {
    CodeDirectoryReport directory = staleAt({});
    directory.identifier = "\x7f\xc2\x9b\xe2\x80\xae\xff";
    std::string line = jsonLine(reportToJson(reportOf(directory)));
    for (char c : line) {
        EXPECT_TRUE(c >= 0x20 && c < 0x7f) << line;
    }
    EXPECT_EQ(nlohmann::json::parse(line)["slices"][0]["directories"][0]["identifier"],
              "\x7f\xc2\x9b\xe2\x80\xae\xef\xbf\xbd");
}

TEST(MachoTools, APathThatIsNoUtf8ComesAsBase64Too) {
    nlohmann::json plain, odd;
    setJsonPath(plain, "a/ü");
    setJsonPath(odd, "\xff");
    EXPECT_EQ(plain, (nlohmann::json{{"path", "a/ü"}}));
    EXPECT_EQ(odd["pathBytes"], "/w==");
}

// ---- verdicts

TEST(MachoTools, StaleOutranksNotJudgedAndBothOutrankRight) {
    EXPECT_EQ(verdictOf(MachoReport{}), Verdict::notMacho);
    EXPECT_EQ(verdictOf(reportOf(staleAt({}))), Verdict::right);
    EXPECT_EQ(verdictOf(reportOf(staleAt({3}))), Verdict::stale);
    EXPECT_EQ(verdictOf(reportOf(staleAt({}, {5}))), Verdict::stale);
    CodeDirectoryReport unknown = staleAt({});
    unknown.problem = "unknown";
    EXPECT_EQ(verdictOf(reportOf(unknown)), Verdict::notJudged);
    MachoReport both = reportOf(unknown);
    both.slices[0].directories.push_back(staleAt({1}));
    EXPECT_EQ(verdictOf(both), Verdict::stale);
    MachoReport plain = reportOf(staleAt({}));
    plain.slices[0].kind = SignatureKind::none;
    plain.slices[0].directories.clear();
    EXPECT_EQ(verdictOf(plain), Verdict::unsigned_);
}

// ---- pieces

TEST(MachoTools, PiecesCoverTheWholeFileOnce) {
    MachoReport structure = reportOf(staleAt({}));
    for (uint64_t size : {uint64_t(32) << 20, (uint64_t(100) << 20) + 1, uint64_t(5) << 30}) {
        std::vector<ByteRange> pieces = planPieces(structure, size, 4);
        EXPECT_GT(pieces.size(), 1u);
        EXPECT_LE(pieces.size(), 40u);
        uint64_t end = 0;
        for (const ByteRange &piece : pieces) {
            EXPECT_EQ(piece.offset, end);
            EXPECT_GT(piece.size, 0u);
            end = piece.end();
        }
        EXPECT_EQ(end, size);
    }
}

TEST(MachoTools, NoPiecesAreMadeWhereTheyWouldCostMore) {
    MachoReport structure = reportOf(staleAt({}));
    uint64_t large = uint64_t(1) << 30;
    EXPECT_EQ(planPieces(structure, 1000, 4), (std::vector<ByteRange>{{0, 1000}}));
    EXPECT_EQ(planPieces(structure, large, 1), (std::vector<ByteRange>{{0, large}}));
    structure.slices[0].directories[0].pageSize = 0; // one page for everything
    EXPECT_EQ(planPieces(structure, large, 4), (std::vector<ByteRange>{{0, large}}));
    structure.slices[0].directories[0].pageSize = uint64_t(1) << 31;
    EXPECT_EQ(planPieces(structure, large, 4), (std::vector<ByteRange>{{0, large}}));
}

TEST(MachoTools, MergingUnitesStaleSlotsInOrder) {
    MachoReport report = reportOf(staleAt({5, 9}, {2}));
    mergeReports(report, reportOf(staleAt({1, 5, 7}, {1, 2})));
    mergeReports(report, reportOf(staleAt({})));
    EXPECT_EQ(report.slices[0].directories[0].staleCodeSlots, (std::vector<uint32_t>{1, 5, 7, 9}));
    EXPECT_EQ(report.slices[0].directories[0].staleSpecialSlots, (std::vector<uint32_t>{1, 2}));
}

TEST(MachoTools, MergingKeepsEveryProblem) {
    MachoReport piece = reportOf(staleAt({}));
    piece.problem = "container";
    piece.slices[0].problem = "slice";
    piece.slices[0].directories[0].problem = "directory";
    MachoReport report = reportOf(staleAt({}));
    mergeReports(report, piece);
    EXPECT_EQ(report.problem, "container");
    EXPECT_EQ(report.slices[0].problem, "slice");
    EXPECT_EQ(report.slices[0].directories[0].problem, "directory");
}

TEST(MachoTools, PiecesOfDifferentFilesAreNotMerged) {
    auto refuses = [](auto change) {
        MachoReport report = reportOf(staleAt({})), piece = report;
        change(piece);
        expectError(ErrorKind::failure, [&] { mergeReports(report, piece); });
    };
    refuses([](MachoReport &piece) { piece.isMacho = false; });
    refuses([](MachoReport &piece) { piece.slices.clear(); });
    refuses([](MachoReport &piece) { piece.slices[0].range.size = 1; });
    refuses([](MachoReport &piece) { piece.slices[0].directories.clear(); });
    refuses([](MachoReport &piece) { piece.slices[0].directories[0].codeSlots = 1; });
    refuses([](MachoReport &piece) { piece.slices[0].directories[0].range.offset = 1; });
}

// ---- words of the command line

TEST(MachoTools, AReplacementIsTwoDifferentHashParts) {
    auto [from, to] = parseReplacement(std::string(oldPart) + "=" + newPart);
    EXPECT_EQ(from, oldPart);
    EXPECT_EQ(to, newPart);
    for (std::string text :
         {std::string(), std::string("="), std::string(oldPart), std::string(oldPart) + "=",
          std::string(oldPart) + "=" + oldPart, std::string(oldPart) + "=" + newPart + "0",
          std::string(oldPart) + "=" + newPart + "=" + newPart,
          "/nix/store/" + std::string(oldPart) + "-a=" + newPart, std::string(32, 'e') + "=" + newPart}) {
        expectError(ErrorKind::badInput, [&] { parseReplacement(text); });
    }
}

// ---- findings

TEST(MachoTools, SlotsOfAChangeAreCountedByKind) {
    Change change;
    change.findings = {{MachoFinding::Kind::repaired, 0, "arm64", 0, 3, 1, "recomputed"},
                       {MachoFinding::Kind::repaired, 0, "arm64", 0x1000, 3, 1, "recomputed"},
                       {MachoFinding::Kind::repairedStale, 0, "arm64", 0, 1, 9, "recomputed"}};
    EXPECT_EQ(change.slots(MachoFinding::Kind::repaired), 6u);
    EXPECT_EQ(change.slots(MachoFinding::Kind::repairedStale), 1u);
    EXPECT_TRUE(change.any(MachoFinding::Kind::repairedStale));
    EXPECT_FALSE(change.any(MachoFinding::Kind::unrepairable));
}

TEST(MachoTools, AFindingNamesPlaceAndReason) {
    MachoFinding finding{MachoFinding::Kind::unrepairable, 16384, "arm64", 0x1000, 2, -5, "no\x1b key"};
    EXPECT_EQ(describeFinding(finding), "arm64 at 16384: 2 slots of the alternate code directory 0x1000, the "
                                        "first -5: no\\x1b key");
    EXPECT_EQ(describeFinding({MachoFinding::Kind::malformed, 0, "", 0, 0, 0, ""}), "malformed");
}

// ---- threads

TEST(MachoTools, APoolDoesEverythingBeforeItEnds) {
    std::atomic<int> done = 0;
    {
        WorkPool pool(3, 2);
        for (int i = 0; i < 1000; ++i) {
            pool.submit([&] { ++done; });
        }
    }
    EXPECT_EQ(done, 1000);
}

TEST(MachoTools, APoolTakesNoMoreThanItHasRoomFor) {
    std::atomic<int> submitted = 0;
    std::mutex gate;
    std::unique_lock closed(gate);
    WorkPool pool(1, 2);
    std::thread submitter([&] {
        for (int i = 0; i < 10; ++i) {
            pool.submit([&] { std::lock_guard wait(gate); });
            ++submitted;
        }
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_LE(submitted, 3); // one being done, two queued
    closed.unlock();
    submitter.join();
    EXPECT_EQ(submitted, 10);
}

} // namespace
} // namespace firn
