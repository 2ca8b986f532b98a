#include "libstore/build/output-comparison.hh"

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libstore/build/check-report.hh"
#include "libutil/files.hh"
#include "libutil/interrupt.hh"
#include "unit/expect-error.hh"
#include "unit/macho-builder.hh"
#include "unit/temporary-directory.hh"

namespace firn {
namespace {

namespace fs = std::filesystem;
using Kind = TreeDifference::Kind;

class OutputComparison : public testing::Test {
  protected:
    fs::path oldTree() const { return tmp_ / "old"; }
    fs::path newTree() const { return tmp_ / "new"; }

    static void write(const fs::path &path, std::string_view text) {
        fs::create_directories(path.parent_path());
        std::ofstream(path, std::ios::binary) << text;
    }
    void writeBoth(const std::string &name, std::string_view text) {
        write(oldTree() / name, text);
        write(newTree() / name, text);
    }

    TreeComparison compare(const CompareOptions &options = {}) {
        return compareTrees({tmp_.fd(), "old"}, {tmp_.fd(), "new"}, options);
    }
    /// The one difference.
    TreeDifference only(const CompareOptions &options = {}) {
        TreeComparison found = compare(options);
        EXPECT_EQ(found.differences.size(), 1u);
        return found.differences.empty() ? TreeDifference() : found.differences[0];
    }

