// Mounts are made in a user and mount namespace of a child process, so that any user can run this.

#include <fstream>

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libutil/error.hh"
#include "libutil/files.hh"
#include "unit/temporary-directory.hh"

namespace firn {
namespace {

constexpr int noNamespaces = 77;

void writeText(const char *path, const std::string &text) {
    std::ofstream(path) << text;
}

bool enterNamespaces() {
    uid_t uid = geteuid();
    gid_t gid = getegid();
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) {
        return false;
    }
    writeText("/proc/self/setgroups", "deny");
    writeText("/proc/self/uid_map", "0 " + std::to_string(uid) + " 1");
    writeText("/proc/self/gid_map", "0 " + std::to_string(gid) + " 1");
    return mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}

/// Runs `action` in namespaces of its own; returns 0 if it returned true.
template<typename Action>
int runWithMounts(Action &&action) {
    pid_t child = fork();
    if (child == 0) {
        if (!enterNamespaces()) {
            _exit(noNamespaces);
        }
        try {
            _exit(action() ? 0 : 1);
        } catch (const std::exception &e) {
            fprintf(stderr, "%s\n", e.what());
            _exit(2);
        }
    }
    int status = -1;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

class RemoveTreeWithMounts : public testing::Test {
  protected:
    void SetUp() override {
        if (runWithMounts([] { return true; }) == noNamespaces) {
            GTEST_SKIP() << "this host does not allow user namespaces";
        }
        std::filesystem::create_directories(scratch_ / "tree" / "mounted");
        std::filesystem::create_directories(scratch_ / "outside");
        writeFile(scratch_ / "outside" / "file", "precious");
    }

    bool isRefused() {
        try {
            // Opened here: scratch_'s own descriptor sees the mounts of the namespace it was opened in.
            removeTree(openDirectory(scratch_.path()).get(), "tree");
        } catch (const Error &e) {
            return e.kind() == ErrorKind::refused;
        }
        return false;
    }

    TemporaryDirectory scratch_;
};

TEST_F(RemoveTreeWithMounts, DoesNotCrossIntoAnotherFileSystem) {
    std::string target = scratch_ / "tree" / "mounted";
    EXPECT_EQ(runWithMounts([&] {
                  if (mount("none", target.c_str(), "tmpfs", 0, nullptr) != 0) {
                      return false;
                  }
                  writeFile(target + "/file", "precious");
                  return isRefused() && readFile(target + "/file") == "precious";
              }),
              0);
}

TEST_F(RemoveTreeWithMounts, DoesNotCrossIntoAnyOfManyDirectories) {
    for (int i = 0; i < 40; ++i) {
        std::filesystem::create_directories(scratch_ / "tree" / std::to_string(i));
    }
    std::string source = scratch_ / "outside";
    for (int i = 0; i < 40; i += 13) {
        std::string target = scratch_ / "tree" / std::to_string(i);
        std::filesystem::create_directories(target);
        EXPECT_EQ(runWithMounts([&] {
                      return mount(source.c_str(), target.c_str(), nullptr, MS_BIND, nullptr) == 0 &&
                             isRefused();
                  }),
                  0)
            << i;
        for (int j = 0; j < 40; ++j) {
            std::filesystem::create_directories(scratch_ / "tree" / std::to_string(j));
        }
    }
    EXPECT_EQ(readFile(scratch_ / "outside" / "file"), "precious");
}

TEST_F(RemoveTreeWithMounts, DoesNotEmptyABindMountOfTheSameFileSystem) {
    std::string target = scratch_ / "tree" / "mounted";
    std::string source = scratch_ / "outside";
    EXPECT_EQ(runWithMounts([&] {
                  return mount(source.c_str(), target.c_str(), nullptr, MS_BIND, nullptr) == 0 && isRefused();
              }),
              0);
    EXPECT_EQ(readFile(scratch_ / "outside" / "file"), "precious");
}

} // namespace
} // namespace firn
