#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

// Structured logging as clients of Nix's worker protocol expect it: messages with a verbosity, and activities
// (with type, text, fields, parent) that start, give results and stop. Numbers are the protocol's.

namespace firn {

enum class Verbosity : uint64_t { error, warning, notice, info, talkative, chatty, debug, vomit };

enum class ActivityType : uint64_t {
    unknown = 0,
    copyPath = 100,
    fileTransfer = 101,
    realise = 102,
    copyPaths = 103,
    builds = 104,
    build = 105,
    optimiseStore = 106,
    verifyPaths = 107,
    substitute = 108,
    queryPathInfo = 109,
    postBuildHook = 110,
    buildWaiting = 111,
};

enum class ResultType : uint64_t {
    fileLinked = 100,
    buildLogLine = 101,
    untrustedPath = 102,
    corruptedPath = 103,
    setPhase = 104,
    progress = 105,
    setExpected = 106,
    postBuildLogLine = 107,
};

using LogField = std::variant<uint64_t, std::string>;
using LogFields = std::vector<LogField>;
using ActivityId = uint64_t;

/// Thread-safe implementations only.
class Logger {
  public:
    virtual ~Logger() = default;
    /// One message, without trailing newline.
    virtual void log(Verbosity level, std::string_view message) = 0;
    virtual void startActivity(ActivityId id, Verbosity level, ActivityType type, std::string_view text,
                               const LogFields &fields, ActivityId parent) = 0;
    virtual void stopActivity(ActivityId id) = 0;
    virtual void result(ActivityId id, ResultType type, const LogFields &fields) = 0;

    void warn(std::string_view message); ///< "warning: " is put before it
};

/// Writes messages to standard error, activities only as their text.
std::unique_ptr<Logger> makeStderrLogger(Verbosity level);

/// RAII of one activity; ids are unique in this process tree (pid in the upper bits).
class Activity {
  public:
    Activity(Logger &logger, Verbosity level, ActivityType type, std::string_view text,
             const LogFields &fields = {}, ActivityId parent = 0);
    ~Activity();
    Activity(const Activity &) = delete;
    Activity &operator=(const Activity &) = delete;
    ActivityId id() const { return id_; }
    void result(ResultType type, const LogFields &fields) { logger_.result(id_, type, fields); }
    void progress(uint64_t done, uint64_t expected, uint64_t running = 0, uint64_t failed = 0);

  private:
    Logger &logger_;
    ActivityId id_;
};

} // namespace firn
