#include "libutil/config-file.hh"

#include <fstream>
#include <map>

#include <unistd.h>

#include "unit/expect-error.hh"
#include "unit/temporary-directory.hh"

namespace firn {
namespace {

using Files = std::map<std::string, std::string>;

std::vector<std::string> parse(const std::string &text, const Files &files = {},
                               const std::string &path = "/etc/nix/nix.conf") {
    std::vector<std::string> lines;
    auto read = [&](const std::filesystem::path &p) {
        auto found = files.find(p.lexically_normal().string());
        if (found == files.end()) {
            throw Error(ErrorKind::notFound, "there is no {}", p.native());
        }
        return found->second;
    };
    for (const ConfigEntry &entry : parseConfig(text, path, read)) {
        lines.push_back(entry.origin + " " + entry.name + "=[" + entry.value + "]");
    }
    return lines;
}

using Lines = std::vector<std::string>;

TEST(ConfigFile, ReadsAssignmentsWithWordsJoinedByOneBlank) {
    EXPECT_EQ(
        parse("cores = 4\n\n  extra-sandbox-paths  =\t/bin/sh=/x   /y\t# why\nempty =\r\nlast = 1 = 2"),
        (Lines{"/etc/nix/nix.conf:1 cores=[4]", "/etc/nix/nix.conf:3 extra-sandbox-paths=[/bin/sh=/x /y]",
               "/etc/nix/nix.conf:4 empty=[]", "/etc/nix/nix.conf:5 last=[1 = 2]"}));
}

TEST(ConfigFile, CommentsAndBlankLinesAreNothing) {
    EXPECT_EQ(parse("# a = b\n   #\n\n \t \n#"), Lines{});
    EXPECT_EQ(parse(""), Lines{});
}

TEST(ConfigFile, AnIncludedFileStandsInPlaceOfItsLine) {
    Files files{{"/etc/nix/sub/a.conf", "two = 2\ninclude b.conf\n"},
                {"/etc/nix/sub/b.conf", "three = 3"},
                {"/abs.conf", "four = 4"}};
    EXPECT_EQ(
        parse("one = 1\ninclude sub/a.conf\n!include /abs.conf\nfive = 5", files),
        (Lines{"/etc/nix/nix.conf:1 one=[1]", "/etc/nix/sub/a.conf:1 two=[2]",
               "/etc/nix/sub/b.conf:1 three=[3]", "/abs.conf:1 four=[4]", "/etc/nix/nix.conf:4 five=[5]"}));
}

TEST(ConfigFile, AMissingIncludeIsAnErrorUnlessMarked) {
    EXPECT_EQ(parse("!include gone.conf\na = 1"), (Lines{"/etc/nix/nix.conf:2 a=[1]"}));
    std::string message = expectError(ErrorKind::notFound, [] { parse("a = 1\ninclude gone.conf"); });
    EXPECT_EQ(message, "/etc/nix/nix.conf:2: there is no /etc/nix/gone.conf");
}

TEST(ConfigFile, ALoopOfIncludesEndsInAnError) {
    Files files{{"/etc/nix/a.conf", "include b.conf"}, {"/etc/nix/b.conf", "!include a.conf"}};
    std::string message = expectError(ErrorKind::badInput, [&] { parse("include a.conf", files); });
    EXPECT_NE(message.find("deeper than 32"), std::string::npos) << message;
}

TEST(ConfigFile, IncludesNestThirtyTwoDeepAndNoDeeper) {
    Files files;
    for (int i = 1; i <= 32; i++) {
        files["/etc/nix/" + std::to_string(i)] = "include " + std::to_string(i + 1);
    }
    files["/etc/nix/32"] = "deep = yes";
    EXPECT_EQ(parse("include 1", files), (Lines{"/etc/nix/32:1 deep=[yes]"}));
    files["/etc/nix/0"] = "include 1";
    expectError(ErrorKind::badInput, [&] { parse("include 0", files); });
}

TEST(ConfigFile, IncludesThatDoubleAtEveryLevelEndInAnError) {
    Files files;
    for (int i = 1; i <= 30; i++) {
        std::string next = "!include " + std::to_string(i + 1) + "\n";
        files["/etc/nix/" + std::to_string(i)] = next + next;
    }
    files["/etc/nix/31"] = "";
    std::string message = expectError(ErrorKind::badInput, [&] { parse("include 1", files); });
    EXPECT_NE(message.find("1024"), std::string::npos) << message;
}

TEST(ConfigFile, OtherLinesAreRefusedWithTheirPlace) {
    for (const char *line :
         {"word", "a=b", "a == b", "= b", "a b = c", "include", "include a b", "!include"}) {
        std::string message = expectError(ErrorKind::badInput, [&] { parse(std::string("x = 1\n") + line); });
        EXPECT_EQ(message.find("/etc/nix/nix.conf:2: "), 0) << message;
    }
}

TEST(ConfigFile, MessagesShowNoControlCharacters) {
    std::string message = expectError(ErrorKind::badInput, [] { parse("a\x1b[31m"); });
    EXPECT_EQ(message.find('\x1b'), std::string::npos);
}

TEST(ConfigFile, TextWithoutADirectoryIncludesFromWhereItStands) {
    EXPECT_EQ(parse("include x.conf", {{"x.conf", "a = 1"}}, "NIX_CONFIG"), (Lines{"x.conf:1 a=[1]"}));
}

TEST(ReadConfigFile, TellsMissingFromUnreadable) {
    TemporaryDirectory scratch;
    std::ofstream(scratch / "a.conf") << "a = 1\n";
    EXPECT_EQ(readConfigFile(scratch / "a.conf"), "a = 1\n");
    expectError(ErrorKind::notFound, [&] { readConfigFile(scratch / "b.conf"); });
    expectError(ErrorKind::notFound, [&] { readConfigFile(scratch / "a.conf" / "c"); });
    expectError(ErrorKind::failure, [&] { readConfigFile(scratch.path()); });
    if (geteuid() != 0) { // root reads everything
        std::filesystem::permissions(scratch / "a.conf", std::filesystem::perms::none);
        expectError(ErrorKind::refused, [&] { readConfigFile(scratch / "a.conf"); });
    }
}

TEST(SplitWords, SplitsAtAnyRunOfBlanks) {
    EXPECT_EQ(splitWords("  a \t b\nc "), (std::vector<std::string>{"a", "b", "c"}));
    EXPECT_EQ(splitWords(" "), std::vector<std::string>{});
}

} // namespace
} // namespace firn
