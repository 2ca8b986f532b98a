#include "libstore/build/launch.hh"

#include <chrono>
#include <csignal>
#include <thread>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "libutil/error.hh"

namespace firn {
namespace {

using Kind = BuilderResult::Kind;

class LaunchTest : public testing::Test {
  protected:
    void SetUp() override { output_ = makePipe(); }

    LaunchSpec shell(const std::string &script) {
        LaunchSpec spec;
        spec.builder = "/bin/sh";
        spec.args = {"sh", "-c", script};
        spec.env = {"PATH=/usr/bin:/bin", "NAME=value"};
        spec.workingDirectory = "/tmp";
        spec.outputFd = output_.writeEnd.get();
        return spec;
    }

    /// Everything written, up to the end of file: nobody may still hold the other end.
    std::string readOutput() {
        output_.writeEnd.reset();
        std::string text;
        char buffer[512];
        for (ssize_t got; (got = read(output_.readEnd.get(), buffer, sizeof buffer)) > 0;) {
            text.append(buffer, static_cast<size_t>(got));
        }
        return text;
    }

    Pipe output_;
};

TEST_F(LaunchTest, builderRunsWithWhatItWasGiven) {
    BuilderResult result = launchUnconfined(shell("pwd; echo $NAME; echo error >&2; cat")).wait();
    EXPECT_TRUE(result.succeeded()) << result.describe();
    EXPECT_EQ(readOutput(), "/tmp\nvalue\nerror\n");
}

TEST_F(LaunchTest, exitCodeAndSignalAreTold) {
    EXPECT_EQ(launchUnconfined(shell("exit 12")).wait().exitCode, 12);
    BuilderResult result = launchUnconfined(shell("kill -TERM $$")).wait();
    EXPECT_EQ(result.kind, Kind::signaled);
    EXPECT_EQ(result.signal, SIGTERM);
}

TEST_F(LaunchTest, missingBuilderIsTold) {
    LaunchSpec spec = shell("");
    spec.builder = "/nonexistent/builder";
    BuilderResult result = launchUnconfined(spec).wait();
    EXPECT_EQ(result.kind, Kind::execFailed);
    EXPECT_EQ(result.path, "/nonexistent/builder");
    EXPECT_EQ(result.error, ENOENT);
}

TEST_F(LaunchTest, missingDirectoryIsTold) {
    LaunchSpec spec = shell("");
    spec.workingDirectory = "/nonexistent";
    BuilderResult result = launchUnconfined(spec).wait();
    EXPECT_EQ(result.kind, Kind::setupFailed);
    EXPECT_EQ(result.step, sandbox::Step::changeDirectory);
}

TEST_F(LaunchTest, killEndsTheProcessGroup) {
    BuilderProcess process = launchUnconfined(shell("sleep 1000 & sleep 1000"));
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    process.kill();
    EXPECT_EQ(process.wait().signal, SIGKILL);
    EXPECT_EQ(readOutput(), ""); // ends: the background process held it too
}

TEST_F(LaunchTest, earlyKillIsNotLost) {
    BuilderProcess process = launchUnconfined(shell("sleep 1000"));
    process.kill();
    EXPECT_EQ(process.wait().kind, Kind::signaled);
}

TEST_F(LaunchTest, destructorEndsTheBuilder) {
    { BuilderProcess process = launchUnconfined(shell("echo started; sleep 1000")); }
    std::string text = readOutput();
    EXPECT_TRUE(text.empty() || text == "started\n") << text;
}

TEST_F(LaunchTest, descriptorsOfTheDaemonStayWithIt) {
    UniqueFd leaked(open("/", O_RDONLY));
    launchUnconfined(
        shell("for fd in 3 4 5 6 7 8 9; do if (: >&$fd) 2>/dev/null; then echo open $fd; fi; done"))
        .wait();
    EXPECT_EQ(readOutput(), "");
}

TEST_F(LaunchTest, rootCanBecomeAnotherUser) {
    LaunchSpec spec = shell("id -u; id -g; id -G");
    spec.changeUser = true;
    spec.uid = 39471;
    spec.gid = 39472;
    spec.groups = {39473};
    BuilderResult result = launchUnconfined(spec).wait();
    if (geteuid() == 0) {
        EXPECT_EQ(readOutput(), "39471\n39472\n39472 39473\n");
    } else {
        EXPECT_EQ(result.kind, Kind::setupFailed);
        EXPECT_EQ(result.step, sandbox::Step::setGroups);
        EXPECT_EQ(result.error, EPERM);
    }
}

} // namespace
} // namespace firn
