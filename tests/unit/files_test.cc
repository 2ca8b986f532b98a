#include "libutil/files.hh"

#include <fstream>

#include <sys/resource.h>
#include <sys/stat.h>

#include "libutil/directory-stack.hh"
#include "unit/expect-error.hh"
#include "unit/temporary-directory.hh"

namespace firn {
namespace {

using Names = std::vector<std::string>;

mode_t modeOf(const std::filesystem::path &path) {
    struct stat st;
    return lstat(path.c_str(), &st) == 0 ? st.st_mode & 07777 : 0;
}

class FilesTest : public testing::Test {
  protected:
    void write(const std::string &name, const std::string &text) { std::ofstream(scratch_ / name) << text; }

    TemporaryDirectory scratch_;
};

TEST_F(FilesTest, ListsNamesSortedBytewiseAgainAndAgain) {
    for (const char *name : {"b", "a", "\xff", "B", "a.b", ".hidden"}) {
        write(name, "");
    }
    Names expected{".hidden", "B", "a", "a.b", "b", "\xff"};
    EXPECT_EQ(listDirectory(scratch_.fd()), expected);
    EXPECT_EQ(listDirectory(scratch_.fd()), expected);
}

TEST_F(FilesTest, ListsEntriesWithTheirTypes) {
    write("file", "");
    mkdir((scratch_ / "dir").c_str(), 0700);
    mkfifo((scratch_ / "pipe").c_str(), 0600);
    std::filesystem::create_symlink("file", scratch_ / "link");
    std::vector<DirectoryEntry> entries = listEntries(scratch_.fd());
    ASSERT_EQ(entries.size(), 4);
    EXPECT_EQ(entries[0].type, FileType::directory);
    EXPECT_EQ(entries[1].type, FileType::regular);
    EXPECT_EQ(entries[2].type, FileType::symlink);
    EXPECT_EQ(entries[3].type, FileType::other);
}

TEST_F(FilesTest, OpensNothingThroughASymlink) {
    write("file", "x");
    std::filesystem::create_symlink("file", scratch_ / "to-file");
    std::filesystem::create_symlink(".", scratch_ / "to-dir");
    expectError(ErrorKind::system, [&] { openFileAt(scratch_.fd(), "to-file"); });
    expectError(ErrorKind::system, [&] { readFileAt(scratch_.fd(), "to-file"); });
    expectError(ErrorKind::system, [&] { openDirectoryAt(scratch_.fd(), "to-dir"); });
    EXPECT_EQ(readFile(scratch_ / "to-file"), "x");
    EXPECT_TRUE(openDirectory(scratch_ / "to-dir"));
}

TEST_F(FilesTest, OpensOnlyWhatItIsAskedFor) {
    write("file", "x");
    mkfifo((scratch_ / "pipe").c_str(), 0600);
    expectError(ErrorKind::badInput, [&] { openFileAt(scratch_.fd(), "pipe"); }); // and does not block
    expectError(ErrorKind::badInput, [&] { openFileAt(scratch_.fd(), "."); });
    expectError(ErrorKind::system, [&] { openDirectoryAt(scratch_.fd(), "file"); });
    std::string message = expectError(ErrorKind::system, [&] { openFileAt(scratch_.fd(), "none"); });
    EXPECT_EQ(message, "opening file 'none': No such file or directory");
}

TEST_F(FilesTest, StatTellsAMissingNameFromAFailure) {
    struct stat st;
    std::filesystem::create_symlink("nowhere", scratch_ / "dangling");
    EXPECT_TRUE(statAt(scratch_.fd(), "dangling", st));
    EXPECT_TRUE(S_ISLNK(st.st_mode));
    EXPECT_FALSE(existsAt(scratch_.fd(), "none"));
    expectError(ErrorKind::system, [&] { existsAt(-1, "none"); });
}

TEST_F(FilesTest, ReadsFilesOfAnySizeUpToTheLimit) {
    for (size_t size : {0, 1, 4095, 4096, 4097, 3000000}) {
        std::string text(size, 'x');
        writeFile(scratch_ / "file", text);
        EXPECT_EQ(readFileAt(scratch_.fd(), "file"), text);
        EXPECT_EQ(readFile(scratch_ / "file", size), text);
        if (size > 0) {
            expectError(ErrorKind::badInput, [&] { readFile(scratch_ / "file", size - 1); });
        }
    }
}

TEST_F(FilesTest, WriteFileReplacesTheContent) {
    writeFile(scratch_ / "file", "long content", 0640);
    writeFile(scratch_ / "file", "short");
    EXPECT_EQ(readFile(scratch_ / "file"), "short");
    EXPECT_EQ(modeOf(scratch_ / "file") & 0007, 0);
    expectError(ErrorKind::system, [&] { writeFile(scratch_ / "none" / "file", ""); });
}

TEST_F(FilesTest, ReadsLongSymlinkTargetsWhole) {
    for (size_t length : {1, 255, 256, 257, 4095}) {
        std::string target(length, 't');
        ASSERT_EQ(symlinkat(target.c_str(), scratch_.fd(), "link"), 0);
        EXPECT_EQ(readLinkAt(scratch_.fd(), "link"), target);
        unlinkat(scratch_.fd(), "link", 0);
    }
    expectError(ErrorKind::system, [&] { readLinkAt(scratch_.fd(), "none"); });
}

TEST_F(FilesTest, MakeDirectoriesMakesWhatIsMissing) {
    makeDirectories(scratch_ / "a" / "b" / "c", 0700);
    makeDirectories(scratch_ / "a" / "b" / "c/", 0700);
    EXPECT_EQ(modeOf(scratch_ / "a" / "b"), 0700);
    std::filesystem::create_symlink("a", scratch_ / "link");
    makeDirectories(scratch_ / "link" / "d");
    EXPECT_TRUE(std::filesystem::is_directory(scratch_ / "a" / "d"));
    write("file", "");
    expectError(ErrorKind::system, [&] { makeDirectories(scratch_ / "file" / "x"); });
    expectError(ErrorKind::system, [&] { makeDirectories(scratch_ / "file"); });
}

TEST_F(FilesTest, TemporaryDirectoriesHaveDistinctNamesAndExactModes) {
    mode_t old = umask(077);
    std::string first = makeTemporaryDirectoryAt(scratch_.fd(), "tmp");
    std::string second = makeTemporaryDirectoryAt(scratch_.fd(), "tmp", 0755);
    umask(old);
    EXPECT_NE(first, second);
    EXPECT_EQ(first.find("tmp-"), 0);
    EXPECT_EQ(modeOf(scratch_ / first), 0700);
    EXPECT_EQ(modeOf(scratch_ / second), 0755);
}

TEST_F(FilesTest, SyncsFilesAndDirectories) {
    EXPECT_NO_THROW(syncFd(scratch_.fd()));
    expectError(ErrorKind::system, [] { syncFd(-1); });
}

TEST(ScopeExitTest, RunsUnlessCancelled) {
    int runs = 0;
    {
        ScopeExit guard([&] { runs++; });
    }
    {
        ScopeExit guard([&] { runs++; });
        guard.cancel();
    }
    EXPECT_EQ(runs, 1);
}

TEST_F(FilesTest, DirectoryStackFindsItsWayBackWithFewDescriptorsOpen) {
    DirectoryStack way(scratch_.fd(), 3);
    for (int i = 0; i < 200; i++) {
        ASSERT_EQ(mkdirat(way.current(), "d", 0700), 0);
        way.enter("d");
    }
    for (int depth = 200; depth > 0; depth--) {
        EXPECT_EQ(listDirectory(way.current()), depth == 200 ? Names{} : Names{"d"});
        EXPECT_EQ(way.leave(), "d");
    }
    EXPECT_EQ(way.current(), scratch_.fd());
}

TEST_F(FilesTest, DirectoryStackNoticesThatItsPlaceWasMoved) {
    makeDirectories(scratch_ / "a" / "b" / "c");
    makeDirectories(scratch_ / "elsewhere");
    DirectoryStack way(scratch_.fd(), 1);
    way.enter("a");
    way.enter("b");
    way.enter("c");
    std::filesystem::rename(scratch_ / "a" / "b" / "c", scratch_ / "elsewhere" / "c");
    expectError(ErrorKind::refused, [&] { way.leave(); });
}

} // namespace
} // namespace firn
