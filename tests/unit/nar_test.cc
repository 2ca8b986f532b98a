#include "libutil/nar.hh"

#include <cstdio>
#include <fstream>
#include <functional>

#include <fcntl.h>
#include <sys/stat.h>

#include "libutil/directory-stack.hh"
#include "libutil/files.hh"
#include "unit/expect-error.hh"
#include "unit/temporary-directory.hh"

namespace firn {
namespace {

using namespace std::string_literals;

// ---- archives written by hand, independent of NarWriter

std::string number(uint64_t value) {
    std::string bytes(8, '\0');
    for (char &byte : bytes) {
        byte = static_cast<char>(value & 255);
        value >>= 8;
    }
    return bytes;
}

std::string str(const std::string &text) {
    return number(text.size()) + text + std::string((8 - text.size() % 8) % 8, '\0');
}

std::string strs(const std::vector<std::string> &texts) {
    std::string bytes;
    for (const std::string &text : texts) {
        bytes += str(text);
    }
    return bytes;
}

std::string file(const std::string &contents) {
    return strs({"(", "type", "regular", "contents", contents, ")"});
}
std::string link(const std::string &target) {
    return strs({"(", "type", "symlink", "target", target, ")"});
}
std::string entry(const std::string &name, const std::string &node) {
    return strs({"entry", "(", "name", name, "node"}) + node + str(")");
}
std::string directory(const std::string &entries) {
    return strs({"(", "type", "directory"}) + entries + str(")");
}
std::string archive(const std::string &node) {
    return str("nix-archive-1") + node;
}

std::string nested(size_t depth) {
    std::string before, after;
    for (size_t i = 1; i < depth; i++) {
        before += strs({"(", "type", "directory", "entry", "(", "name", "d", "node"});
        after += strs({")", ")"});
    }
    return archive(before + directory("") + after);
}

/// Writes down what it is told.
class RecordingVisitor : public NarVisitor {
  public:
    void beginDirectory(const std::string &name) override { events += "dir " + name + "\n"; }
    void endDirectory() override { events += "end\n"; }
    void beginFile(const std::string &name, bool executable, uint64_t size) override {
        events += (executable ? "run " : "file ") + name + " " + std::to_string(size) + " ";
    }
    void fileContents(std::string_view bytes) override {
        events += bytes.size() < 100 ? bytes : "...";
        largestBlock = std::max(largestBlock, bytes.size());
    }
    void endFile() override { events += "\n"; }
    void symlink(const std::string &name, const std::string &target) override {
        events += "link " + name + " " + target + "\n";
    }

