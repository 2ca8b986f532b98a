#include "libstore/build/build-bases.hh"

#include <csignal>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "expect-error.hh"
#include "libstore/build/build-directory.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "recording-logger.hh"
#include "temporary-directory.hh"

namespace firn {
namespace {

namespace fs = std::filesystem;

class BuildBasesTest : public testing::Test {
  protected:
    void SetUp() override {
        locations.stateDir = top / "state";
        settings.buildDir = top / "chosen";
        fs::create_directory(base);
    }

    /// As a killed daemon leaves it; what is there to be removed.
    static fs::path leaveIn(const fs::path &where) {
        fs::path left = where / fmt::format("firn-{}", geteuid()) / "1-1";
        fs::create_directories(left / "b" / "files");
        return left;
    }
    /// Noted, and in nobody's use.
    void note(const fs::path &where) const { noteBuildBase(locations, where); }
    std::vector<fs::path> notes() const {
        fs::path directory = locations.stateDir / "firn" / "build-bases";
        return fs::exists(directory)
                   ? std::vector<fs::path>(fs::directory_iterator(directory), fs::directory_iterator())
                   : std::vector<fs::path>();
    }
    /// Its warnings.
    std::string sweep() {
        RecordingLogger logger;
        sweepBuildBases(locations, settings, logger);
        return fmt::format("{}", fmt::join(logger.lines(), "\n"));
    }

