#include "libstore/build/build-directory.hh"

#include <climits>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <map>
#include <optional>

#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "expect-error.hh"
#include "libstore/build/private-group.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "temporary-directory.hh"

namespace firn {
namespace {

namespace fs = std::filesystem;

class BuildDirectoryTest : public testing::Test {
  protected:
    TemporaryDirectory scratch;
    const fs::path base = fs::canonical(scratch.path());
    const fs::path own = base / fmt::format("firn-{}", geteuid());
};

mode_t modeOf(const fs::path &path) {
    struct stat st;
    EXPECT_EQ(lstat(path.c_str(), &st), 0) << path;
    return st.st_mode & 07777;
}

/// What a child process says that is another user, in no group but this.
bool resultAs(uid_t uid, gid_t gid, const std::function<bool()> &question) {
    pid_t child = fork();
    if (child == 0) {
        if (setgroups(1, &gid) != 0 || setgid(gid) != 0 || setuid(uid) != 0) {
            _exit(2);
        }
        _exit(question() ? 0 : 1);
    }
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) != 2) << "could not become user " << uid;
    return status == 0;
}

TEST_F(BuildDirectoryTest, liesWhereNobodyElseCanEnterAndGoesAway) {
    fs::path path;
    {
        BuildDirectories directories(base);
        EXPECT_EQ(modeOf(own), 0700u);
        BuildDirectory directory = directories.make();
        path = directory.path();
        EXPECT_EQ(path.parent_path().parent_path(), own);
        EXPECT_EQ(modeOf(path.parent_path()), 0700u);
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

/// A process that has said something, and then lives until it is killed.
class Standing {
  public:
    /// `work` returns what is to be said.
    explicit Standing(const std::function<std::string()> &work) {
        Pipe ready = makePipe();
        pid_ = fork();
        if (pid_ == 0) {
            writeFull(ready.writeEnd.get(), work());
            ready.writeEnd.reset();
            for (;;) {
                pause();
            }
        }
        ready.writeEnd.reset();
        char text[PATH_MAX];
        for (ssize_t size; (size = read(ready.readEnd.get(), text, sizeof text)) > 0;) {
            said.append(text, static_cast<size_t>(size));
        }
    }
    Standing(const Standing &) = delete;
    Standing &operator=(const Standing &) = delete;
    ~Standing() { end(); }

    void end() {
        if (pid_ > 0) {
            kill(pid_, SIGKILL);
            waitpid(std::exchange(pid_, 0), nullptr, 0);
        }
    }

    std::string said;

  private:
    pid_t pid_;
};

TEST_F(BuildDirectoryTest, isSweptWhenItsDaemonIsDeadAndNotBefore) {
    std::optional<BuildDirectories> theirs;
    std::optional<BuildDirectory> directory;
    Standing daemon([&] {
        directory.emplace(theirs.emplace(base).make());
        writeFile(directory->path() / "left", "behind");
        return directory->path().string();
    });
    BuildDirectories ours(base);
    UniqueFd fd = openDirectory(own);
    EXPECT_TRUE(fs::exists(fs::path(daemon.said) / "left")) << daemon.said;
    daemon.end();
    BuildDirectories later(base);
    EXPECT_EQ(listDirectory(fd.get()).size(), 0u);
}

/// What a user can open of a directory and of those above it, below another.
std::map<fs::path, UniqueFd> openAs(uid_t uid, const fs::path &directory, const fs::path &above) {
    std::map<fs::path, UniqueFd> opened;
    EXPECT_EQ(seteuid(uid), 0);
    for (fs::path path = directory; path != above; path = path.parent_path()) {
        UniqueFd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        if (fd) {
            opened.emplace(path, std::move(fd));
        }
    }
    EXPECT_EQ(seteuid(0), 0);
    return opened;
}

TEST_F(BuildDirectoryTest, isSweptWhateverItsOwnUserHasLockedAndNotBeforeItsDaemonIsDead) {
    if (geteuid() != 0) {
        GTEST_SKIP() << "only root has builds of other users";
    }
    constexpr uid_t builder = 12345;
    chmod(base.c_str(), 0755);
    std::optional<BuildDirectories> theirs;
    std::optional<BuildDirectory> directory;
    Standing daemon([&] {
        directory.emplace(theirs.emplace(base).makeReachable());
        directory->giveTo(builder, builder);
        return directory->path().string();
    });
    // As if passed on to us by the build.
    std::map<fs::path, UniqueFd> opened = openAs(builder, daemon.said, base);
    EXPECT_TRUE(opened.contains(daemon.said));
    BuildDirectories::sweepLeftovers(base);
    EXPECT_TRUE(fs::exists(daemon.said));
    daemon.end();
    for (const auto &[path, fd] : opened) {
        EXPECT_EQ(flock(fd.get(), LOCK_EX | LOCK_NB), 0) << path;
    }
    BuildDirectories::sweepLeftovers(base);
    EXPECT_TRUE(fs::is_empty(base));
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

TEST_F(BuildDirectoryTest, becomesReachableForItsUserAloneOnceItsBuildIsOver) {
    if (geteuid() != 0) {
        GTEST_SKIP() << "only root gives files away";
    }
    constexpr uid_t builder = 12345, other = 12346;
    ASSERT_EQ(chmod(base.c_str(), 0755), 0);
    BuildDirectories directories(base);
    fs::path kept;
    {
        BuildDirectory directory = directories.make();
        directory.giveTo(builder, builder);
        writeFile(directory.path() / "left", "x");
        ASSERT_EQ(chmod(directory.path().c_str(), 0777), 0);
        fs::path before = directory.path();
        auto seesIt = [&] { return access((directory.path() / "left").c_str(), R_OK) == 0; };
        EXPECT_FALSE(resultAs(builder, builder, seesIt));
        for (int again = 0; again < 2; again++) {
            directory.makeReachable(builder, builder);
            EXPECT_TRUE(resultAs(builder, builder, seesIt));
            EXPECT_FALSE(resultAs(other, other, seesIt));
        }
        EXPECT_FALSE(fs::exists(before.parent_path()));
        EXPECT_TRUE(fs::exists(fmt::format("/proc/self/fd/{}/left", directory.contentsFd())));
        EXPECT_EQ(BuildDirectories(base).base(), directories.base()); // sweeps nothing of it
        EXPECT_TRUE(fs::exists(directory.path() / "left"));
        kept = directory.keep("x", builder, other, other);
    }
    EXPECT_EQ(readFile(kept / "left"), "x");
    for (const auto &entry : fs::recursive_directory_iterator(base)) {
        EXPECT_TRUE(entry.path() == kept || entry.path().parent_path() == kept ||
                    (entry.path().parent_path() == base && fs::is_empty(entry.path())))
            << entry.path();
    }
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
        path = directory.path().parent_path().parent_path();
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

TEST_F(BuildDirectoryTest, isReachedByItsOwnUserAloneAndThoseInSandboxesByNobody) {
    if (geteuid() != 0) {
        GTEST_SKIP() << "only root has builds of other users";
    }
    constexpr uid_t one = 12345, other = 12346, stranger = 12347;
    constexpr gid_t group = 12345;
    chmod(base.c_str(), 0755);
    BuildDirectories directories(base);
    BuildDirectory closed = directories.make();
    BuildDirectory first = directories.makeReachable(), second = directories.makeReachable();
    closed.giveTo(stranger, group);
    first.giveTo(one, group);
    second.giveTo(other, group);
    for (BuildDirectory *directory : {&closed, &first, &second}) {
        ASSERT_EQ(fchmod(directory->fd(), 0777), 0); // as a build may
    }
    auto reaches = [&](uid_t uid, const BuildDirectory &directory) {
        return resultAs(uid, group, [&] { return access(directory.path().c_str(), W_OK) == 0; });
    };
    EXPECT_TRUE(reaches(one, first));
    EXPECT_TRUE(reaches(other, second));
    EXPECT_FALSE(reaches(one, second));
    EXPECT_FALSE(reaches(other, first));
    for (uid_t uid : {one, other, stranger}) {
        EXPECT_FALSE(reaches(uid, closed)) << uid;
    }
    EXPECT_EQ(modeOf(own), 0700u);
}

TEST_F(BuildDirectoryTest, thatIsReachableGoesAwayAndIsSweptLikeAnyOther) {
    fs::path open = base / (own.filename().string() + "-open");
    {
        BuildDirectories directories(base);
        BuildDirectory directory = directories.makeReachable();
        EXPECT_EQ(directory.path().parent_path().parent_path().parent_path(), open);
        if (geteuid() == 0) {
            directory.giveTo(12345, 12345);
        }
        BuildDirectories others(base); // sweeps
        BuildDirectories::sweepLeftovers(base);
        EXPECT_TRUE(fs::exists(directory.path()));
    }
    EXPECT_TRUE(fs::is_empty(base));
    fs::path elsewhere = base / (open.filename().string() + "-0123456789abcdfg");
    for (const fs::path &parent : {open, elsewhere}) {
        fs::create_directories(parent / "1-1" / "b" / "files");
    }
    { BuildDirectories sweeping(base); }
    EXPECT_FALSE(fs::exists(open));
    BuildDirectories::sweepLeftovers(base);
    EXPECT_TRUE(fs::is_empty(base));
}

TEST_F(BuildDirectoryTest, isSweptEvenWhenItsBuildTookAllPermissionsFromIt) {
    fs::create_directories(own / "1-1" / "b" / "files");
    chmod((own / "1-1" / "b").c_str(), 0);
    chmod((own / "1-1").c_str(), 0);
    chmod(own.c_str(), 0);
    BuildDirectories::sweepLeftovers(base);
    EXPECT_TRUE(fs::is_empty(base));
}

TEST_F(BuildDirectoryTest, isClosedToOthersWhateverItWas) {
    for (mode_t mode : {0777, 0755, 0710, 0, 02700}) {
        fs::create_directory(own);
        chmod(own.c_str(), mode);
        BuildDirectories directories(base);
        EXPECT_EQ(modeOf(own), 0700u) << mode;
        BuildDirectory directory = directories.make();
        EXPECT_EQ(directory.path().parent_path().parent_path(), own) << mode;
    }
}

TEST_F(BuildDirectoryTest, isKeptWhateverModeItsBuildGaveIt) {
    BuildDirectories directories(base);
    for (mode_t mode : {0555, 0, 0777}) {
        for (bool overlay : {false, true}) {
            BuildDirectory directory = directories.make();
            if (overlay) {
                directory.makeOverlay();
            }
            ASSERT_EQ(mkdirat(directory.contentsFd(), "inside", 0700), 0);
            ASSERT_EQ(fchmod(directory.contentsFd(), mode), 0);
            fs::path kept = directory.keep("x", geteuid(), geteuid(), getegid());
            EXPECT_EQ(modeOf(kept), 0700u);
            EXPECT_TRUE(fs::exists(kept / "inside"));
        }
    }
}

TEST_F(BuildDirectoryTest, isNotKeptWhenItsBuildPutAnotherInItsPlace) {
    BuildDirectories directories(base);
    BuildDirectory directory = directories.makeReachable();
    fs::path path = directory.path();
    fs::rename(path, path.parent_path() / "aside");
    fs::create_directory_symlink("/", path);
    EXPECT_THROW(directory.keep("x", geteuid(), geteuid(), getegid()), Error);
    EXPECT_FALSE(fs::exists(base / "nix-build-x-0"));
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
    directory.remove();
    EXPECT_TRUE(fs::is_empty(own));
    EXPECT_TRUE(fs::exists(kept / "file"));
}

TEST_F(BuildDirectoryTest, leavesRoomForASocketsName) {
    BuildDirectories directories(base);
    BuildDirectory directory = directories.make();
    EXPECT_LE(directory.path().string().size() - base.string().size(), 40u);
}

TEST_F(BuildDirectoryTest, isRefusedWhereOthersCouldReplaceIt) {
    chmod(base.c_str(), 0777);
    EXPECT_THROW(BuildDirectories{base}, Error);
    EXPECT_THROW(BuildDirectories::sweepLeftovers(base), Error);
    chmod(base.c_str(), 01777);
    EXPECT_NO_THROW(BuildDirectories{base});
}

TEST_F(BuildDirectoryTest, isRefusedWhereAGroupCouldReplaceIt) {
    if (geteuid() != 0) {
        GTEST_SKIP() << "only root can give a directory to any group";
    }
    ASSERT_EQ(chown(base.c_str(), 0, 12345), 0);
    chmod(base.c_str(), 0775);
    std::string message = expectError(ErrorKind::refused, [&] { BuildDirectories{base}; });
    EXPECT_NE(message.find("chmod g-w '" + base.string() + "'"), std::string::npos) << message;
    EXPECT_THROW(BuildDirectories::sweepLeftovers(base), Error);
    for (mode_t harmless : {01775, 02755, 0750}) {
        chmod(base.c_str(), harmless);
        EXPECT_NO_THROW(BuildDirectories{base}) << harmless;
    }
}

TEST_F(BuildDirectoryTest, isRefusedInADirectoryOfAnotherUsersWithTheOneWayOut) {
    if (geteuid() != 0) {
        GTEST_SKIP() << "only root can give a directory away";
    }
    ASSERT_EQ(chown(base.c_str(), 12345, 0), 0);
    std::string message = expectError(ErrorKind::refused, [&] { BuildDirectories{base}; });
    EXPECT_NE(message.find("it belongs to another user. Set 'build-dir' to a directory of your own."),
              std::string::npos)
        << message;
}

TEST_F(BuildDirectoryTest, mayLieWhereAGroupOfOurselvesAloneCanWrite) {
    ASSERT_EQ(chown(base.c_str(), geteuid(), getegid()), 0);
    chmod(base.c_str(), 0775);
    if (!isPrivateGroup(geteuid(), getegid())) {
        GTEST_SKIP() << "whoever runs this has no group of their own";
    }
    EXPECT_NO_THROW(BuildDirectories{base});
}

TEST(PrivateGroupTest, isTheUsersPrimaryOneWithTheUsersNameAndNobodyElse) {
    UserEntry user{"ann", 1000, 1000};
    EXPECT_TRUE(isPrivateGroup(user, {"ann", 1000, {}}));
    EXPECT_TRUE(isPrivateGroup(user, {"ann", 1000, {"ann"}}));
    EXPECT_FALSE(isPrivateGroup(user, {"ann", 1000, {"ann", "bob"}}));
    EXPECT_FALSE(isPrivateGroup(user, {"users", 1000, {}}));
    EXPECT_FALSE(isPrivateGroup(user, {"ann", 1001, {}}));
    UserEntry root{"root", 0, 0};
    EXPECT_TRUE(isPrivateGroup(root, {"wheel", 0, {"root"}}));
    EXPECT_FALSE(isPrivateGroup(root, {"wheel", 0, {"root", "ann"}}));
    EXPECT_FALSE(isPrivateGroup(UserEntry{"ann", 1000, 0}, {"root", 0, {}}));
    EXPECT_FALSE(isPrivateGroup(uid_t{0}, gid_t{12345}));
    EXPECT_FALSE(isPrivateGroup(uid_t{4012345}, gid_t{4012345})) << "neither is known";
}

TEST_F(BuildDirectoryTest, mayLieInTheDefaultBesideTheOneThatIsSet) {
    Locations locations;
    locations.stateDir = "/state";
    Settings settings;
    settings.buildDir = "/chosen";
    EXPECT_EQ(BuildDirectories::possibleBases(locations, settings),
              (std::vector<fs::path>{"/chosen", "/state/builds"}));
    settings.buildDir = "/state/builds";
    EXPECT_EQ(BuildDirectories::possibleBases(locations, settings), std::vector<fs::path>{"/state/builds"});
}

TEST_F(BuildDirectoryTest, isChosenBySettingThenTmpdirThenState) {
    Locations locations;
    locations.stateDir = "/state";
    Settings settings;
    std::string old = getenv("TMPDIR") ? getenv("TMPDIR") : "";
    unsetenv("TMPDIR");
    EXPECT_EQ(BuildDirectories::findBase(locations, settings).path, "/state/builds");
    setenv("TMPDIR", "/elsewhere", 1);
    EXPECT_EQ(BuildDirectories::findBase(locations, settings).path, "/elsewhere");
    settings.buildDir = "/chosen";
    EXPECT_EQ(BuildDirectories::findBase(locations, settings).path, "/chosen");
    old.empty() ? unsetenv("TMPDIR") : setenv("TMPDIR", old.c_str(), 1);
}

} // namespace
} // namespace firn
