#include "libstore/build/background-removal.hh"

#include <system_error>

#include "libutil/error.hh"

namespace firn {

namespace {

/// What waits takes space, and descriptors.
constexpr size_t mostWaiting = 4;

} // namespace

BackgroundRemoval::BackgroundRemoval(const Locations &locations, Logger &logger)
    : storeDir_(locations.storeDir), logger_(logger), roots_(locations.stateDir) {}

BackgroundRemoval::~BackgroundRemoval() {
    {
        std::lock_guard lock(mutex_);
        ending_ = true;
    }
    changed_.notify_one();
    if (thread_.joinable()) {
        thread_.join();
    }
}

void BackgroundRemoval::remove(std::unique_ptr<ScratchStore> store) {
    StorePath name = ScratchStore::nameAside();
    roots_.add(storeDir_.print(name));
    store->setAside(name);
    if (!queue(store)) {
        store->remove();
    }
}

bool BackgroundRemoval::queue(std::unique_ptr<ScratchStore> &store) {
    std::lock_guard lock(mutex_);
    if (waiting_.size() >= mostWaiting) {
        return false;
    }
    if (!thread_.joinable()) {
        try {
            thread_ = std::thread([this] { run(); });
        } catch (const std::system_error &) {
            return false;
        }
    }
    waiting_.push_back(std::move(store));
    changed_.notify_one();
    return true;
}

void BackgroundRemoval::run() {
    std::unique_lock lock(mutex_);
    for (;;) {
        changed_.wait(lock, [this] { return ending_ || !waiting_.empty(); });
        if (waiting_.empty()) {
            return;
        }
        std::unique_ptr<ScratchStore> store = std::move(waiting_.front());
        waiting_.pop_front();
        lock.unlock();
        removeNow(*store);
        store.reset();
        lock.lock();
    }
}

void BackgroundRemoval::removeNow(ScratchStore &store) {
    try {
        store.remove(Awaited::no);
    } catch (const std::exception &error) {
        logger_.warn(fmt::format("what a build has left stays in the store until a daemon starts or garbage "
                                 "is collected: {}",
                                 error.what()));
    }
}

} // namespace firn
