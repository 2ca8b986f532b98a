#include "libstore/build/build-users.hh"

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <pwd.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libutil/error.hh"

namespace firn {
namespace {

namespace fs = std::filesystem;

std::string initProgram() {
    const char *program = getenv("FIRN_SANDBOX_INIT");
    return program ? program : FIRN_SANDBOX_INIT_PATH;
}

/// A private copy of the user database is bind-mounted over the host's in a mount namespace of the test's
/// own: no user is made on the host. Needs root; an ordinary user's daemon leases nothing.
class BuildUsersTest : public testing::Test {
  protected:
    static constexpr uid_t first = 39481, second = 39482;
    static constexpr gid_t pool = 39480, extra = 39489;

    void SetUp() override {
        state_ = "/tmp/firn-users-test-XXXXXX";
        ASSERT_NE(mkdtemp(state_.data()), nullptr);
    }
    void TearDown() override { fs::remove_all(state_); }

    /// Runs the body as root with the users there, in a child; its failures are this test's.
    template<typename Body>
    void withUsers(Body body) {
        pid_t child = fork();
        if (child == 0) {
            installUsers();
            body();
            _exit(HasFailure() ? 1 : 0);
        }
        int status = 0;
        waitpid(child, &status, 0);
        EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "status " << status;
    }

    void installUsers();
    BuildUserPool makePool(const std::string &group = "firntest") {
        return BuildUserPool(state_, group, initProgram());
    }

    std::string state_;
};

/// Starts a process of `uid` that sleeps.
pid_t startSleeper(uid_t uid) {
    pid_t pid = fork();
    if (pid == 0) {
        if (setuid(uid) == 0) {
            pause();
        }
        _exit(1);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    return pid;
}

bool wasKilled(pid_t pid) {
    int status = 0;
    for (int i = 0; i < 200; i++) {
        if (waitpid(pid, &status, WNOHANG) == pid) {
            return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
}

void BuildUsersTest::installUsers() {
    ASSERT_EQ(unshare(CLONE_NEWNS), 0);
    ASSERT_EQ(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    std::ofstream(state_ + "/passwd") << "root:x:0:0::/:/bin/sh\nfirnbld1:x:39481:39480::/:/bin/false\n"
                                         "firnbld2:x:39482:39480::/:/bin/false\n";
    std::ofstream(state_ + "/group")
        << "root:x:0:\nfirntest:x:39480:firnbld1,firnbld2\nextra:x:39489:firnbld2\n"
           "empty:x:39488:\nrooted:x:39487:root\n";
    ASSERT_EQ(mount((state_ + "/passwd").c_str(), "/etc/passwd", nullptr, MS_BIND, nullptr), 0);
    ASSERT_EQ(mount((state_ + "/group").c_str(), "/etc/group", nullptr, MS_BIND, nullptr), 0);
}

#define NEEDS_ROOT()                                                                                         \
    if (geteuid() != 0) {                                                                                    \
        EXPECT_THROW(makePool("no-such-group").acquire(), Error);                                            \
        return;                                                                                              \
    }

TEST_F(BuildUsersTest, usersAreLeasedOneAfterTheOtherUntilNoneIsLeft) {
    NEEDS_ROOT();
    withUsers([&] {
        BuildUserPool users = makePool();
        std::optional<BuildUser> one = users.acquire(), two = users.acquire();
        ASSERT_TRUE(one && two);
        EXPECT_EQ(one->uid(), first);
        EXPECT_EQ(one->gid(), pool);
        EXPECT_TRUE(one->groups().empty());
        EXPECT_EQ(two->uid(), second);
        EXPECT_EQ(two->groups(), std::vector<gid_t>{extra});
        EXPECT_FALSE(users.acquire());
        one->release();
        std::optional<BuildUser> again = users.acquire();
        ASSERT_TRUE(again);
        EXPECT_EQ(again->uid(), first);
    });
}

TEST_F(BuildUsersTest, lockIsAnFlockOnTheUserpoolFile) {
    NEEDS_ROOT();
    withUsers([&] {
        fs::create_directory(state_ + "/userpool");
        // As stock Nix takes it.
        UniqueFd theirs(open((state_ + "/userpool/39481").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
        ASSERT_EQ(flock(theirs.get(), LOCK_EX | LOCK_NB), 0);
        std::optional<BuildUser> user = makePool().acquire();
        ASSERT_TRUE(user);
        EXPECT_EQ(user->uid(), second);
        UniqueFd ours(open((state_ + "/userpool/39482").c_str(), O_RDWR | O_CLOEXEC));
        EXPECT_LT(flock(ours.get(), LOCK_EX | LOCK_NB), 0);
    });
}

TEST_F(BuildUsersTest, processesOfTheUserAreKilledBeforeAndAfterTheLease) {
    NEEDS_ROOT();
    withUsers([&] {
        pid_t before = startSleeper(first);
        std::optional<BuildUser> user = makePool().acquire();
        ASSERT_TRUE(user);
        EXPECT_TRUE(wasKilled(before));
        pid_t during = startSleeper(first), other = startSleeper(second);
        user->release();
        EXPECT_TRUE(wasKilled(during));
        EXPECT_EQ(waitpid(other, nullptr, WNOHANG), 0) << "another user's process was killed";
        kill(other, SIGKILL);
        waitpid(other, nullptr, 0);
    });
}

TEST_F(BuildUsersTest, leaseEndsWithItsProcess) {
    NEEDS_ROOT();
    withUsers([&] {
        pid_t holder = fork();
        if (holder == 0) {
            std::optional<BuildUser> user = makePool().acquire();
            raise(SIGKILL);
        }
        waitpid(holder, nullptr, 0);
        std::optional<BuildUser> user = makePool().acquire();
        ASSERT_TRUE(user);
        EXPECT_EQ(user->uid(), first);
    });
}

TEST_F(BuildUsersTest, unusableGroupsAreExplained) {
    NEEDS_ROOT();
    withUsers([&] {
        for (const char *group : {"absent", "empty", "rooted"}) {
            try {
                makePool(group).acquire();
                ADD_FAILURE() << group << " was accepted";
            } catch (const Error &error) {
                EXPECT_EQ(error.kind(), ErrorKind::unsupported);
                EXPECT_NE(error.message().find(group), std::string::npos) << error.message();
            }
        }
    });
}

TEST_F(BuildUsersTest, rootsProcessesAreNeverKilled) {
    EXPECT_THROW(killUserProcesses(initProgram(), 0), Error);
}

} // namespace
} // namespace firn