    std::string events;
    size_t largestBlock = 0;
};

std::string parse(const std::string &bytes, const NarLimits &limits = {}) {
    StringSource source(bytes);
    RecordingVisitor visitor;
    parseNar(source, visitor, limits);
    EXPECT_EQ(source.rest(), "") << "bytes are left";
    return visitor.events;
}

std::string refusal(const std::string &bytes) {
    return expectError(ErrorKind::badInput, [&] { parse(bytes); });
}

// ---- the parser

TEST(NarParser, ReportsEveryPartInOrder) {
    std::string bytes = archive(
        directory(entry("a", file("abc")) + entry("b", directory(entry("c", link("../x")))) +
                  entry("d", strs({"(", "type", "regular", "executable", "", "contents", "12345678", ")"}))));
    EXPECT_EQ(parse(bytes), "dir \nfile a 3 abc\ndir b\nlink c ../x\nend\nrun d 8 12345678\nend\n");
}

TEST(NarParser, TakesASingleFileOrLinkAsRoot) {
    EXPECT_EQ(parse(archive(file(""))), "file  0 \n");
    EXPECT_EQ(parse(archive(link("/x"))), "link  /x\n");
}

TEST(NarParser, ConsumesNothingAfterTheArchive) {
    std::string bytes = archive(file("x")) + "rest";
    StringSource source(bytes);
    RecordingVisitor visitor;
    parseNar(source, visitor);
    EXPECT_EQ(source.rest(), "rest");
}

TEST(NarParser, RefusesATruncationAtEveryByte) {
    std::string bytes = archive(directory(entry("a", file("abc")) + entry("b", link("t"))));
    for (size_t length = 0; length < bytes.size(); length++) {
        refusal(bytes.substr(0, length));
    }
}

// Either refused or a different archive: no byte is ignored.
TEST(NarParser, IgnoresNoBit) {
    std::string bytes = archive(directory(entry("a", file("abc")) + entry("b", link("t"))));
    std::string expected = parse(bytes);
    for (size_t i = 0; i < bytes.size() * 8; i++) {
        std::string changed = bytes;
        changed[i / 8] ^= 1 << i % 8;
        try {
            EXPECT_NE(parse(changed), expected) << "bit " << i;
        } catch (const Error &e) {
            EXPECT_EQ(e.kind(), ErrorKind::badInput);
        }
    }
}

TEST(NarParser, RefusesNamesThatLeaveTheirDirectory) {
    for (const std::string &name : {""s, "."s, ".."s, "/"s, "a/b"s, "../x"s, "/etc"s, "a\0b"s, "\0"s}) {
        refusal(archive(directory(entry(name, file("")))));
    }
    EXPECT_EQ(parse(archive(directory(entry("...", file(""))))), "dir \nfile ... 0 \nend\n");
}

TEST(NarParser, RefusesDuplicateAndUnsortedNames) {
    EXPECT_NE(refusal(archive(directory(entry("a", file("")) + entry("a", file(""))))).find("ascend"),
              std::string::npos);
    refusal(archive(directory(entry("a", link("/etc")) + entry("a", directory("")))));
    refusal(archive(directory(entry("b", file("")) + entry("a", file("")))));
    refusal(archive(directory(entry("a", file("")) + entry("B", file("")))));
    refusal(archive(directory(entry("\xff", file("")) + entry("a", file("")))));
    refusal(archive(directory(entry("a", directory(entry("x", file("")))) + entry("a", file("")))));
    EXPECT_NO_THROW(parse(archive(directory(entry("a", file("")) + entry("\xff", file(""))))));
}

TEST(NarParser, StopsExactlyAtItsLimits) {
    NarLimits limits{.maxDepth = 3, .maxNameLength = 5, .maxTargetLength = 4};
    EXPECT_NO_THROW(parse(nested(3), limits));
    EXPECT_NO_THROW(parse(archive(directory(entry("12345", link("1234")))), limits));
    for (const std::string &bytes :
         {nested(4), archive(directory(entry("123456", file("")))), archive(link("12345"))}) {
        expectError(ErrorKind::badInput, [&] { parse(bytes, limits); });
    }
}

TEST(NarParser, StopsAtTheStandardDepthWithoutRecursing) {
    EXPECT_NO_THROW(parse(nested(1024)));
    EXPECT_NE(refusal(nested(1025)).find("1024"), std::string::npos);
    EXPECT_NO_THROW(parse(nested(500000), {.maxDepth = 500000}));
}

TEST(NarParser, RefusesLengthsNoFileHas) {
    for (uint64_t size : {UINT64_MAX, UINT64_MAX - 6, UINT64_MAX - 7, UINT64_MAX - 8, uint64_t(1) << 63}) {
        refusal(number(size));
        refusal(archive(strs({"(", "type", "regular", "contents"}) + number(size) + "x"));
        refusal(archive(strs({"(", "type", "symlink", "target"}) + number(size) + "x"));
        refusal(archive(strs({"(", "type", "directory", "entry", "(", "name"}) + number(size) + "x"));
    }
}

TEST(NarParser, AllocatesNothingForABigClaim) {
    refusal(archive(strs({"(", "type", "regular", "contents"}) + number(uint64_t(1) << 61) + "x"));
}

TEST(NarParser, RefusesPaddingThatIsNotZero) {
    for (size_t i = 1; i <= 7; i++) {
        std::string bytes =
            archive(strs({"(", "type", "regular", "contents"}) + number(1) + "x\0\0\0\0\0\0\0"s + str(")"));
        bytes[bytes.size() - 16 - i] = 1;
        EXPECT_NE(refusal(bytes).find("padding"), std::string::npos);
    }
    std::string magic = archive(file(""));
    magic[8 + 13] = 1;
    refusal(magic);
}

TEST(NarParser, RefusesOtherWordsAndOrders) {
    for (const std::string &node : std::vector<std::string>{
             strs({"(", "type", "fifo", ")"}),
             strs({"(", ")"}),
             strs({"(", "type", "regular", ")"}),
             strs({"(", "type", "regular", "contents", "x", "executable", "", ")"}),
             strs({"(", "type", "regular", "executable", "yes", "contents", "x", ")"}),
             strs({"(", "type", "regular", "executable", "", "executable", "", "contents", "x", ")"}),
             strs({"(", "type", "regular", "contents", "x", "contents", "y", ")"}),
             strs({"(", "type", "regular", "type", "directory", ")"}),
             strs({"(", "type", "regular", "target", "x", ")"}),
             strs({"(", "type", "symlink", ")"}),
             strs({"(", "type", "symlink", "target", "", ")"}),
             strs({"(", "type", "symlink", "target", "a\0b"s, ")"}),
             strs({"(", "type", "symlink", "target", "a", "target", "b", ")"}),
             strs({"(", "type", "directory", "entry", "(", "node"}) + file("") +
                 strs({"name", "a", ")", ")"}),
             strs({"(", "type", "directory", "entry", "(", "name", "a", ")", ")"}),
             strs({"(", "type", "directory", "entry", "(", "name", "a", "node"}) + file("") + file("") +
                 strs({")", ")"}),
             strs({"(", "type", "directory", "executable", "", ")"}),
         }) {
        refusal(archive(node));
    }
    refusal(str("nix-archive-2") + file(""));
    refusal(file(""));
    refusal("");
}

TEST(NarParser, HandsContentsOnInBlocks) {
    std::string bytes = archive(file(std::string(1000001, 'x')));
    StringSource source(bytes);
    RecordingVisitor visitor;
    parseNar(source, visitor);
    EXPECT_GE(visitor.largestBlock, 64 * 1024);
    EXPECT_LE(visitor.largestBlock, 1024 * 1024);
}

TEST(NarParser, MessagesShowNoControlCharacters) {
    EXPECT_EQ(refusal(archive(directory(entry("\x1b[31m/", file(""))))).find('\x1b'), std::string::npos);
}

// ---- the writer

TEST(NarWriter, WritesWhatTheFormatSays) {
    StringSink sink;
    NarWriter writer(sink);
    writer.begin();
    writer.beginDirectory();
    writer.beginEntry("a");
    writer.beginFile(true, 3);
    writer.contents("a");
    writer.contents("bc");
    writer.endFile();
    writer.endEntry();
    writer.beginEntry("link");
    writer.symlink("target/1");
    writer.endEntry();
    writer.endDirectory();
    EXPECT_EQ(sink.text, archive(directory(entry("a", strs({"(", "type", "regular", "executable", "",
                                                            "contents", "abc", ")"})) +
                                           entry("link", link("target/1")))));
}

TEST(NarWriter, AFileOfAnotherSizeThanAnnouncedIsABug) {
    NullSink sink;
    NarWriter writer(sink);
    writer.beginFile(false, 2);
    expectError(ErrorKind::bug, [&] { writer.contents("abc"); });
    writer.contents("a");
    expectError(ErrorKind::bug, [&] { writer.endFile(); });
}

TEST(DumpNarOfString, IsTheArchiveOfThatFile) {
    StringSink plain, runnable;
    dumpNarOfString("abc", plain);
    dumpNarOfString("abc", runnable, true);
    EXPECT_EQ(plain.text, archive(file("abc")));
    EXPECT_EQ(runnable.text,
              archive(strs({"(", "type", "regular", "executable", "", "contents", "abc", ")"})));
}

// ---- trees on disk

class NarTree : public testing::Test {
  protected:
    void write(const std::string &name, const std::string &text, mode_t mode = 0644) {
        std::ofstream(scratch_ / name) << text;
        chmod((scratch_ / name).c_str(), mode);
    }

