#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include "libstore/build/scratch-store.hh"
#include "libstore/store/settings.hh"
#include "libstore/store/temp-roots.hh"

namespace firn {

/// Removes scratch stores in a thread of its own, one after the other. What is not removed when the process
/// is killed is found by the next daemon's sweep, or a collection, like every scratch store that a build has
/// left. All but the destructor is for one thread.
class BackgroundRemoval {
  public:
    /// `logger`: the daemon's own, which is told what cannot be removed. Must outlive it.
    BackgroundRemoval(const Locations &locations, Logger &logger);
    /// Returns when all is removed.
    ~BackgroundRemoval();
    BackgroundRemoval(const BackgroundRemoval &) = delete;
    BackgroundRemoval &operator=(const BackgroundRemoval &) = delete;

    /// For the holder of its outputs' locks, who need not keep them: it is out of everybody's way when this
    /// returns. Removes it at once where many wait already, or no thread is to be had. Throws where that
    /// fails.
    void remove(std::unique_ptr<ScratchStore> store);

  private:
    void run();
    bool queue(std::unique_ptr<ScratchStore> &store);
    void removeNow(ScratchStore &store);

    const StoreDir storeDir_;
    Logger &logger_;
    TempRoots roots_; ///< beside the store's, which end with the connection
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<std::unique_ptr<ScratchStore>> waiting_;
    bool ending_ = false; ///< when nothing waits any more
    std::thread thread_;  ///< from the first one on
};

} // namespace firn
