#include "libutil/logging.hh"

#include <mutex>

#include <unistd.h>

#include "libutil/error.hh"
#include "libutil/files.hh"

namespace firn {

void Logger::warn(std::string_view message) {
    log(Verbosity::warning, "warning: " + std::string(message));
}

namespace {

class StderrLogger : public Logger {
  public:
    explicit StderrLogger(Verbosity level) : level_(level) {}

    void log(Verbosity level, std::string_view message) override {
        if (level <= level_) {
            writeLine(message);
        }
    }

    void startActivity(ActivityId, Verbosity level, ActivityType, std::string_view text, const LogFields &,
                       ActivityId) override {
        if (!text.empty()) {
            log(level, std::string(text) + "...");
        }
    }

    void stopActivity(ActivityId) override {}
    void result(ActivityId, ResultType, const LogFields &) override {}

  private:
    void writeLine(std::string_view message) {
        std::string line = escapeForDisplay(message, longestMessage) + "\n";
        std::lock_guard lock(mutex_);
        try {
            writeFull(STDERR_FILENO, line);
        } catch (const SysError &) {
            // Standard error is where a failure would be told; work goes on without it.
        }
    }

    static constexpr size_t longestMessage = 256 * 1024;
    const Verbosity level_;
    std::mutex mutex_; ///< lines of several threads stay whole
};

/// The pid is looked at each time: a forked process must not go on with its parent's numbers.
ActivityId newActivityId() {
    static std::atomic<uint64_t> count{0};
    return (static_cast<uint64_t>(getpid()) << 32) + count++;
}

} // namespace

std::unique_ptr<Logger> makeStderrLogger(Verbosity level) {
    return std::make_unique<StderrLogger>(level);
}

Activity::Activity(Logger &logger, Verbosity level, ActivityType type, std::string_view text,
                   const LogFields &fields, ActivityId parent)
    : logger_(logger), id_(newActivityId()) {
    logger_.startActivity(id_, level, type, text, fields, parent);
}

Activity::~Activity() {
    try {
        logger_.stopActivity(id_);
    } catch (const std::exception &) {
        // Only a lost connection makes a logger throw, and whoever uses the connection next meets it too.
    }
}

void Activity::progress(uint64_t done, uint64_t expected, uint64_t running, uint64_t failed) {
    result(ResultType::progress, {done, expected, running, failed});
}

} // namespace firn