    /// One of everything.
    void makeTree() {
        std::filesystem::create_directories(scratch_ / "tree/dir/sub");
        std::filesystem::create_directories(scratch_ / "tree/empty");
        for (const char *name : {"-", "zero"}) {
            write("tree/"s + name, "");
        }
        write("tree/one", "1");
        write("tree/eight", "12345678");
        write("tree/nine", "123456789");
        write("tree/run", "#!/bin/sh\n", 0755);
        write("tree/dir/sub/file", "deep");
        write("tree/dir/emptyrun", "", 0555);
        write("tree/a b", "a");
        write("tree/a.b", "b");
        write("tree/a", "c");
        write("tree/new\nline", "d");
        write("tree/\xff\xfe", "e");
        write("tree/ünï", "f");
        write("tree/A", "A");
        write("tree/big", std::string(300000, 'q'));
        std::filesystem::create_symlink("../nowhere", scratch_ / "tree/dir/link");
    }

    std::string dump(const std::string &name) {
        StringSink sink;
        dumpNar(scratch_.fd(), name, sink);
        return sink.text;
    }

    void restore(const std::string &bytes, const std::string &name, const NarLimits &limits = {}) {
        StringSource source(bytes);
        restoreNar(source, scratch_.fd(), name, limits);
    }

    TemporaryDirectory scratch_;
};

// `nix-hash --type sha256 --base32` and `nix-store --dump | wc -c` of Nix 2.8.0 on the same tree.
TEST_F(NarTree, HasTheHashAndSizeThatStockNixFinds) {
    makeTree();
    HashAndSize found = hashNar(scratch_.fd(), "tree");
    EXPECT_EQ(found.hash.digits(Encoding::nix32), "037iy8kd2qp1hn2psg3l34bv2f7w2sgy9rxlrj05jj1ljlrwpchk");
    EXPECT_EQ(found.size, 303920);
    EXPECT_EQ(hashNar(scratch_.fd(), "tree/one").hash.digits(Encoding::nix32),
              "0ph7sg2v42irqnrdjhx1niyspaaaw3b88hb2kbl667a835yflg9k");
    EXPECT_EQ(hashNar(scratch_.fd(), "tree/run").hash.digits(Encoding::nix32),
              "0m35wabrvlzjvv71f2xvca3vd91gh9mwvh4mm38h7yb0h9kc30v2");
    EXPECT_EQ(hashNar(scratch_.fd(), "tree/dir/link").hash.digits(Encoding::nix32),
              "06rn9hcxchrda0252ssm1aa5fixn2sxg0kg4xwynqhiwvcf3bckm");
    EXPECT_EQ(hashNar(scratch_.fd(), "tree/zero").hash.digits(Encoding::nix32),
              "0ip26j2h11n1kgkz36rl4akv694yz65hr72q4kv4b3lxcbi65b3p");
    EXPECT_EQ(hashNar(scratch_.fd(), "tree/empty").hash.digits(Encoding::nix32),
              "0sjjj9z1dhilhpc8pq4154czrb79z9cm044jvn75kxcjv6v5l2m5");
}

TEST_F(NarTree, IsByteForByteWhatTheInstalledNixDumps) {
    if (std::system("command -v nix-store >/dev/null") != 0) {
        GTEST_SKIP() << "no stock Nix is installed";
    }
    makeTree();
    std::string base = scratch_.path(); // a store of its own, which the command opens without need
    std::string command = "NIX_STORE_DIR=" + base + "/s NIX_STATE_DIR=" + base + "/v NIX_LOG_DIR=" + base +
                          "/l nix-store --dump " + base + "/tree";
    std::unique_ptr<FILE, int (*)(FILE *)> pipe(popen(command.c_str(), "r"), pclose);
    FdSource source(fileno(pipe.get()));
    StringSink sink;
    copyAll(source, sink);
    EXPECT_TRUE(dump("tree") == sink.text) << "the archives differ";
}

TEST_F(NarTree, ComesBackTheSame) {
    makeTree();
    std::string bytes = dump("tree");
    restore(bytes, "copy");
    EXPECT_TRUE(dump("copy") == bytes);
    struct stat st;
    ASSERT_TRUE(statAt(scratch_.fd(), "copy/run", st));
    EXPECT_EQ(st.st_mode & 0777, 0555);
    ASSERT_TRUE(statAt(scratch_.fd(), "copy/one", st));
    EXPECT_EQ(st.st_mode & 0777, 0444);
}

TEST_F(NarTree, ComesBackFromBytesThatTrickleIn) {
    class Trickle : public Source {
      public:
        explicit Trickle(std::string_view bytes) : source_(bytes) {}
        size_t read(char *buffer, size_t size) override {
            return source_.read(buffer, std::min<size_t>(size, 1));
        }

      private:
        StringSource source_;
    };
    makeTree();
    std::string bytes = dump("tree");
    Trickle source(bytes);
    restoreNar(source, scratch_.fd(), "copy");
    EXPECT_TRUE(dump("copy") == bytes);
}

TEST_F(NarTree, DepthIsBoundedByLimitsOnly) {
    std::string bytes = nested(5000);
    expectError(ErrorKind::badInput, [&] { restore(bytes, "refused"); });
    restore(bytes, "deep", {.maxDepth = 5000});
    EXPECT_TRUE(dump("deep") == bytes);
    removeTree(scratch_.fd(), "deep");
    removeTree(scratch_.fd(), "refused");
}

TEST_F(NarTree, RefusesOtherFileTypes) {
    std::filesystem::create_directories(scratch_ / "tree");
    mkfifo((scratch_ / "tree" / "pipe").c_str(), 0600);
    std::string message = expectError(ErrorKind::badInput, [&] { dump("tree"); });
    EXPECT_NE(message.find("'tree/pipe'"), std::string::npos) << message;
}

TEST_F(NarTree, SaysThatThereIsNothingToDump) {
    std::string message = expectError(ErrorKind::system, [&] { dump("none"); });
    EXPECT_EQ(message, "making an archive of 'none': No such file or directory");
}

TEST_F(NarTree, DoesNotFollowASymlinkAsRoot) {
    std::filesystem::create_symlink("/etc/passwd", scratch_ / "link");
    EXPECT_EQ(dump("link"), archive(link("/etc/passwd")));
}

/// Does something once, when the first bytes of a file's contents come.
class MeddlingSink : public NullSink {
  public:
    explicit MeddlingSink(std::function<void()> meddle) : meddle_(std::move(meddle)) {}
    void write(std::string_view bytes) override {
        if (bytes.size() > 1000 && meddle_) {
            std::exchange(meddle_, nullptr)();
        }
    }

