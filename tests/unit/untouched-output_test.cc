#include "libstore/build/untouched-output.hh"

#include <filesystem>
#include <fstream>
#include <functional>

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/interrupt.hh"
#include "unit/temporary-directory.hh"

namespace firn {
namespace {

namespace fs = std::filesystem;

/// A tree in a store, and the list of one that was built the same.
class LooksUntouched : public testing::Test {
  protected:
    LooksUntouched() {
        for (const char *name : {"registered", "built"}) {
            fs::create_directories(tmp_ / name / "dir" / "sub");
            fs::create_directories(tmp_ / name / "empty");
            write(tmp_ / name / "dir" / "sub" / "deep", "deep");
            write(tmp_ / name / "file", "text");
            write(tmp_ / name / "tool", "tool");
            chmod((tmp_ / name / "tool").c_str(), 0755);
            fs::create_symlink("file", tmp_ / name / "link");
            LinkCounts links;
            OutputTree tree =
                collectOutput(tmp_.fd(), name, {name, "out", static_cast<uid_t>(-1), {}}, links);
            tree_ = std::move(tree);
        }
        for (const fs::path directory :
             {"registered", "registered/dir", "registered/dir/sub", "registered/empty"}) {
            chmod((tmp_ / directory).c_str(), 0755);
        }
    }

    static void write(const fs::path &path, const std::string &text) { std::ofstream(path) << text; }

    static void setTime(const fs::path &path, time_t seconds) {
        struct timespec times[2] = {{0, UTIME_OMIT}, {seconds, 0}};
        ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW), 0);
    }

    bool looks() { return looksUntouched(tmp_.fd(), "registered", tree_); }

    TemporaryDirectory tmp_;
    fs::path tree() const { return tmp_ / "registered"; }
    OutputTree tree_; ///< of "built"
};

TEST_F(LooksUntouched, IsSaidOfWhatIsAsItWasRegistered) {
    EXPECT_TRUE(looks());
    EXPECT_TRUE(looksUntouched(tmp_.fd(), "built", tree_));
    EXPECT_FALSE(looksUntouched(tmp_.fd(), "nothing", tree_));
}

TEST_F(LooksUntouched, IsNotSaidWhereAFileHasAnotherTimeModeSizeOrOwner) {
    setTime(tree() / "file", 2);
    EXPECT_FALSE(looks());
    setTime(tree() / "file", 1);
    EXPECT_TRUE(looks());
    if (geteuid() == 0) { // others cannot give one away
        EXPECT_EQ(chown((tree() / "file").c_str(), 1, 1), 0);
        EXPECT_FALSE(looks());
        EXPECT_EQ(chown((tree() / "file").c_str(), 0, 0), 0);
    }
    for (mode_t mode : {0644, 0555, 0400}) {
        chmod((tree() / "file").c_str(), mode);
        EXPECT_FALSE(looks()) << mode;
    }
    chmod((tree() / "file").c_str(), 0644);
    write(tree() / "file", "longer text");
    setTime(tree() / "file", 1);
    chmod((tree() / "file").c_str(), 0444);
    EXPECT_FALSE(looks());
}

TEST_F(LooksUntouched, IsNotSaidWhereTheNamesAreOthers) {
    write(tree() / "dir" / "more", "");
    EXPECT_FALSE(looks());
    fs::remove(tree() / "dir" / "more");
    EXPECT_TRUE(looks());
    write(tree() / "empty" / "more", "");
    EXPECT_FALSE(looks());
    fs::remove(tree() / "empty" / "more");
    fs::rename(tree() / "file", tree() / "gile");
    EXPECT_FALSE(looks());
    fs::remove(tree() / "gile");
    EXPECT_FALSE(looks());
}

TEST_F(LooksUntouched, IsNotSaidWhereSomethingIsOfAnotherTypeOrHasAnotherTarget) {
    fs::remove(tree() / "link");
    fs::create_symlink("tool", tree() / "link");
    EXPECT_FALSE(looks());
    fs::remove(tree() / "link");
    fs::create_symlink("file", tree() / "link");
    EXPECT_TRUE(looks());
    fs::remove_all(tree() / "empty");
    fs::create_symlink("dir", tree() / "empty");
    EXPECT_FALSE(looks());
    fs::remove(tree() / "empty");
    fs::create_directory(tree() / "empty");
    EXPECT_TRUE(looks());
    fs::remove(tree() / "file");
    fs::create_directory(tree() / "file");
    EXPECT_FALSE(looks());
}

TEST_F(LooksUntouched, IsSaidTheSameByAThreadOfItsOwn) {
    auto look = [&](const std::string &entry) {
        return UntouchedLook(tmp_.fd(), entry, tree_).finish().get();
    };
    EXPECT_TRUE(look("registered"));
    EXPECT_FALSE(look("nothing"));
    setTime(tree() / "file", 2);
    EXPECT_FALSE(look("registered"));
    UntouchedLook(tmp_.fd(), "registered", tree_); // nobody asks
}

TEST_F(LooksUntouched, WhatAThreadThrewIsThrownWhereItIsAsked) {
    requestInterrupt();
    std::shared_future<bool> answer = UntouchedLook(tmp_.fd(), "registered", tree_).finish();
    clearInterrupt();
    for (int i = 0; i < 2; ++i) {
        EXPECT_THROW(answer.get(), Error);
    }
}

TEST_F(LooksUntouched, TheRootMayBeAFileOrASymlink) {
    write(tmp_ / "one", "text");
    fs::create_symlink("file", tmp_ / "two");
    for (const char *name : {"one", "two"}) {
        LinkCounts links;
        tree_ = collectOutput(tmp_.fd(), name, {name, "out", static_cast<uid_t>(-1), {}}, links);
        EXPECT_TRUE(looksUntouched(tmp_.fd(), name, tree_)) << name;
        EXPECT_FALSE(looks()) << name;
    }
}

} // namespace
} // namespace firn
