#pragma once

#include "libstore/build/build-log.hh"

namespace firn {

/// Keeps what the client is told in the build's log, too. Before the builder's first output
/// or after BuildLog::endOutput(); both must outlive it.
class NotingLogger : public Logger {
  public:
    NotingLogger(Logger &logger, BuildLog &log) : logger_(logger), log_(log) {}
    void log(Verbosity level, std::string_view message) override {
        log_.note(message);
        logger_.log(level, message);
    }
    void startActivity(ActivityId id, Verbosity level, ActivityType type, std::string_view text,
                       const LogFields &fields, ActivityId parent) override {
        logger_.startActivity(id, level, type, text, fields, parent);
    }
    void stopActivity(ActivityId id) override { logger_.stopActivity(id); }
    void result(ActivityId id, ResultType type, const LogFields &fields) override {
        logger_.result(id, type, fields);
    }

  private:
    Logger &logger_;
    BuildLog &log_;
};

} // namespace firn
