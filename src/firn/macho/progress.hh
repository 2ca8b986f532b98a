#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace firn {

/// "[#####     ]  50 %  1.5 of 3.0 GiB", at most `width` characters.
std::string progressLine(uint64_t done, uint64_t total, size_t width);
/// "512 bytes", "1.5 MiB".
std::string describeSize(uint64_t bytes);

/// A progress bar on standard error, if that is a terminal, once the work has taken a second. How much there
/// is to do is found out meanwhile, by adding up the sizes of all regular files below `paths` (a symlink
/// among them is followed).
class Progress {
  public:
    explicit Progress(std::vector<std::string> paths);
    /// Takes the bar away.
    ~Progress();
    Progress(const Progress &) = delete;
    Progress &operator=(const Progress &) = delete;

    void add(uint64_t bytes) { done_ += bytes; }
    /// Does what prints something while the bar is not there. Not by two threads at a time.
    void print(const std::function<void()> &printing);

  private:
    void run(const std::vector<std::string> &paths);
    void survey(const std::string &path);
    bool ended(int milliseconds);
    void show(bool surveyed);
    void hide();

    std::atomic<uint64_t> done_{0};
    uint64_t total_ = 0;
    std::mutex mutex_; ///< of the terminal, and of ended_
    std::condition_variable end_;
    bool ended_ = false, shown_ = false;
    std::thread thread_;
};

} // namespace firn
