// The mounts are made in a mount namespace of a child's own; as an ordinary user in a user namespace, which
// owns them then.

#include "libstore/linux/exec-bind-mount.hh"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libstore/build/build-directory-exec.hh"
#include "libutil/error.hh"

namespace firn {
namespace {

constexpr int noNamespace = 99;

void enterOwnMounts() {
    uid_t uid = geteuid();
    gid_t gid = getegid();
    if (unshare(CLONE_NEWNS | (uid == 0 ? 0 : CLONE_NEWUSER)) != 0) {
        _exit(noNamespace);
    }
    if (uid != 0) {
        std::ofstream("/proc/self/setgroups") << "deny";
        std::ofstream("/proc/self/uid_map") << "0 " << uid << " 1\n";
        std::ofstream("/proc/self/gid_map") << "0 " << gid << " 1\n";
    }
    if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
        _exit(noNamespace);
    }
}

/// Runs `look` in a child on a directory that is mounted with the flags; its result is the child's exit code.
int onMount(unsigned long flags, const std::function<int(int directory)> &look) {
    char path[] = "/tmp/firn-exec-mount-XXXXXX";
    EXPECT_NE(mkdtemp(path), nullptr);
    pid_t child = fork();
    if (child == 0) {
        enterOwnMounts();
        if (mount("none", path, "tmpfs", flags, nullptr) != 0) {
            _exit(noNamespace);
        }
        mkdir((path + std::string("/inner")).c_str(), 0755);
        int directory =
            open((path + std::string(flags & MS_RDONLY ? "" : "/inner")).c_str(), O_PATH | O_DIRECTORY);
        _exit(look(directory));
    }
    int status = -1;
    waitpid(child, &status, 0);
    rmdir(path);
    EXPECT_TRUE(WIFEXITED(status));
    return WEXITSTATUS(status);
}

unsigned long flagsOf(int fd) {
    struct statvfs info;
    return fstatvfs(fd, &info) == 0 ? info.f_flag : ~0ul;
}

TEST(ExecBindMountTest, clearsNoexecAndNothingElse) {
    EXPECT_EQ(0, onMount(MS_NOEXEC | MS_NOSUID | MS_NODEV | MS_RDONLY, [](int directory) {
                  ExecBindMount mount = makeExecBindMount(directory);
                  unsigned long before = flagsOf(directory), after = flagsOf(mount.fd);
                  return (before & ~ST_NOEXEC) == after && (before & ST_NOEXEC) ? 0 : 1;
              }));
}

TEST(ExecBindMountTest, executesWhereTheDirectoryDoesNot) {
    EXPECT_EQ(0, onMount(MS_NOEXEC, [](int directory) {
                  ExecBindMount mount = makeExecBindMount(directory);
                  int there = probeExecution(mount.fd, FIRN_SANDBOX_INIT_PATH);
                  int here = probeExecution(directory, FIRN_SANDBOX_INIT_PATH);
                  return there == 0 && here == EACCES ? 0 : 1;
              }));
}

TEST(ExecBindMountTest, leavesTheProbedDirectoryEmpty) {
    EXPECT_EQ(0, onMount(0, [](int directory) {
                  int error = probeExecution(directory, FIRN_SANDBOX_INIT_PATH);
                  std::string path = "/proc/self/fd/" + std::to_string(directory);
                  return error == 0 && std::filesystem::is_empty(path) ? 0 : 1;
              }));
}

TEST(ExecBindMountTest, isInNoMountTable) {
    EXPECT_EQ(0, onMount(MS_NOEXEC, [](int directory) {
                  auto count = [] {
                      std::ifstream table("/proc/self/mountinfo");
                      return std::count(std::istreambuf_iterator<char>(table), {}, '\n');
                  };
                  auto before = count();
                  ExecBindMount mount = makeExecBindMount(directory);
                  return mount.fd >= 0 && count() == before ? 0 : 1;
              }));
}

TEST(ExecBindMountTest, missingProgramIsNoVerdictOnTheDirectory) {
    char path[] = "/tmp/firn-exec-mount-XXXXXX";
    ASSERT_NE(mkdtemp(path), nullptr);
    UniqueFd directory(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    EXPECT_THROW(probeExecution(directory.get(), path + std::string("/absent")), SysError);
    EXPECT_TRUE(std::filesystem::is_empty(path));
    rmdir(path);
}

/// A pipe's mount cannot be cloned by anybody, and is in no mount table.
TEST(ExecBindMountTest, failureForABuildSaysWhereWhyAndWhatToDo) {
    Pipe pipe = makePipe();
    ExecChoice choice{.mechanism = ExecMechanism::bindMount,
                      .view = {},
                      .base = "/tmp/here",
                      .origin = "TMPDIR",
                      .mount = {"/tmp", "rw,noexec", "tmpfs", true},
                      .probeError = EACCES,
                      .untried = "",
                      .warning = ""};
    try {
        executableMount(pipe.readEnd.get(), choice);
        FAIL();
    } catch (const Error &error) {
        for (const char *text :
             {"open_tree", "'/tmp/here' (from the daemon's TMPDIR)", "'/tmp', tmpfs mounted rw,noexec",
              "mount '/tmp' without noexec", "'build-dir'", "'noexec-build-dir = tmpfs'"}) {
            EXPECT_NE(error.message().find(text), std::string::npos) << text << " in " << error.message();
        }
    }
}

TEST(ExecBindMountTest, describesTheMount) {
    EXPECT_EQ(0, onMount(MS_NOEXEC | MS_NOSUID, [](int directory) {
                  MountDescription mount = describeMount(directory);
                  bool good = mount.noexec && mount.fileSystem == "tmpfs" &&
                              mount.mountPoint.starts_with("/tmp/firn-exec-mount-") &&
                              mount.options.starts_with("rw,nosuid,noexec");
                  return good ? 0 : 1;
              }));
}

TEST(ExecBindMountTest, saysWhichCallFailed) {
    ExecBindMount mount = makeExecBindMount(-1);
    EXPECT_EQ(mount.fd, -1);
    EXPECT_EQ(mount.error, geteuid() == 0 ? EBADF : EPERM);
    EXPECT_STREQ(mount.step, "open_tree");
}

} // namespace
} // namespace firn