  private:
    std::function<void()> meddle_;
};

TEST_F(NarTree, NoticesAFileThatGrowsOrShrinks) {
    for (size_t size : {1000, 2000000}) {
        write("file", std::string(1000000, 'x'));
        std::string path = scratch_ / "file";
        MeddlingSink sink([&] { ASSERT_EQ(truncate(path.c_str(), size), 0); });
        expectError(ErrorKind::failure, [&] { dumpNar(scratch_.fd(), "file", sink); });
    }
}

TEST_F(NarTree, RestoreMeetsNothingThatWasThereBefore) {
    std::filesystem::create_directories(scratch_ / "outside");
    write("outside/file", "precious");
    std::filesystem::create_symlink("outside", scratch_ / "to-dir");
    std::filesystem::create_symlink("outside/file", scratch_ / "to-file");
    std::filesystem::create_symlink("outside/new", scratch_ / "dangling");
    for (const char *name : {"to-dir", "to-file", "dangling", "outside"}) {
        for (const std::string &node : {file("evil"), directory(entry("file", file("evil"))), link("evil")}) {
            expectError(ErrorKind::system, [&] { restore(archive(node), name); });
        }
    }
    EXPECT_EQ(readFile(scratch_ / "outside" / "file"), "precious");
    EXPECT_EQ(listDirectory(scratch_.fd()),
              (std::vector<std::string>{"dangling", "outside", "to-dir", "to-file"}));
    EXPECT_FALSE(std::filesystem::exists(scratch_ / "outside" / "new"));
}

/// Plants a symlink where a directory was just made, as somebody with access would.
class PlantingSource : public Source {
  public:
    PlantingSource(std::string_view bytes, size_t at, std::function<void()> plant)
        : source_(bytes), left_(at), plant_(std::move(plant)) {}
    size_t read(char *buffer, size_t size) override {
        if (left_ == 0 && plant_) {
            std::exchange(plant_, nullptr)();
        }
        size_t count = source_.read(buffer, left_ == 0 ? size : std::min(size, left_));
        left_ -= std::min(left_, count);
        return count;
    }

  private:
    StringSource source_;
    size_t left_;
    std::function<void()> plant_;
};

TEST_F(NarTree, RestoreDoesNotFollowASymlinkPlantedWhileItRuns) {
    std::filesystem::create_directories(scratch_ / "outside");
    std::string inner = entry("d", directory(entry("file", file("evil"))));
    std::string bytes = archive(directory(entry("a", file("")) + inner));
    size_t at = archive(directory(entry("a", file("")))).size() - str(")").size(); // "d" comes next
    PlantingSource planted(
        bytes, at, [&] { std::filesystem::create_directory_symlink("../outside", scratch_ / "new" / "d"); });
    expectError(ErrorKind::system, [&] { restoreNar(planted, scratch_.fd(), "new"); });

    size_t inside = bytes.find("file", at); // after "d" was made and entered
    PlantingSource replaced(bytes, inside, [&] {
        std::filesystem::rename(scratch_ / "second" / "d", scratch_ / "second" / "moved");
        std::filesystem::create_directory_symlink("../outside", scratch_ / "second" / "d");
    });
    restoreNar(replaced, scratch_.fd(), "second");
    EXPECT_TRUE(std::filesystem::is_empty(scratch_ / "outside"));
}

} // namespace
} // namespace firn
