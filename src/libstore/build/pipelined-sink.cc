#include "libstore/build/pipelined-sink.hh"

#include <utility>

namespace firn {

PipelinedSink::~PipelinedSink() {
    stop(true);
}

void PipelinedSink::write(std::string_view bytes) {
    while (!bytes.empty()) {
        std::string_view part = bytes.substr(0, blockSize - block_.size());
        block_.append(part);
        bytes.remove_prefix(part.size());
        if (block_.size() == blockSize) {
            passBlock();
        }
    }
}

/// Hands the full block over and gets an empty one.
void PipelinedSink::passBlock() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return full_.size() < maxBlocks || failure_; });
    if (failure_) {
        std::rethrow_exception(failure_);
    }
    full_.push_back(std::exchange(block_, {}));
    if (!empty_.empty()) {
        block_ = std::move(empty_.front());
        empty_.pop_front();
        block_.clear();
    }
    changed_.notify_all();
    if (!thread_.joinable()) {
        thread_ = std::thread([this] { run(); });
    }
}

void PipelinedSink::run() {
    std::unique_lock lock(mutex_);
    for (;;) {
        changed_.wait(lock, [this] { return !full_.empty() || ended_; });
        if (full_.empty()) {
            return;
        }
        std::string block = std::move(full_.front());
        full_.pop_front();
        lock.unlock();
        std::exception_ptr failure;
        try {
            next_.write(block);
        } catch (...) {
            failure = std::current_exception();
        }
        lock.lock();
        empty_.push_back(std::move(block));
        if (failure) {
            failure_ = failure;
            changed_.notify_all();
            return;
        }
        changed_.notify_all();
    }
}

void PipelinedSink::stop(bool drop) {
    if (!thread_.joinable()) {
        return;
    }
    {
        std::lock_guard lock(mutex_);
        ended_ = true;
        if (drop) {
            full_.clear();
        }
        changed_.notify_all();
    }
    thread_.join();
}

void PipelinedSink::finish() {
    stop(false);
    if (failure_) {
        std::rethrow_exception(failure_);
    }
    next_.write(block_);
    block_.clear();
}

} // namespace firn
