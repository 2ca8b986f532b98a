#include <fstream>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "libutil/files.hh"
#include "unit/expect-error.hh"
#include "unit/temporary-directory.hh"

namespace firn {
namespace {

/// Allows this process only few descriptors for a while.
class FewDescriptors {
  public:
    explicit FewDescriptors(rlim_t count = 100) {
        getrlimit(RLIMIT_NOFILE, &old_);
        struct rlimit few = old_;
        few.rlim_cur = count;
        setrlimit(RLIMIT_NOFILE, &few);
    }
    ~FewDescriptors() { setrlimit(RLIMIT_NOFILE, &old_); }

  private:
    struct rlimit old_;
};

class RemoveTree : public testing::Test {
  protected:
    void write(const std::filesystem::path &path, const std::string &text) { std::ofstream(path) << text; }

    TemporaryDirectory scratch_;
};

TEST_F(RemoveTree, RemovesFilesOfEveryType) {
    std::filesystem::create_directories(scratch_ / "tree" / "dir" / "sub");
    write(scratch_ / "tree" / "file", "x");
    write(scratch_ / "tree" / "dir" / "sub" / "new\nline", "x");
    mkfifo((scratch_ / "tree" / "pipe").c_str(), 0);
    std::filesystem::create_symlink("nowhere", scratch_ / "tree" / "link");
    removeTree(scratch_.fd(), "tree");
    EXPECT_TRUE(std::filesystem::is_empty(scratch_.path()));
}

TEST_F(RemoveTree, RemovesASingleFileOrSymlink) {
    write(scratch_ / "file", "x");
    std::filesystem::create_symlink("file", scratch_ / "link");
    removeTree(scratch_.fd(), "link");
    EXPECT_TRUE(std::filesystem::exists(scratch_ / "file"));
    removeTree(scratch_.fd(), "file");
    EXPECT_TRUE(std::filesystem::is_empty(scratch_.path()));
}

TEST_F(RemoveTree, AMissingNameIsFine) {
    removeTree(scratch_.fd(), "none");
    EXPECT_EQ(removeTreeCounting(scratch_.fd(), "none"), 0);
}

TEST_F(RemoveTree, LeavesAloneWhatSymlinksPointTo) {
    std::filesystem::create_directories(scratch_ / "outside" / "dir");
    write(scratch_ / "outside" / "file", "precious");
    std::filesystem::create_directories(scratch_ / "tree");
    std::filesystem::create_directory_symlink("../outside", scratch_ / "tree" / "dir");
    std::filesystem::create_symlink("../outside/file", scratch_ / "tree" / "file");
    removeTree(scratch_.fd(), "tree");
    EXPECT_FALSE(std::filesystem::exists(scratch_ / "tree"));
    EXPECT_TRUE(std::filesystem::exists(scratch_ / "outside" / "dir"));
    EXPECT_EQ(readFile(scratch_ / "outside" / "file"), "precious");

    std::filesystem::create_directory_symlink("outside", scratch_ / "tree");
    removeTree(scratch_.fd(), "tree");
    EXPECT_EQ(readFile(scratch_ / "outside" / "file"), "precious");
}

TEST_F(RemoveTree, OpensDirectoriesThatForbidEverything) {
    std::filesystem::create_directories(scratch_ / "tree" / "a" / "b");
    write(scratch_ / "tree" / "a" / "b" / "file", "x");
    for (const char *name : {"tree/a/b", "tree/a", "tree"}) {
        chmod((scratch_ / name).c_str(), 0);
    }
    removeTree(scratch_.fd(), "tree");
    EXPECT_TRUE(std::filesystem::is_empty(scratch_.path()));
}

TEST_F(RemoveTree, CountsBlocksOfFilesWithoutOtherLinks) {
    std::filesystem::create_directories(scratch_ / "tree");
    write(scratch_ / "tree" / "own", std::string(100000, 'x'));
    write(scratch_ / "kept", std::string(100000, 'x'));
    std::filesystem::create_hard_link(scratch_ / "kept", scratch_ / "tree" / "shared");
    struct stat st;
    ASSERT_EQ(stat((scratch_ / "tree" / "own").c_str(), &st), 0);
    EXPECT_EQ(removeTreeCounting(scratch_.fd(), "tree"), static_cast<uint64_t>(st.st_blocks) * 512);
}

TEST_F(RemoveTree, CountsAFileOnceWhenItsLastLinksGo) {
    std::filesystem::create_directories(scratch_ / "tree");
    write(scratch_ / "tree" / "a", std::string(100000, 'x'));
    std::filesystem::create_hard_link(scratch_ / "tree" / "a", scratch_ / "tree" / "b");
    struct stat st;
    ASSERT_EQ(stat((scratch_ / "tree" / "a").c_str(), &st), 0);
    EXPECT_EQ(removeTreeCounting(scratch_.fd(), "tree"), static_cast<uint64_t>(st.st_blocks) * 512);
}

TEST_F(RemoveTree, GoesDeeperThanDescriptorsAndPathsReach) {
    UniqueFd current(dup(scratch_.fd()));
    for (int i = 0; i < 5000; i++) {
        ASSERT_EQ(mkdirat(current.get(), "d", 0700), 0);
        UniqueFd file(openat(current.get(), "f", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
        current.reset(openat(current.get(), "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        ASSERT_TRUE(current);
    }
    current.reset();
    FewDescriptors limit;
    removeTree(scratch_.fd(), "d");
    EXPECT_FALSE(existsAt(scratch_.fd(), "d"));
}

TEST_F(RemoveTree, RemovesWideTreesWhole) {
    for (int i = 0; i < 50; ++i) {
        std::filesystem::path directory = scratch_ / "tree" / std::to_string(i);
        std::filesystem::create_directories(directory / "sub" / "sub");
        write(directory / "file", "x");
        write(directory / "sub" / "sub" / "file", "x");
        write(scratch_ / "tree" / ("file" + std::to_string(i)), "x");
        chmod((directory / "sub").c_str(), 0);
    }
    FewDescriptors limit;
    removeTree(scratch_.fd(), "tree");
    EXPECT_TRUE(std::filesystem::is_empty(scratch_.path()));
}

TEST_F(RemoveTree, RemovesTreesThatAreWideAndDeep) {
    for (Awaited awaited : {Awaited::yes, Awaited::no}) {
        std::filesystem::create_directories(scratch_ / "tree");
        for (int i = 0; i < 40; ++i) {
            UniqueFd current = openDirectory(scratch_ / "tree");
            std::string name = std::to_string(i);
            for (int depth = 0; depth < 100; ++depth) {
                ASSERT_EQ(mkdirat(current.get(), name.c_str(), 0700), 0);
                current.reset(openat(current.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
                ASSERT_TRUE(current);
                UniqueFd file(openat(current.get(), "f", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
                name = "d";
            }
        }
        // Where nobody waits for it, it is to take fewer.
        FewDescriptors limit(awaited == Awaited::yes ? 100 : 40);
        removeTree(scratch_.fd(), "tree", awaited);
        EXPECT_TRUE(std::filesystem::is_empty(scratch_.path()));
    }
}

TEST_F(RemoveTree, SaysWhatItCouldNotRemove) {
    if (geteuid() == 0) {
        std::string message = expectError(ErrorKind::system, [] {
            UniqueFd proc = openDirectory("/proc/self");
            removeTree(proc.get(), "status");
        });
        EXPECT_EQ(message.find("removing 'status'"), 0) << message;
        return;
    }
    std::filesystem::create_directories(scratch_ / "locked");
    write(scratch_ / "locked" / "file", "x");
    chmod((scratch_ / "locked").c_str(), 0500);
    UniqueFd locked = openDirectory(scratch_ / "locked");
    std::string message = expectError(ErrorKind::system, [&] { removeTree(locked.get(), "file"); });
    EXPECT_EQ(message, "removing 'file': Permission denied");
}

} // namespace
} // namespace firn