    TemporaryDirectory scratch;
    const fs::path top = fs::canonical(scratch.path());
    const fs::path base = top / "base";
    Locations locations;
    Settings settings;
};

TEST_F(BuildBasesTest, areNotedOnceForUsAlone) {
    note(base);
    note(base);
    ASSERT_EQ(notes().size(), 1u);
    EXPECT_EQ(readFile(notes().front()), base.string());
    EXPECT_EQ(fs::status(notes().front()).permissions(), fs::perms(0600));
    EXPECT_EQ(fs::status(notes().front().parent_path()).permissions(), fs::perms(0700));
}

TEST_F(BuildBasesTest, areNotNotedIfTheyAreSweptAtEveryStart) {
    fs::path standard = locations.stateDir / "builds";
    fs::create_directories(standard);
    fs::path left = leaveIn(standard);
    note(standard);
    EXPECT_TRUE(notes().empty());
    EXPECT_EQ(sweep(), "");
    EXPECT_FALSE(fs::exists(left));
}

TEST_F(BuildBasesTest, areNotedBeforeAnythingIsMadeInThem) {
    {
        BuildDirectories directories(base, BuildDirectories::Sweep::yes, &locations);
        ASSERT_EQ(notes().size(), 1u);
        EXPECT_EQ(sweep(), "");
        EXPECT_EQ(notes().size(), 1u) << "in use";
    }
    chmod(base.c_str(), 0777);
    fs::remove(notes().front());
    EXPECT_THROW(BuildDirectories(base, BuildDirectories::Sweep::yes, &locations), Error);
    EXPECT_TRUE(notes().empty()) << "nothing is made there";
}

TEST_F(BuildBasesTest, areSweptWhereverTheyAreNotedAndForgotten) {
    note(base);
    fs::path left = leaveIn(base), ofSettings = leaveIn(*settings.buildDir);
    writeFile(base / "other", "somebody's");
    EXPECT_EQ(sweep(), "");
    EXPECT_FALSE(fs::exists(left.parent_path()) || fs::exists(ofSettings.parent_path()));
    EXPECT_TRUE(fs::exists(base / "other"));
    EXPECT_TRUE(notes().empty());
}

TEST_F(BuildBasesTest, areNotForgottenAsLongAsSomethingOfOursIsThere) {
    note(base);
    {
        BuildDirectories others(base);
        BuildDirectory directory = others.make();
        EXPECT_EQ(sweep(), "");
        EXPECT_TRUE(fs::exists(directory.path()));
        EXPECT_EQ(notes().size(), 1u);
    }
    sweep();
    EXPECT_TRUE(notes().empty());
}

TEST_F(BuildBasesTest, areForgottenWhenTheyAreGone) {
    note(base);
    fs::remove(base);
    EXPECT_EQ(sweep(), "");
    EXPECT_TRUE(notes().empty());
}

TEST_F(BuildBasesTest, areNotEnteredOnceOthersCouldChangeThem) {
    note(base);
    fs::path left = leaveIn(base);
    chmod(base.c_str(), 0777);
    std::string warnings = sweep();
    EXPECT_NE(warnings.find("'" + base.string() + "' is not swept"), std::string::npos) << warnings;
    EXPECT_TRUE(fs::exists(left));
    EXPECT_EQ(notes().size(), 1u);
    chmod(base.c_str(), 0755);
    EXPECT_EQ(sweep(), "");
    EXPECT_FALSE(fs::exists(left));
}

TEST_F(BuildBasesTest, areNotLookedForBehindSymlinks) {
    fs::path inside = base / "inside", elsewhere = top / "elsewhere";
    fs::create_directories(elsewhere / "inside");
    fs::create_directory(inside);
    note(inside);
    fs::path left = leaveIn(elsewhere / "inside");
    fs::rename(base, top / "aside");
    fs::create_directory_symlink(elsewhere, base);
    std::string warnings = sweep();
    EXPECT_NE(warnings.find("leads to '" + (elsewhere / "inside").string() + "'"), std::string::npos)
        << warnings;
    EXPECT_TRUE(fs::exists(left));
    EXPECT_EQ(notes().size(), 1u);
}

TEST_F(BuildBasesTest, thatCannotBeSweptKeepNoOthersFromIt) {
    note(base);
    note(top);
    chmod(base.c_str(), 0777);
    fs::path left = leaveIn(top);
    EXPECT_NE(sweep(), "");
    EXPECT_FALSE(fs::exists(left));
    EXPECT_EQ(notes().size(), 1u);
}

TEST_F(BuildBasesTest, haveNotesThatWereNotWrittenToTheirEnds) {
    note(base);
    fs::path file = notes().front();
    fs::resize_file(file, 3);
    EXPECT_EQ(sweep(), "");
    EXPECT_FALSE(fs::exists(file));
    writeFile(file, std::string(base.string().size(), '\0'));
    note(base);
    EXPECT_EQ(readFile(file), base.string());
}

TEST_F(BuildBasesTest, areForgottenWhenThereAreTooManyUnlessTheyAreNeeded) {
    std::vector<UniqueFd> held;
    std::vector<fs::path> bases;
    for (int i = 0; i < 256; i++) {
        bases.push_back(base / std::to_string(i));
        fs::create_directory(bases.back());
        held.push_back(noteBuildBase(locations, bases.back()));
    }
    EXPECT_EQ(notes().size(), 256u);
    std::string message = expectError(ErrorKind::refused, [&] { note(top); });
    EXPECT_NE(message.find("256 other directories"), std::string::npos) << message;
    EXPECT_NO_THROW(note(bases.front())) << "is noted";
    leaveIn(bases.front());
    held.clear();
    note(top);
    EXPECT_EQ(notes().size(), 2u);
    sweep();
    EXPECT_TRUE(notes().empty());
}

TEST_F(BuildBasesTest, areNotForgottenInUseWhileOthersSweepAllTheTime) {
    pid_t sweeper = fork();
    if (sweeper == 0) {
        for (;;) {
            sweep();
        }
    }
    ScopeExit ended([&] {
        kill(sweeper, SIGKILL);
        waitpid(sweeper, nullptr, 0);
    });
    for (int i = 0; i < 300; i++) {
        UniqueFd held = noteBuildBase(locations, base);
        ASSERT_EQ(notes().size(), 1u);
        ASSERT_EQ(readFile(notes().front()), base.string());
    }
}

} // namespace
} // namespace firn
