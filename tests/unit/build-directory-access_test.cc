// What only Linux can show of build directories: POSIX ACLs on where they are made, mount namespaces in which
// the databases of users and groups are others, and what happens in a directory, told by the kernel.

#include <cstring>
#include <functional>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "expect-error.hh"
#include "libstore/build/build-directory.hh"
#include "libstore/build/private-group.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "temporary-directory.hh"

namespace firn {
namespace {

namespace fs = std::filesystem;

class BuildDirectoryAccessTest : public testing::Test {
  protected:
    TemporaryDirectory scratch;
    const fs::path base = fs::canonical(scratch.path());
};

/// The kernel's format: a version, then tag, permissions and id of each entry.
struct AclEntry {
    uint16_t tag, permissions;
    uint32_t id;
};
struct Acl {
    uint32_t version = 2;
    AclEntry entries[5];
};

/// Lets user 65534 do what `named` says, as far as the mask allows.
void setAcl(const fs::path &path, uint16_t named, uint16_t mask) {
    constexpr uint32_t nobody = UINT32_MAX;
    Acl acl{
        .entries = {{1, 7, nobody}, {2, named, 65534}, {4, 5, nobody}, {16, mask, nobody}, {32, 5, nobody}}};
    ASSERT_EQ(setxattr(path.c_str(), "system.posix_acl_access", &acl, sizeof acl, 0), 0) << strerror(errno);
}

TEST_F(BuildDirectoryAccessTest, isRefusedWhereAnAclLetsOthersWrite) {
    setAcl(base, 7, 7);
    struct stat st;
    ASSERT_EQ(stat(base.c_str(), &st), 0);
    ASSERT_EQ(st.st_mode & 07777, 0775u) << "the mask shows as the group's permissions";
    std::string message = expectError(ErrorKind::refused, [&] { BuildDirectories{base}; });
    EXPECT_NE(message.find("an ACL"), std::string::npos) << message;
    EXPECT_NE(message.find("setfacl -b '" + base.string() + "'"), std::string::npos) << message;
    EXPECT_THROW(BuildDirectories::sweepLeftovers(base), Error);
    ASSERT_EQ(chmod(base.c_str(), 01775), 0);
    EXPECT_NO_THROW(BuildDirectories{base});
}

TEST_F(BuildDirectoryAccessTest, mayHaveAnAclThatLetsNobodyWrite) {
    setAcl(base, 7, 5);
    EXPECT_NO_THROW(BuildDirectories{base});
}

/// What happened in a directory while something was done: lines like "made x", "moved here x".
std::vector<std::string> entriesComing(const fs::path &directory, const std::function<void()> &action) {
    UniqueFd watch(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    EXPECT_GE(inotify_add_watch(watch.get(), directory.c_str(), IN_CREATE | IN_MOVED_TO), 0);
    action();
    std::vector<std::string> seen;
    alignas(inotify_event) char buffer[16 * 1024];
    for (ssize_t size; (size = read(watch.get(), buffer, sizeof buffer)) > 0;) {
        for (char *next = buffer; next < buffer + size;) {
            auto *event = reinterpret_cast<inotify_event *>(next);
            seen.push_back(std::string(event->mask & IN_CREATE ? "made " : "moved here ") + event->name);
            next += sizeof *event + event->len;
        }
    }
    return seen;
}

TEST_F(BuildDirectoryAccessTest, isKeptInOneStepUnderANameThatIsFree) {
    BuildDirectories directories(base);
    BuildDirectory directory = directories.make();
    fs::create_directory(base / "nix-build-x-0"); // empty: rename() would replace it
    auto keep = [&] { directory.keep("x", geteuid(), geteuid(), getegid()); };
    EXPECT_EQ(entriesComing(base, keep), std::vector<std::string>{"moved here nix-build-x-1"})
        << "killed in between, we leave nothing that the sweep would not find";
    EXPECT_TRUE(fs::exists(base / "nix-build-x-0"));
}

/// What root is told who has these databases of users and groups instead of the system's.
bool isRootsOwnGroup(const fs::path &scratch, const std::string &passwd, const std::string &group) {
    writeFile(scratch / "passwd", passwd);
    writeFile(scratch / "group", group);
    pid_t child = fork();
    if (child == 0) {
        bool isReady =
            unshare(CLONE_NEWNS) == 0 && mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
        for (const char *name : {"passwd", "group"}) {
            fs::path real = fs::path("/etc") / name, ours = scratch / name;
            isReady = isReady && mount(ours.c_str(), real.c_str(), nullptr, MS_BIND, nullptr) == 0;
        }
        _exit(!isReady ? 2 : isPrivateGroup(uid_t{0}, gid_t{0}) ? 0 : 1);
    }
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) != 2) << "could not put other databases in place";
    return status == 0;
}

TEST_F(BuildDirectoryAccessTest, rootsGroupIsRootsAloneOnlyWithoutOtherMembers) {
    if (geteuid() != 0) {
        GTEST_SKIP() << "only root can mount other databases over the system's";
    }
    const std::string root = "root:x:0:0::/root:/bin/sh\n", ann = "ann:x:1000:1000::/:/bin/sh\n";
    const std::string group = "root:x:0:\n", annsGroup = "ann:x:1000:\n";
    EXPECT_TRUE(isRootsOwnGroup(base, root + ann, group + annsGroup));
    EXPECT_TRUE(isRootsOwnGroup(base, root + "toor:x:0:0::/root:/bin/sh\n", "root:x:0:root\n"))
        << "is root, too";
    EXPECT_FALSE(isRootsOwnGroup(base, root + ann, "root:x:0:ann\n" + annsGroup));
    EXPECT_FALSE(isRootsOwnGroup(base, root + "ann:x:1000:0::/:/bin/sh\n", group + annsGroup))
        << "her primary group";
}

} // namespace
} // namespace firn
