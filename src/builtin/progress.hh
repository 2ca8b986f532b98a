#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace firn::builtin {

/// Tells the daemon how far a download is, by lines in the build's log that it understands (and shows where a
/// client shows progress). At most one a second, and none while nothing moves: silence means a stalled build.
class DownloadProgress {
  public:
    explicit DownloadProgress(const std::string &url);
    ~DownloadProgress();
    DownloadProgress(const DownloadProgress &) = delete;
    DownloadProgress &operator=(const DownloadProgress &) = delete;

    /// `expected` 0: not known.
    void show(uint64_t done, uint64_t expected);

  private:
    uint64_t done_ = 0;
    std::chrono::steady_clock::time_point shown_{};
};

/// A line in the build's log.
void say(const std::string &line);

} // namespace firn::builtin
