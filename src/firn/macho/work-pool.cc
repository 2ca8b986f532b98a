#include "firn/macho/work-pool.hh"

#include <algorithm>

namespace firn {

WorkPool::WorkPool(unsigned threads, size_t room) : room_(room) {
    for (unsigned i = 0; i < std::max(threads, 1u); ++i) {
        threads_.emplace_back([this] { work(); });
    }
}

WorkPool::~WorkPool() {
    {
        std::lock_guard lock(mutex_);
        ended_ = true;
    }
    hasTask_.notify_all();
    for (std::thread &thread : threads_) {
        thread.join();
    }
}

void WorkPool::submit(std::function<void()> task) {
    {
        std::unique_lock lock(mutex_);
        hasRoom_.wait(lock, [this] { return tasks_.size() < room_; });
        tasks_.push_back(std::move(task));
    }
    hasTask_.notify_one();
}

void WorkPool::work() {
    for (;;) {
        std::function<void()> task;
        {
            std::unique_lock lock(mutex_);
            hasTask_.wait(lock, [this] { return ended_ || !tasks_.empty(); });
            if (tasks_.empty()) {
                return;
            }
            task = std::move(tasks_.front());
            tasks_.pop_front();
        }
        hasRoom_.notify_one();
        task();
    }
}

} // namespace firn
