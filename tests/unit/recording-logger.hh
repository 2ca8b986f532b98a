#pragma once

#include <mutex>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "libutil/logging.hh"

namespace firn {

/// Writes down what it is told, a line each.
class RecordingLogger : public Logger {
  public:
    void log(Verbosity level, std::string_view message) override {
        add(fmt::format("log {} {}", static_cast<int>(level), message));
    }
    void startActivity(ActivityId, Verbosity, ActivityType type, std::string_view text,
                       const LogFields &fields, ActivityId) override {
        add(fmt::format("start {} {}{}", static_cast<int>(type), text, print(fields)));
    }
    void stopActivity(ActivityId) override { add("stop"); }
    void result(ActivityId, ResultType type, const LogFields &fields) override {
        add(fmt::format("result {}{}", static_cast<int>(type), print(fields)));
    }
    std::vector<std::string> lines() {
        std::lock_guard guard(mutex_);
        return lines_;
    }
    void clear() {
        std::lock_guard guard(mutex_);
        lines_.clear();
    }

  private:
    static std::string print(const LogFields &fields) {
        std::string text;
        for (const LogField &field : fields) {
            const auto *number = std::get_if<uint64_t>(&field);
            text += " [" + (number ? std::to_string(*number) : std::get<std::string>(field)) + "]";
        }
        return text;
    }
    void add(std::string line) {
        std::lock_guard guard(mutex_);
        lines_.push_back(std::move(line));
    }

    std::mutex mutex_;
    std::vector<std::string> lines_;
};

} // namespace firn
