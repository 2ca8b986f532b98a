#include "libstore/darwin/macho-normal-form.hh"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <stdexcept>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "libutil/base-n.hh"
#include "tests/unit/macho-builder.hh"
#include "tests/unit/macho-normal-form-cases.hh"
#include "tests/unit/temporary-directory.hh"
#include "tests/unit/test-data.hh"

namespace firn {
namespace {

using namespace test;
using Json = nlohmann::json;

struct Named {
    std::string name;
    NormalFormCase file;
};

void PrintTo(const Named &named, std::ostream *out) {
    *out << named.name;
}

std::vector<Named> named(const std::map<std::string, NormalFormCase> &cases) {
    std::vector<Named> all;
    for (const auto &[name, file] : cases) {
        all.push_back({name, file});
    }
    return all;
}

const std::string zeros(32, '\0');

std::string hexDigest(const std::string &bytes) {
    return encode(Encoding::base16, slotDigest(2, bytes));
}

MachoNormalForm normalPatches(const NormalFormCase &file) {
    return machoNormalForm(MemoryBytes(file.bytes), file.selfReferences);
}

NormalFormCase normalForm(const NormalFormCase &file) {
    MachoNormalForm normal = normalPatches(file);
    EXPECT_TRUE(normal.inside) << normal.reason;
    return {applied(file.bytes, normal.patches), file.selfReferences};
}

NormalFormCase finalForm(const NormalFormCase &file, const std::string &hashPart = finalHashPart) {
    auto patches = machoFinalForm(MemoryBytes(file.bytes), file.selfReferences, hashPart);
    return {applied(file.bytes, patches), file.selfReferences};
}

std::optional<std::string> finalProblem(const NormalFormCase &file,
                                        const std::string &hashPart = finalHashPart) {
    return machoFinalFormProblem(MemoryBytes(file.bytes), file.selfReferences, hashPart);
}

using Places = std::vector<std::pair<uint64_t, uint64_t>>;

Places placesOf(const std::vector<BytePatch> &patches) {
    Places places;
    for (const BytePatch &patch : patches) {
        places.push_back({patch.offset, patch.bytes.size()});
    }
    return places;
}

/// Nothing but the digests at these places is wrong in it.
void expectRightAt(const std::string &bytes, const Places &places) {
    for (const BytePatch &repair : repairAllPageHashes(MemoryBytes(bytes)).patches) {
        for (const auto &[offset, size] : places) {
            EXPECT_FALSE(repair.offset == offset) << "the slot at " << offset << " is stale";
        }
    }
}

std::string caseName(const testing::TestParamInfo<Named> &info) {
    std::string name = info.param.name;
    std::replace(name.begin(), name.end(), '-', '_');
    return name;
}

// ---- every file inside

class InsideNormalForm : public testing::TestWithParam<Named> {};

TEST_P(InsideNormalForm, ChangesOnlyZerosUuidsAndSlots) {
    const NormalFormCase &file = GetParam().file;
    MachoNormalForm normal = normalPatches(file);
    ASSERT_TRUE(normal.inside) << normal.reason;
    EXPECT_EQ(normal.reason, "");
    std::string form = applied(file.bytes, normal.patches);
    uint64_t end = 0;
    for (const BytePatch &patch : normal.patches) {
        EXPECT_GE(patch.offset, end);
        end = patch.offset + patch.bytes.size();
    }
    EXPECT_LE(end, file.bytes.size());
    for (uint64_t place : file.selfReferences) {
        EXPECT_EQ(form.substr(place, 32), zeros);
    }
    expectRightAt(form, placesOf(normal.patches));
}

TEST_P(InsideNormalForm, IsItsOwnNormalForm) {
    NormalFormCase normal = normalForm(GetParam().file);
    EXPECT_TRUE(normalForm(normal).bytes == normal.bytes);
    EXPECT_EQ(placesOf(normalPatches(normal).patches), placesOf(normalPatches(GetParam().file).patches));
}

TEST_P(InsideNormalForm, FollowsFromTheFinalFormToo) {
    const NormalFormCase &file = GetParam().file;
    NormalFormCase normal = normalForm(file);
    NormalFormCase final = finalForm(normal);
    EXPECT_TRUE(normalForm(final).bytes == normal.bytes);
    EXPECT_TRUE(finalForm(file).bytes == final.bytes);
    EXPECT_TRUE(finalForm(final).bytes == final.bytes);
    EXPECT_EQ(placesOf(machoFinalForm(MemoryBytes(normal.bytes), file.selfReferences, finalHashPart)),
              placesOf(normalPatches(file).patches));
    EXPECT_EQ(occurrences(final.bytes, finalHashPart), file.selfReferences);
    EXPECT_EQ(finalProblem(final), std::nullopt);
    expectRightAt(final.bytes, placesOf(normalPatches(file).patches));
}

/// What another build's linker would have left there.
TEST_P(InsideNormalForm, IsTheSameWhateverStoodInItsPlaces) {
    NormalFormCase file = GetParam().file, normal = normalForm(file);
    for (const BytePatch &patch : normalPatches(file).patches) {
        bool self = patch.bytes == zeros;
        file.bytes.replace(patch.offset, patch.bytes.size(),
                           self ? finalHashPart : std::string(patch.bytes.size(), 'o'));
    }
    EXPECT_TRUE(normalForm(file).bytes == normal.bytes);
}

TEST_P(InsideNormalForm, VerifiesEveryByteThatItChanges) {
    NormalFormCase final = finalForm(GetParam().file);
    for (const BytePatch &patch : normalPatches(final).patches) {
        for (size_t at : {patch.offset, patch.offset + patch.bytes.size() - 1}) {
            NormalFormCase changed = final;
            changed.bytes[at] = char(changed.bytes[at] ^ 1);
            EXPECT_NE(finalProblem(changed), std::nullopt) << at;
        }
    }
    EXPECT_NE(finalProblem(final, builtHashPart), std::nullopt);
    EXPECT_NE(finalProblem(normalForm(final)), std::nullopt);
}

INSTANTIATE_TEST_SUITE_P(MachoNormalForm, InsideNormalForm, testing::ValuesIn(named(insideCases())),
                         caseName);

// ---- every file outside

class OutsideNormalForm : public testing::TestWithParam<Named> {};

/// In whatever form it comes.
TEST_P(OutsideNormalForm, IsNamedAndLeftAlone) {
    NormalFormCase file = GetParam().file;
    for (const std::string &hashPart : {builtHashPart, finalHashPart, zeros}) {
        for (uint64_t place : file.selfReferences) {
            if (place < file.bytes.size() - 31) {
                file.bytes.replace(place, 32, hashPart);
            }
        }
        MachoNormalForm normal = normalPatches(file);
        EXPECT_FALSE(normal.inside);
        EXPECT_TRUE(normal.patches.empty());
        EXPECT_NE(normal.reason.find(file.outside), std::string::npos) << normal.reason;
        EXPECT_EQ(finalProblem(file, hashPart), normal.reason);
        EXPECT_THROW(finalForm(file), std::invalid_argument);
    }
}

INSTANTIATE_TEST_SUITE_P(MachoNormalForm, OutsideNormalForm, testing::ValuesIn(named(outsideCases())),
                         caseName);

// ---- what each of them shows

TEST(MachoNormalForm, HasAUuidOfVersion8) {
    Image image(normalFormSpec());
    NormalFormCase final = finalForm(caseOf(planted(image, twoPlaces)));
    std::string normal = normalForm(final).bytes, uuid = final.bytes.substr(image.uuidCommand + 8, 16);
    EXPECT_EQ(normal.substr(image.uuidCommand + 8, 16), std::string(16, '\0'));
    std::string expected =
        slotDigest(2, "firn:content-addressed-macho:1:uuid" + std::string(1, '\0') + slotDigest(2, normal))
            .substr(0, 16);
    expected[6] = char((expected[6] & 0xf) | 0x80), expected[8] = char((expected[8] & 0x3f) | 0x80);
    EXPECT_EQ(uuid, expected);
}

TEST(MachoNormalForm, HasTheSameUuidUnderEveryPath) {
    Image image(normalFormSpec());
    NormalFormCase file = caseOf(planted(image, twoPlaces));
    EXPECT_EQ(finalForm(file, finalHashPart).bytes.substr(image.uuidCommand + 8, 16),
              finalForm(file, builtHashPart).bytes.substr(image.uuidCommand + 8, 16));
}

TEST(MachoNormalForm, ReachesTheUuidOfEverySlice) {
    ImageSpec other = normalFormSpec();
    other.cpu = 0x01000007;
    Image without(normalFormSpec()), with(other);
    Fat fat({{0x0100000c, without.bytes}, {0x01000007, planted(with, twoPlaces)}});
    std::string normal = normalForm(caseOf(fat.bytes)).bytes, final = finalForm(caseOf(fat.bytes)).bytes;
    for (size_t slice : fat.at) {
        size_t uuid = slice + without.uuidCommand + 8;
        EXPECT_EQ(normal.substr(uuid, 16), std::string(16, '\0'));
        EXPECT_EQ(uint8_t(final[uuid + 6]) >> 4, 8);
        EXPECT_EQ(uint8_t(final[uuid + 8]) >> 6, 2);
    }
    EXPECT_NE(final.substr(fat.at[0] + without.uuidCommand + 8, 16),
              final.substr(fat.at[1] + without.uuidCommand + 8, 16));
}

TEST(MachoNormalForm, OfAFileWithoutUuidAndSlotsIsNixsOwn) {
    NormalFormCase file = insideCases()["unsigned-no-uuid"];
    EXPECT_EQ(normalPatches(file).patches.size(), file.selfReferences.size());
}

TEST(MachoNormalForm, RecomputesEverySlotOverATouchedBlob) {
    ImageSpec spec = normalFormSpec();
    spec.hasUuid = false;
    spec.directories[0].hashType = 1;
    spec.directories.push_back(spec.directories[0]);
    spec.directories[1].slotType = 0x1000, spec.directories[1].hashType = 2;
    spec.blobs = {{2, "names " + builtHashPart}, {5, "<plist/>"}};
    Image image(spec);
    NormalFormCase file = caseOf(image.bytes);
    Places expected = {{file.selfReferences.at(0), 32}};
    for (size_t i : {0, 1}) {
        expected.push_back({image.directories[i].slot(-2), image.directories[i].hashSize});
    }
    EXPECT_EQ(placesOf(normalPatches(file).patches), expected);
}

TEST(MachoNormalForm, NeverFillsASpecialSlotThatIsNotInUse) {
    NormalFormCase file = insideCases()["unused-slot"], used = insideCases()["requirement"];
    EXPECT_EQ(normalPatches(file).patches.size() + 1, normalPatches(used).patches.size());
}

TEST(MachoNormalForm, LeavesTheSlotOfABundlesInfoPlistAlone) {
    EXPECT_NE(finalForm(insideCases()["plist-of-a-bundle"]).bytes.find(std::string(32, 'i')),
              std::string::npos);
}

TEST(MachoNormalForm, LeavesStaleSlotsElsewhereAlone) {
    NormalFormCase final = finalForm(insideCases()["stale-elsewhere"]);
    MachoReport report = verifyPageHashes(MemoryBytes(final.bytes));
    EXPECT_EQ(report.slices.at(0).directories.at(0).staleCodeSlots, (std::vector<uint32_t>{1}));
}

TEST(MachoNormalForm, MakesStaleSlotsOverItsPlacesRight) {
    Image image(normalFormSpec());
    NormalFormCase file = caseOf(planted(image, twoPlaces)), stale = file;
    stale.bytes[image.directories[0].slot(2)] ^= 1;
    EXPECT_TRUE(normalForm(stale).bytes == normalForm(file).bytes);
}

TEST(MachoNormalForm, WantsAHashPartOf32Bytes) {
    NormalFormCase file = insideCases()["plain"];
    EXPECT_THROW(finalForm(file, finalHashPart + "0"), std::invalid_argument);
    EXPECT_EQ(finalProblem(file, "short"), "a hash part has 32 bytes");
}

TEST(MachoNormalForm, ReadsAFewPagesOfALargeProgram) {
    ImageSpec spec;
    spec.codeSize = 16 << 20;
    Image image(spec);
    MemoryBytes bytes(planted(image, {5 << 20}));
    MachoNormalForm normal = machoNormalForm(bytes, {5 << 20});
    EXPECT_EQ(normal.patches.size(), 4u);
    EXPECT_LT(bytes.wasRead, 1u << 20);
}

// ---- a second implementation

/// What tests/macho/normal_form.py says of these files.
Json secondOpinion(const std::vector<NormalFormCase> &files) {
    TemporaryDirectory directory;
    std::filesystem::path in = directory.path() / "in", out = directory.path() / "out";
    Json questions = Json::array();
    for (const NormalFormCase &file : files) {
        questions.push_back({{"file", encode(Encoding::base64, file.bytes)},
                             {"selfReferences", file.selfReferences},
                             {"hashPart", finalHashPart}});
    }
    std::ofstream(in) << questions;
    std::string command =
        "python3 '" + testData("macho/normal_form.py") + "' --json <" + in.string() + " >" + out.string();
    if (system(command.c_str()) != 0) {
        throw std::runtime_error("'" + command + "' failed");
    }
    std::ifstream answers(out);
    return Json::parse(answers);
}

void expectSame(const NormalFormCase &file, const Json &opinion) {
    MachoNormalForm normal = normalPatches(file);
    ASSERT_EQ(normal.inside, !opinion.contains("outside")) << normal.reason << opinion;
    if (normal.inside) {
        EXPECT_EQ(Json(placesOf(normal.patches)), opinion.at("places"));
        EXPECT_EQ(hexDigest(applied(file.bytes, normal.patches)), opinion.at("normal").get<std::string>());
        EXPECT_EQ(hexDigest(finalForm(file).bytes), opinion.at("final").get<std::string>());
    }
}

void expectSame(const std::vector<NormalFormCase> &files) {
    Json opinions = secondOpinion(files);
    ASSERT_EQ(opinions.size(), files.size());
    for (size_t i = 0; i < files.size(); ++i) {
        SCOPED_TRACE("file " + std::to_string(i));
        expectSame(files[i], opinions[i]);
    }
}

std::vector<NormalFormCase> allCases() {
    std::vector<NormalFormCase> files;
    for (const auto &cases : {insideCases(), outsideCases()}) {
        for (const auto &[name, file] : cases) {
            files.push_back(file);
        }
    }
    return files;
}

TEST(MachoNormalFormInPython, IsTheSame) {
    expectSame(allCases());
}

/// One to three numbers of the structure get another value, or a self-reference another place.
NormalFormCase mutated(NormalFormCase file, std::mt19937 &random) {
    auto below = [&](size_t end) { return size_t(random() % end); };
    for (size_t i = 0, count = 1 + below(3); i < count && !file.bytes.empty(); ++i) {
        if (below(4) == 0 && !file.selfReferences.empty()) {
            file.selfReferences[below(file.selfReferences.size())] = below(file.bytes.size());
            continue;
        }
        const unsigned char values[] = {0, 1, 2, 3, 4, 8, 12, 24, 44, 0x10, 0x40, 0x80, 0xff};
        size_t superBlob = file.bytes.find("\xfa\xde\x0c\xc0");
        bool inSignature = below(2) && superBlob != std::string::npos;
        size_t at = inSignature ? superBlob + below(160) : below(240);
        file.bytes[at % file.bytes.size()] = char(values[below(std::size(values))]);
    }
    return file;
}

TEST(MachoNormalFormInPython, IsTheSameForDamagedFiles) {
    std::mt19937 random(1);
    std::vector<NormalFormCase> files, cases = allCases();
    for (size_t i = 0; i < 6000; ++i) {
        files.push_back(mutated(cases[random() % cases.size()], random));
    }
    expectSame(files);
    size_t inside = 0;
    for (const NormalFormCase &file : files) {
        inside += normalPatches(file).inside;
    }
    EXPECT_GT(inside, 500u);
    EXPECT_LT(inside, 5500u);
}

// ---- linked programs

bool haveLinker() {
    return system("command -v ld64.lld-19 clang-16 llvm-lipo-19 >/dev/null") == 0;
}

/// As a build under this path makes it.
NormalFormCase linked(const std::string &architecture, const std::string &hashPart) {
    TemporaryDirectory directory;
    std::filesystem::path program = directory.path() / "hello";
    std::string command = "TMPDIR='" + directory.path().string() + "' sh '" + testData("macho/link") +
                          "' lld-uuid " + architecture + " /nix/store/" + hashPart + "-hello/share '" +
                          program.string() + "'";
    if (system(command.c_str()) != 0) {
        throw std::runtime_error("'" + command + "' failed");
    }
    std::ifstream file(program, std::ios::binary);
    std::string bytes(std::istreambuf_iterator<char>(file), {});
    return {bytes, occurrences(bytes, hashPart)};
}

TEST(MachoNormalForm, OfOneProgramBuiltUnderTwoPathsIsTheSame) {
    if (!haveLinker()) {
        GTEST_SKIP() << "there is no linker for macOS: install lld-19, llvm-19 and clang-16";
    }
    for (const std::string architecture : {"arm64", "x86_64", "universal"}) {
        SCOPED_TRACE(architecture);
        NormalFormCase first = linked(architecture, builtHashPart),
                       second = linked(architecture, finalHashPart);
        ASSERT_FALSE(first.bytes == second.bytes);
        EXPECT_TRUE(normalForm(first).bytes == normalForm(second).bytes);
        NormalFormCase final = finalForm(first);
        EXPECT_TRUE(final.bytes == finalForm(second).bytes);
        EXPECT_EQ(finalProblem(final), std::nullopt);
        EXPECT_NE(finalProblem(second), std::nullopt) << "it has its linker's UUID";
        MachoReport report = verifyPageHashes(MemoryBytes(final.bytes));
        EXPECT_FALSE(report.anyStale() || report.anyProblem());
        expectSame({first, second, final});
    }
}

// ---- the vectors of the specification

Json vectors() {
    Json all = Json::array();
    for (const auto &cases : {insideCases(), outsideCases()}) {
        for (const auto &[name, file] : cases) {
            Json one = {{"name", name},
                        {"file", encode(Encoding::base64, file.bytes)},
                        {"selfReferences", file.selfReferences},
                        {"sha256", hexDigest(file.bytes)},
                        {"inside", file.outside.empty()}};
            if (file.outside.empty()) {
                one["normalForm"] = hexDigest(normalForm(file).bytes);
                one["finalForm"] = hexDigest(finalForm(file).bytes);
            }
            all.push_back(one);
        }
    }
    return all;
}

/// Those inside, as a table; those outside, by name.
std::string describe(const Json &vectors) {
    std::string table = "| | file | normal form | final form |\n|---|---|---|---|\n", outside;
    for (const Json &one : vectors) {
        std::string name = one.at("name");
        if (one.at("inside")) {
            table += "| " + name + " | `" + std::string(one.at("sha256")) + "` | `" +
                     std::string(one.at("normalForm")) + "` | `" + std::string(one.at("finalForm")) + "` |\n";
        } else {
            outside += (outside.empty() ? "" : ", ") + name;
        }
    }
    return table + "\nOutside: " + outside + ".\n";
}

std::string contentsOf(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

/// With FIRN_WRITE_VECTORS set they are written anew; version 1's never change.
TEST(MachoNormalFormVectors, AreThoseOfTheSpecification) {
    const std::string mark = "<!-- vectors -->\n", path = testData("macho/normal-form-vectors.json");
    const std::string document = testData("../doc/content-addressed-macho.md");
    if (getenv("FIRN_WRITE_VECTORS")) {
        std::ofstream(path, std::ios::binary) << vectors().dump(1) << "\n";
        std::string text = contentsOf(document);
        std::ofstream(document, std::ios::binary)
            << text.substr(0, text.find(mark)) + mark + describe(vectors());
    }
    EXPECT_TRUE(Json::parse(contentsOf(path)) == vectors());
    std::string text = contentsOf(document);
    ASSERT_NE(text.find(mark), std::string::npos);
    EXPECT_EQ(text.substr(text.find(mark) + mark.size()), describe(vectors()));
}

// ---- seeds of the fuzzer

/// With FIRN_WRITE_SEEDS set they are written anew.
TEST(MachoNormalFormSeeds, AreTheFilesThatTheFuzzerStartsFrom) {
    for (const auto &cases : {insideCases(), outsideCases()}) {
        for (const auto &[name, file] : cases) {
            std::string bytes = file.bytes;
            for (uint64_t place : file.selfReferences) {
                bytes += {char(place >> 16), char(place >> 8), char(place)};
            }
            bytes += char(file.selfReferences.size());
            std::string path = testData("fuzz/corpus/macho-normal-form/" + name);
            if (getenv("FIRN_WRITE_SEEDS")) {
                std::ofstream(path, std::ios::binary) << bytes;
            }
            EXPECT_TRUE(contentsOf(path) == bytes) << path;
        }
    }
}

} // namespace
} // namespace firn
