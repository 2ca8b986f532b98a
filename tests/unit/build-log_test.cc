#include "libstore/build/build-log.hh"

#include <cstdio>
#include <cstdlib>

#include <gtest/gtest.h>

#include "libutil/error.hh"
#include "libutil/files.hh"
#include "recording-logger.hh"

namespace firn {
namespace {

using Lines = std::vector<std::string>;

Lines split(const std::vector<std::string> &pieces) {
    Lines lines;
    LineSplitter splitter([&](std::string_view line) { lines.emplace_back(line); });
    for (const std::string &piece : pieces) {
        splitter.write(piece);
    }
    splitter.finish();
    return lines;
}

TEST(LineSplitter, joinsPiecesAndKeepsEmptyLines) {
    EXPECT_EQ(split({"on", "e\n\ntw", "o"}), (Lines{"one", "", "two"}));
    EXPECT_EQ(split({""}), Lines{});
}

TEST(LineSplitter, overwritesAfterCarriageReturnAsATerminalDoes) {
    EXPECT_EQ(split({"10%\r100%\n"}), (Lines{"100%"}));
    EXPECT_EQ(split({"abcdef\rXY\n"}), (Lines{"XYcdef"}));
    EXPECT_EQ(split({"dos\r\n"}), (Lines{"dos"}));
}

TEST(LineSplitter, cutsEndlessLines) {
    Lines lines = split({std::string(LineSplitter::maxLength * 2 + 1, 'x')});
    ASSERT_EQ(lines.size(), 3u);
    EXPECT_EQ(lines[0].size(), LineSplitter::maxLength);
    EXPECT_EQ(lines[2], "x");
}

TEST(BuilderMessage, isReadFromNixInternalJson) {
    auto phase = parseBuilderMessage(R"(@nix {"action":"setPhase","phase":"buildPhase"})");
    ASSERT_TRUE(phase);
    EXPECT_EQ(phase->action, BuilderMessage::Action::setPhase);
    EXPECT_EQ(phase->text, "buildPhase");

    auto start = parseBuilderMessage(
        R"(@nix {"action":"start","id":7,"level":3,"type":101,"text":"downloading","fields":["http://x",5],"parent":0})");
    ASSERT_TRUE(start);
    EXPECT_EQ(start->id, 7u);
    EXPECT_EQ(start->type, 101u);
    EXPECT_EQ(start->fields, (LogFields{std::string("http://x"), uint64_t{5}}));
}

TEST(BuilderMessage, isNothingForHostileLines) {
    std::string deep = "@nix " + std::string(30000, '[') + std::string(30000, ']');
    for (const std::string &line :
         {std::string("@nix"), std::string("@nix "), std::string("@nix {"), std::string("@nix []"),
          std::string("@nix {}"), std::string("@nix {\"action\":1}"),
          std::string("@nix {\"action\":\"start\"}"),
          std::string("@nix {\"action\":\"start\",\"id\":-1,\"type\":101}"),
          std::string("@nix {\"action\":\"start\",\"id\":1e99,\"type\":101}"),
          std::string("@nix {\"action\":\"start\",\"id\":1,\"type\":101,\"fields\":{}}"),
          std::string("@nix {\"action\":\"start\",\"id\":1,\"type\":101,\"fields\":[[1]]}"),
          std::string("@nix {\"action\":\"setPhase\",\"phase\":[]}"),
          std::string("@nix {\"action\":\"setPhase\",\"phase\":\"\xff\"}"),
          std::string("@nix {\"action\":\"nonsense\"}"), std::string(" @nix {\"action\":\"stop\",\"id\":1}"),
          deep}) {
        EXPECT_FALSE(parseBuilderMessage(line)) << line.substr(0, 80);
    }
}

TEST(BuilderMessage, isEscapedAndBounded) {
    auto phase = parseBuilderMessage("@nix {\"action\":\"setPhase\",\"phase\":\"a\\u001b[2Jb" +
                                     std::string(9000, 'x') + "\"}");
    ASSERT_TRUE(phase);
    EXPECT_EQ(phase->text.find('\x1b'), phase->text.npos);
    EXPECT_LE(phase->text.size(), 4096u);
}

TEST(EscapeLogLine, keepsColoursAndTabsAndNothingElse) {
    EXPECT_EQ(escapeLogLine("\x1b[1;31mred\x1b[0m\tx"), "\x1b[1;31mred\x1b[0m\tx");
    EXPECT_EQ(escapeLogLine("\x1b[2J\x1b]0;title\x07"), "\\x1b[2J\\x1b]0;title\\x07");
    EXPECT_EQ(escapeLogLine("\x1b[31"), "\\x1b[31");
    EXPECT_EQ(escapeLogLine("done\x1b[K.\x1b[2K"), "done.");
    EXPECT_EQ(escapeLogLine("gr\xc3\xbc\xc3\x9f"), "gr\xc3\xbc\xc3\x9f");
}

class BuildLogTest : public testing::Test {
  protected:
    RecordingLogger logger;
    Activity activity{logger, Verbosity::info, ActivityType::build, "building"};
};

TEST_F(BuildLogTest, sendsLinesAndPhasesAndKeepsTheLastLines) {
    BuildLog log(logger, activity, std::nullopt, 2);
    logger.clear();
    std::string text = "one\ntwo\n@nix {\"action\":\"setPhase\",\"phase\":\"p\"}\nthree\nfour";
    log.write(text);
    log.finish();
    EXPECT_EQ(logger.lines(), (Lines{"result 101 [one]", "result 101 [two]", "result 104 [p]",
                                     "result 101 [three]", "result 101 [four]"}));
    EXPECT_EQ(log.tail(), (std::deque<std::string>{"three", "four"}));
    EXPECT_EQ(log.size(), text.size());
}

TEST_F(BuildLogTest, letsBuildersReportDownloadsOnly) {
    BuildLog log(logger, activity, std::nullopt, 5);
    logger.clear();
    log.write("@nix {\"action\":\"start\",\"id\":1,\"type\":105,\"level\":0,\"text\":\"building something "
              "else\"}\n");
    log.write("@nix {\"action\":\"result\",\"id\":1,\"type\":105,\"fields\":[1]}\n");
    EXPECT_EQ(logger.lines(), Lines{});
    log.write("@nix "
              "{\"action\":\"start\",\"id\":2,\"type\":101,\"level\":3,\"text\":\"fetching\",\"fields\":["
              "\"u\"]}\n");
    log.write("@nix {\"action\":\"result\",\"id\":2,\"type\":105,\"fields\":[1,2,0,0]}\n");
    log.write("@nix {\"action\":\"msg\",\"level\":0,\"msg\":\"error: fake\"}\n");
    log.finish();
    EXPECT_EQ(logger.lines(),
              (Lines{"start 101 fetching [u]", "result 105 [1] [2] [0] [0]", "log 2 error: fake", "stop"}));
}

TEST_F(BuildLogTest, boundsTheActivitiesOfABuilder) {
    BuildLog log(logger, activity, std::nullopt, 5);
    logger.clear();
    for (int i = 0; i < 5000; i++) {
        log.write(fmt::format("@nix {{\"action\":\"start\",\"id\":{},\"type\":101,\"text\":\"x\"}}\n", i));
    }
    EXPECT_EQ(logger.lines().size(), 256u);
}

TEST_F(BuildLogTest, writesTheBytesToACompressedFileThatBzip2Reads) {
    char name[] = "/tmp/firn-build-log-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    std::filesystem::path path = std::filesystem::path(name) / "drvs" / "ab" / "c.drv.bz2";
    std::string text;
    {
        BuildLog log(logger, activity, LogFile(path), 5);
        for (int i = 0; i < 20000; i++) {
            std::string line = fmt::format("line {}\r\n", i);
            text += line;
            log.write(line);
        }
        log.finish();
    }
    FILE *unpacked = popen(("bzip2 -dc " + path.string()).c_str(), "r");
    ASSERT_NE(unpacked, nullptr);
    std::string read;
    char buffer[65536];
    while (size_t count = fread(buffer, 1, sizeof buffer, unpacked)) {
        read.append(buffer, count);
    }
    EXPECT_EQ(pclose(unpacked), 0);
    EXPECT_TRUE(read == text);
    std::filesystem::remove_all(name);
}

} // namespace
} // namespace firn
