#include "libstore/build/build-directory.hh"

#include <csignal>
#include <cstdlib>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libutil/error.hh"
#include "libutil/files.hh"

namespace firn {
namespace {

namespace fs = std::filesystem;

class BuildDirectoryTest : public testing::Test {
  protected:
    void SetUp() override {
        char name[] = "/tmp/firn-build-dirs-XXXXXX";
        ASSERT_NE(mkdtemp(name), nullptr);
        base = fs::canonical(name);
        own = base / fmt::format("firn-{}", geteuid());
    }
    void TearDown() override { removeTree(AT_FDCWD, base); }

    fs::path base, own;
};

mode_t modeOf(const fs::path &path) {
    struct stat st;
    EXPECT_EQ(lstat(path.c_str(), &st), 0) << path;
    return st.st_mode & 07777;
}

TEST_F(BuildDirectoryTest, liesWhereNobodyElseCanEnterAndGoesAway) {
    fs::path path;
    {
        BuildDirectories directories(base);
        EXPECT_EQ(modeOf(own), 0700u);
        BuildDirectory directory = directories.make();
        path = directory.path();
        EXPECT_EQ(path.parent_path(), own);
        EXPECT_EQ(modeOf(path), 0700u);
        writeFile(path / "file", "x");
        fs::create_directory(path / "locked");
        writeFile(path / "locked" / "inside", "x");
        chmod((path / "locked").c_str(), 0);
    }
    EXPECT_TRUE(fs::is_empty(base));
}

TEST_F(BuildDirectoryTest, isMadeAlsoWhenAnotherProcessRemovedTheCommonOne) {
    BuildDirectories ours(base);
    { BuildDirectories theirs(base); }
    ASSERT_FALSE(fs::exists(own));
    BuildDirectory directory = ours.make();
    EXPECT_TRUE(fs::exists(directory.path()));
}

TEST_F(BuildDirectoryTest, isSweptWhenItsDaemonIsDeadAndNotBefore) {
    Pipe ready = makePipe();
    pid_t child = fork();
    if (child == 0) {
        BuildDirectories theirs(base);
        BuildDirectory directory = theirs.make();
        writeFile(directory.path() / "left", "behind");
        writeFull(ready.writeEnd.get(), "x");
        pause();
        _exit(1);
    }
    char byte;
    ASSERT_EQ(read(ready.readEnd.get(), &byte, 1), 1);
    BuildDirectories ours(base);
    UniqueFd fd = openDirectory(own);
    EXPECT_EQ(listDirectory(fd.get()).size(), 1u);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    BuildDirectories later(base);
    EXPECT_EQ(listDirectory(fd.get()).size(), 0u);
}

TEST_F(BuildDirectoryTest, isKeptUnderANameThatTellsTheDerivation) {
    BuildDirectories directories(base);
    for (int i = 0; i < 2; i++) {
        BuildDirectory directory = directories.make();
        writeFile(directory.path() / "file", "x");
        fs::path kept = directory.keep("hello", geteuid(), geteuid(), getegid());
        EXPECT_EQ(kept, base / fmt::format("nix-build-hello-{}", i));
    }
    EXPECT_TRUE(fs::exists(base / "nix-build-hello-0" / "file"));
    EXPECT_TRUE(fs::exists(base / "nix-build-hello-1" / "file"));
}

TEST_F(BuildDirectoryTest, givesAwayOnlyWhatWasTheBuilders) {
    if (geteuid() != 0) {
        GTEST_SKIP() << "only root gives files away";
    }
    constexpr uid_t builder = 12345, client = 12346;
    BuildDirectories directories(base);
    BuildDirectory directory = directories.make();
    directory.giveTo(builder, builder);
    writeFile(base / "precious", "root's");
    fs::create_hard_link(base / "precious", directory.path() / "linked");
    fs::create_symlink(base / "precious", directory.path() / "link");
    writeFile(directory.path() / "own", "x");
    ASSERT_EQ(lchown((directory.path() / "own").c_str(), builder, builder), 0);
    ASSERT_EQ(lchown((directory.path() / "link").c_str(), builder, builder), 0);
    fs::path kept = directory.keep("x", builder, client, client);
    struct stat st;
    ASSERT_EQ(lstat((kept / "own").c_str(), &st), 0);
    EXPECT_EQ(st.st_uid, client);
    ASSERT_EQ(lstat((kept / "link").c_str(), &st), 0);
    EXPECT_EQ(st.st_uid, client);
    ASSERT_EQ(lstat((base / "precious").c_str(), &st), 0);
    EXPECT_EQ(st.st_uid, 0u);
}

TEST_F(BuildDirectoryTest, givesAwayTreesOfAnyDepthAndFilesOfAnyType) {
    if (geteuid() != 0) {
        GTEST_SKIP() << "only root gives files away";
    }
    constexpr uid_t builder = 12345, client = 12346;
    constexpr int depth = 600;
    BuildDirectories directories(base);
    BuildDirectory directory = directories.make();
    directory.giveTo(builder, builder);
    auto descend = [](UniqueFd &way) { way = openDirectoryAt(way.get(), "d"); };
    UniqueFd way = openDirectory(directory.path());
    for (int i = 0; i < depth; i++) {
        ASSERT_EQ(mkdirat(way.get(), "d", 0700), 0);
        ASSERT_EQ(fchownat(way.get(), "d", builder, builder, 0), 0);
        descend(way);
    }
    ASSERT_EQ(mknodat(way.get(), "fifo", S_IFIFO | 0600, 0), 0);
    ASSERT_EQ(fchownat(way.get(), "fifo", builder, builder, 0), 0);
    way = openDirectory(directory.keep("deep", builder, client, client));
    for (int i = 0; i < depth; i++) {
        descend(way);
    }
    struct stat st;
    ASSERT_TRUE(statAt(way.get(), "fifo", st));
    EXPECT_EQ(st.st_uid, client);
    ASSERT_EQ(fstat(way.get(), &st), 0);
    EXPECT_EQ(st.st_uid, client);
    UniqueFd top = openDirectory(base);
    removeTree(top.get(), "nix-build-deep-0");
}

TEST_F(BuildDirectoryTest, isElsewhereWhenSomebodyTookTheName) {
    fs::create_directory(base / "target");
    fs::create_symlink(base / "target", own);
    fs::path path;
    {
        BuildDirectories directories(base);
        BuildDirectory directory = directories.make();
        path = directory.path().parent_path();
        EXPECT_NE(path, own);
        EXPECT_EQ(modeOf(path), 0700u);
    }
    EXPECT_FALSE(fs::exists(path));
    EXPECT_TRUE(fs::is_empty(base / "target"));
}

TEST_F(BuildDirectoryTest, isSweptElsewhereToo) {
    writeFile(own, "in the way");
    fs::path left = base / (own.filename().string() + "-0123456789abcdfg");
    fs::path others = base / (own.filename().string() + "-somebody");
    for (const fs::path &parent : {left, others}) {
        fs::create_directories(parent / "1-1" / "files");
    }
    BuildDirectories::sweepLeftovers(base);
    EXPECT_FALSE(fs::exists(left));
    EXPECT_TRUE(fs::exists(others / "1-1" / "files"));
    EXPECT_TRUE(fs::exists(own));
}

TEST_F(BuildDirectoryTest, staysOpenToBuildersOnceItIs) {
    gid_t group = geteuid() == 0 ? 12345 : getegid();
    BuildDirectories directories(base);
    EXPECT_EQ(modeOf(own), 0700u);
    directories.openTo(group);
    EXPECT_EQ(modeOf(own), 0710u);
    BuildDirectories others(base);
    EXPECT_EQ(modeOf(own), 0710u);
    struct stat st;
    ASSERT_EQ(lstat(own.c_str(), &st), 0);
    EXPECT_EQ(st.st_gid, group);
}

TEST_F(BuildDirectoryTest, isClosedToOthersWhateverItWas) {
    fs::create_directory(own);
    chmod(own.c_str(), 0777);
    BuildDirectories directories(base);
    EXPECT_EQ(modeOf(own), 0700u);
}

TEST_F(BuildDirectoryTest, ofAnOverlayKeepsTheUpperDirectoryAlone) {
    BuildDirectories directories(base);
    BuildDirectory directory = directories.make();
    directory.makeOverlay();
    writeFile(directory.path() / "upper" / "file", "x");
    // As the kernel leaves it.
    fs::create_directory(directory.path() / "work" / "work");
    chmod((directory.path() / "work" / "work").c_str(), 0);
    fs::path kept = directory.keep("x", geteuid(), geteuid(), getegid());
    EXPECT_TRUE(fs::exists(kept / "file"));
    EXPECT_TRUE(fs::is_empty(own));
}

TEST_F(BuildDirectoryTest, leavesRoomForASocketsName) {
    BuildDirectories directories(base);
    BuildDirectory directory = directories.make();
    EXPECT_LE(directory.path().string().size() - base.string().size(), 40u);
}

TEST_F(BuildDirectoryTest, isRefusedWhereOthersCouldReplaceIt) {
    chmod(base.c_str(), 0777);
    EXPECT_THROW(BuildDirectories{base}, Error);
    chmod(base.c_str(), 01777);
    EXPECT_NO_THROW(BuildDirectories{base});
}

TEST_F(BuildDirectoryTest, isChosenBySettingThenTmpdirThenState) {
    Locations locations;
    locations.stateDir = "/state";
    Settings settings;
    std::string old = getenv("TMPDIR") ? getenv("TMPDIR") : "";
    unsetenv("TMPDIR");
    EXPECT_EQ(BuildDirectories::chooseBase(locations, settings), "/state/builds");
    setenv("TMPDIR", "/elsewhere", 1);
    EXPECT_EQ(BuildDirectories::chooseBase(locations, settings), "/elsewhere");
    settings.buildDir = "/chosen";
    EXPECT_EQ(BuildDirectories::chooseBase(locations, settings), "/chosen");
    old.empty() ? unsetenv("TMPDIR") : setenv("TMPDIR", old.c_str(), 1);
}

} // namespace
} // namespace firn
