#include "libutil/logging.hh"

#include <set>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

namespace firn {
namespace {

class RecordingLogger : public Logger {
  public:
    void log(Verbosity level, std::string_view message) override {
        events += "log " + std::to_string(static_cast<int>(level)) + " " + std::string(message) + "\n";
    }
    void startActivity(ActivityId id, Verbosity, ActivityType type, std::string_view text,
                       const LogFields &fields, ActivityId parent) override {
        ids.push_back(id);
        events += "start " + std::to_string(static_cast<int>(type)) + " " + std::string(text) + " fields " +
                  std::to_string(fields.size()) + " parent " + std::to_string(parent) + "\n";
    }
    void stopActivity(ActivityId id) override {
        stopped.push_back(id);
        events += "stop\n";
    }
    void result(ActivityId, ResultType type, const LogFields &fields) override {
        events += "result " + std::to_string(static_cast<int>(type));
        for (const LogField &field : fields) {
            events += " " + std::to_string(std::get<uint64_t>(field));
        }
        events += "\n";
    }

    std::string events;
    std::vector<ActivityId> ids, stopped;
};

TEST(Activity, StartsReportsAndStops) {
    RecordingLogger logger;
    {
        Activity activity(logger, Verbosity::info, ActivityType::build, "building", {"path"}, 7);
        activity.progress(1, 2, 3, 4);
    }
    EXPECT_EQ(logger.events, "start 105 building fields 1 parent 7\nresult 105 1 2 3 4\nstop\n");
    EXPECT_EQ(logger.ids, logger.stopped);
}

TEST(Activity, NumbersAreUniqueAndCarryThePid) {
    RecordingLogger logger;
    for (int i = 0; i < 3; i++) {
        Activity(logger, Verbosity::info, ActivityType::unknown, "");
    }
    EXPECT_EQ(std::set<ActivityId>(logger.ids.begin(), logger.ids.end()).size(), 3);
    for (ActivityId id : logger.ids) {
        EXPECT_EQ(id >> 32, static_cast<ActivityId>(getpid()));
    }
}

TEST(Activity, AForkedProcessUsesItsOwnPid) {
    pid_t child = fork();
    if (child == 0) {
        RecordingLogger logger;
        Activity activity(logger, Verbosity::info, ActivityType::unknown, "");
        _exit(activity.id() >> 32 == static_cast<ActivityId>(getpid()) ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
}

TEST(Logger, WarningsSaySo) {
    RecordingLogger logger;
    logger.warn("careful");
    EXPECT_EQ(logger.events, "log 1 warning: careful\n");
}

TEST(StderrLogger, WritesMessagesUpToItsLevelAndDisarmsThem) {
    auto logger = makeStderrLogger(Verbosity::notice);
    testing::internal::CaptureStderr();
    logger->log(Verbosity::notice, "shown \x1b[1m");
    logger->log(Verbosity::info, "hidden");
    logger->startActivity(1, Verbosity::error, ActivityType::build, "building x", {}, 0);
    logger->startActivity(2, Verbosity::error, ActivityType::builds, "", {}, 0);
    logger->result(1, ResultType::progress, {});
    logger->stopActivity(1);
    EXPECT_EQ(testing::internal::GetCapturedStderr(), "shown \\x1b[1m\nbuilding x...\n");
}

} // namespace
} // namespace firn
