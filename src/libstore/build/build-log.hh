#pragma once

#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "libutil/file-descriptor.hh"
#include "libutil/logging.hh"

// What a builder prints. The bytes go to the build's log file as they are; cut into lines they go to the
// client and, the last of them, into the failure message. A line "@nix {json}" (the internal-json format of
// Nix's loggers) is a message to the daemon: phases are shown, activities passed on where an untrusted build
// may have any. All of it is written by a build: every length here has a bound.

namespace firn {

/// Cuts bytes into lines. A carriage return moves back to the line's start, as on a terminal. A line longer
/// than `maxLength` is handed on in pieces.
class LineSplitter {
  public:
    static constexpr size_t maxLength = 64 * 1024;

    explicit LineSplitter(std::function<void(std::string_view)> onLine) : onLine_(std::move(onLine)) {}
    void write(std::string_view bytes);
    /// The last line may lack its newline.
    void finish();

  private:
    void emit();

    std::function<void(std::string_view)> onLine_;
    std::string line_;
    size_t position_ = 0;
};

/// A message of a builder to the daemon.
struct BuilderMessage {
    enum class Action { startActivity, stopActivity, result, setPhase, message };
    Action action;
    uint64_t id = 0;    ///< the builder's own number for the activity
    uint64_t type = 0;  ///< of an activity or a result
    uint64_t level = 0; ///< verbosity
    std::string text;   ///< of an activity or message; name of the phase
    LogFields fields;
};

/// nullopt for a line that is no such message, also when it begins like one.
std::optional<BuilderMessage> parseBuilderMessage(std::string_view line);

/// A line made safe to show: colours (SGR sequences) and tabs stay, other control characters become \xNN.
std::string escapeLogLine(std::string_view line);

/// The log file; bzip2 where the path ends in ".bz2". Missing directories are made.
class LogFile {
  public:
    explicit LogFile(const std::filesystem::path &path);
    ~LogFile();
    LogFile(LogFile &&) noexcept;

    void write(std::string_view bytes);
    /// Writes what is still held back. Without it the file ends early.
    void finish();

  private:
    struct Compressor;
    void compress(int action);

    std::filesystem::path path_;
    UniqueFd fd_;
    std::unique_ptr<Compressor> compressor_;
};

/// Everything that happens to one build's output.
class BuildLog {
  public:
    /// `file` may be empty. The activity must outlive the log. `tailLength`: number of last lines kept.
    BuildLog(Logger &logger, Activity &activity, std::optional<LogFile> file, size_t tailLength);

    void write(std::string_view bytes);
    /// The builder has ended: so do its last line and all activities that it left open. May be called again.
    void endOutput();
    /// A line of the daemon's own, for the file alone; before the first write() or after endOutput().
    void note(std::string_view line);
    /// Ends the file as well. May be called again.
    void finish();

    uint64_t size() const { return size_; }
    /// The last lines, escaped; messages to the daemon are not among them.
    const std::deque<std::string> &tail() const { return tail_; }

  private:
    void handleLine(std::string_view line);
    void handleMessage(const BuilderMessage &message);
    void startActivity(const BuilderMessage &message);

    Logger &logger_;
    Activity &activity_;
    std::optional<LogFile> file_;
    size_t tailLength_;
    uint64_t size_ = 0;
    LineSplitter splitter_;
    std::deque<std::string> tail_;
    std::map<uint64_t, std::unique_ptr<Activity>> activities_;
};

} // namespace firn