    TemporaryDirectory tmp_;
};

TEST_F(OutputComparison, FindsNothingInTheSameTrees) {
    writeBoth("a/b/file", "text");
    writeBoth("empty", "");
    for (const fs::path &tree : {oldTree(), newTree()}) {
        fs::create_symlink("nowhere", tree / "link");
        fs::create_directory(tree / "none");
    }
    TreeComparison found = compare();
    EXPECT_TRUE(found.differences.empty());
    EXPECT_EQ(found.total(), 0u);
}

TEST_F(OutputComparison, CountsDifferingBytesFromTheFirst) {
    std::string text(1000000, 'x');
    write(oldTree() / "file", text);
    text[262143] = text[262144] = text[999999] = 'y';
    write(newTree() / "file", text);
    TreeDifference found = only();
    EXPECT_EQ(found.kind, Kind::contents);
    EXPECT_EQ(found.path, "file");
    EXPECT_EQ(found.firstOffset, 262143u);
    EXPECT_EQ(found.differingBytes, 3u);
    EXPECT_EQ(found.oldSize, 1000000u);
}

TEST_F(OutputComparison, CountsWhatOnlyOneFileHas) {
    write(oldTree() / "file", "abcdef");
    write(newTree() / "file", "abc");
    TreeDifference found = only();
    EXPECT_EQ(found.firstOffset, 3u);
    EXPECT_EQ(found.differingBytes, 3u);
    write(newTree() / "file", "xbcdefgh");
    found = only();
    EXPECT_EQ(found.firstOffset, 0u);
    EXPECT_EQ(found.differingBytes, 3u);
    write(newTree() / "file", "");
    EXPECT_EQ(only().differingBytes, 6u);
}

TEST_F(OutputComparison, ListsModesTargetsTypesAndWhatIsMissingOrNewInOrder) {
    writeBoth("a-mode", "text");
    chmod((newTree() / "a-mode").c_str(), 0555);
    fs::create_symlink("one", oldTree() / "b-link");
    fs::create_symlink("two", newTree() / "b-link");
    write(oldTree() / "c-type", "file");
    write(newTree() / "c-type/inside", "directory");
    write(oldTree() / "d-missing/inside/deep", "x");
    write(newTree() / "e-extra", "x");
    write(newTree() / "f-mode", "new");
    write(oldTree() / "f-mode", "old");
    chmod((oldTree() / "f-mode").c_str(), 0555);
    TreeComparison found = compare();
    std::vector<std::pair<Kind, std::string>> list;
    for (const TreeDifference &difference : found.differences) {
        list.emplace_back(difference.kind, difference.path);
    }
    EXPECT_EQ(list, (std::vector<std::pair<Kind, std::string>>{{Kind::executable, "a-mode"},
                                                               {Kind::target, "b-link"},
                                                               {Kind::type, "c-type"},
                                                               {Kind::missing, "d-missing"},
                                                               {Kind::extra, "e-extra"},
                                                               {Kind::executable, "f-mode"},
                                                               {Kind::contents, "f-mode"}}));
    EXPECT_FALSE(found.differences[0].executable);
    EXPECT_EQ(found.differences[1].oldTarget, "one");
    EXPECT_EQ(found.differences[1].newTarget, "two");
    EXPECT_EQ(found.differences[2].newType, ObjectType::directory);
    EXPECT_EQ(found.differences[3].type, ObjectType::directory);
    EXPECT_TRUE(found.differences[5].executable);
    EXPECT_EQ(found.total(), 7u);
    EXPECT_FALSE(found.truncated);
}

TEST_F(OutputComparison, TheRootMayBeAnything) {
    write(oldTree(), "file");
    EXPECT_EQ(only().kind, Kind::missing);
    write(newTree(), "other");
    EXPECT_EQ(only().path, "");
    fs::remove(newTree());
    fs::create_symlink("/etc/passwd", newTree());
    EXPECT_EQ(only().kind, Kind::type);
    fs::remove(oldTree());
    EXPECT_EQ(only().kind, Kind::extra);
}

TEST_F(OutputComparison, FollowsNoSymlink) {
    write(tmp_ / "outside" / "file", "x");
    for (const fs::path &tree : {oldTree(), newTree()}) {
        fs::create_directory(tree);
        fs::create_directory_symlink(tmp_ / "outside", tree / "link");
    }
    EXPECT_TRUE(compare().differences.empty());
}

TEST_F(OutputComparison, KeepsOnlySomeAndCountsAll) {
    for (int i = 0; i < 50; ++i) {
        write(newTree() / std::to_string(i), "x");
    }
    fs::create_directory(oldTree());
    TreeComparison found = compare({.mostListed = 7, .compareMacho = {}, .explains = {}});
    EXPECT_EQ(found.differences.size(), 7u);
    EXPECT_EQ(found.extra, 50u);
    EXPECT_TRUE(found.truncated);
}

TEST_F(OutputComparison, DoesNotReadWhatIsTheSameInode) {
    write(oldTree() / "file", "x");
    fs::create_directory(newTree());
    fs::create_hard_link(oldTree() / "file", newTree() / "file");
    chmod((oldTree() / "file").c_str(), 0000);
    EXPECT_TRUE(compare().differences.empty());
}

TEST_F(OutputComparison, GoesDeeperThanDescriptorsReach) {
    std::string deep;
    for (int i = 0; i < 900; ++i) {
        deep += "d/";
    }
    writeBoth(deep + "same", "x");
    write(oldTree() / (deep + "file"), "1");
    write(newTree() / (deep + "file"), "2");
    EXPECT_EQ(only().path, deep + "file");
}

TEST_F(OutputComparison, AsksOnlyAboutWhatCanBeMachO) {
    test::Image image;
    std::string other = image.bytes;
    other[5000] ^= 1;
    write(oldTree() / "prog", image.bytes);
    write(newTree() / "prog", other);
    write(oldTree() / "text", "some text");
    write(newTree() / "text", "other text");
    write(oldTree() / "half", image.bytes);
    write(newTree() / "half", "text");
    writeBoth("same", image.bytes);
    int asked = 0;
    CompareOptions options;
    options.compareMacho = [&](int oldFile, uint64_t oldSize, int newFile, uint64_t newSize) {
        ++asked;
        EXPECT_EQ(oldSize, image.bytes.size());
        EXPECT_EQ(newSize, image.bytes.size());
        char a = 0, b = 0;
        EXPECT_EQ(pread(oldFile, &a, 1, 5000), 1);
        EXPECT_EQ(pread(newFile, &b, 1, 5000), 1);
        EXPECT_NE(a, b);
        return MachoComparison{true, MachoDifference::uuid, false, false};
    };
    options.explains = [](const TreeDifference &difference) { return difference.macho.isMacho; };
    TreeComparison found = compare(options);
    EXPECT_EQ(asked, 1);
    EXPECT_EQ(found.explained, 1u);
    EXPECT_EQ(found.contents, 2u);
    EXPECT_EQ(found.total(), 2u);
}

TEST_F(OutputComparison, StopsWhenNobodyWantsItAnyMore) {
    writeBoth("file", std::string(1000, 'x'));
    requestInterrupt();
    expectError(ErrorKind::interrupted, [&] { compare(); });
    clearInterrupt();
}

TEST_F(OutputComparison, AsksWhetherWhatIsTheSameAndCanBeMachOIsStale) {
    test::Image image;
    writeBoth("prog", image.bytes);
    writeBoth("good", image.bytes + "more");
    writeBoth("text", "some text");
    writeBoth("short", "\xcf");
    write(oldTree() / "other", image.bytes);
    write(newTree() / "other", image.bytes + "x");
    write(oldTree() / "linked", image.bytes);
    fs::create_hard_link(oldTree() / "linked", newTree() / "linked");
    CompareOptions options;
    options.isStale = [&](int file, uint64_t size) {
        char byte = 0;
        EXPECT_EQ(pread(file, &byte, 1, static_cast<off_t>(size - 1)), 1);
        return size == image.bytes.size();
    };
    EXPECT_EQ(compare(options).stale, (std::vector<std::string>{"linked", "prog"}));
    options.mostListed = 1;
    EXPECT_EQ(compare(options).stale, std::vector<std::string>{"linked"});
}

namespace {

OutputReport reportOf(OutputReport::Verdict verdict) {
    return {.name = "out",
            .path = StorePath(std::string(32, 'a') + "-x"),
            .verdict = verdict,
            .oldHash = Hash(HashAlgorithm::sha256),
            .newHash = Hash(HashAlgorithm::sha256),
            .oldSize = 1,
            .newSize = 2};
}

} // namespace

TEST(CheckReport, DamageIsToldFromWhatWasRegisteredToWhatIsThere) {
    OutputReport output = reportOf(OutputReport::Verdict::same);
    output.damaged = true;
    TreeDifference contents{.path = "a", .oldSize = 7, .newSize = 5, .firstOffset = 5, .differingBytes = 2};
    TreeDifference mode{.kind = Kind::executable, .path = "b", .executable = true};
    TreeDifference target{.kind = Kind::target, .path = "c", .oldTarget = "is", .newTarget = "was"};
    TreeDifference gone{.kind = Kind::extra, .path = "d"}, added{.kind = Kind::missing, .path = "e"};
    output.comparison.differences = {contents, mode, target, gone, added};
    output.comparison.contents = output.comparison.executable = output.comparison.target = 1;
    output.comparison.extra = output.comparison.missing = 1;
    EXPECT_EQ(
        describeOutput(StoreDir("/nix/store"), output),
        "output 'out' ('/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-x'): damaged since it was "
        "registered, 1 with other contents, 1 with another mode, 1 with another link target, 1 missing, "
        "1 new\n"
        "  a: contents differ (2 bytes, the first at offset 5; 5 bytes long, now 7)\n"
        "  b: not executable, now it is\n"
        "  c: symlink to 'was', now to 'is'\n"
        "  d: missing now (regular file)\n"
        "  e: new (regular file)");
}

TEST(CheckReport, ATextNamesFilesSafelyAndIsBounded) {
    OutputReport output = reportOf(OutputReport::Verdict::differs);
    for (int i = 0; i < 12; ++i) {
        TreeDifference difference;
        difference.kind = Kind::extra;
        difference.path = "\x1b[31m" + std::to_string(i);
        output.comparison.differences.push_back(difference);
    }
    output.comparison.extra = 5000;
    std::string text = describeOutput(StoreDir("/nix/store"), output);
    EXPECT_EQ(text.substr(0, text.find('\n')),
              "output 'out' ('/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-x'): 5000 new");
    EXPECT_NE(text.find("\n  \\x1b[31m9: new (regular file)\n  … and 4990 more"), std::string::npos) << text;
    EXPECT_EQ(text.find('\x1b'), std::string::npos);
}

} // namespace
} // namespace firn
