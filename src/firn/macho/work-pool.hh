#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace firn {

/// Threads that do tasks. The tasks must not throw, and must not submit further ones: submit() waits while as
/// many are queued as there is room for, which bounds the memory and the descriptors that tasks hold.
class WorkPool {
  public:
    WorkPool(unsigned threads, size_t room);
    /// Does all that was submitted, then ends the threads.
    ~WorkPool();
    WorkPool(const WorkPool &) = delete;
    WorkPool &operator=(const WorkPool &) = delete;

    void submit(std::function<void()> task);

  private:
    void work();

    const size_t room_;
    std::mutex mutex_;
    std::condition_variable hasTask_, hasRoom_;
    std::deque<std::function<void()>> tasks_;
    bool ended_ = false;
    std::vector<std::thread> threads_;
};

} // namespace firn
