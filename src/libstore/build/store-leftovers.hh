#pragma once

#include <algorithm>

#include "libstore/build/output-placement.hh"
#include "libstore/store/local-store.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"

namespace firn {

/// Outputs that an unsandboxed builder leaves in the store itself, removed by the destructor. What is valid
/// stays, whatever went wrong after it became so.
class StoreLeftovers {
  public:
    explicit StoreLeftovers(LocalStore &store) : store_(store) {}
    StoreLeftovers(const StoreLeftovers &) = delete;
    StoreLeftovers &operator=(const StoreLeftovers &) = delete;
    ~StoreLeftovers() {
        for (const StorePath &path : paths_) {
            try {
                if (isLeft(path)) {
                    removeTree(store_.storeFd(), path.baseName());
                }
            } catch (const Error &error) {
                store_.logger().warn(error.message());
            }
        }
    }
    void add(const StorePath &path) { paths_.insert(path); }
    void forget(const StorePath &path) { paths_.erase(path); }
    /// Whether there is anything to be removed.
    bool any() const {
        return std::ranges::any_of(paths_, [this](const StorePath &path) { return isLeft(path); });
    }
    /// Moves what there is to another directory on the store's file system.
    void moveTo(int dir) const {
        for (const StorePath &path : paths_) {
            if (isLeft(path)) {
                moveOutput(store_.storeFd(), path.baseName(), dir, path.baseName());
            }
        }
    }

  private:
    bool isLeft(const StorePath &path) const {
        return existsAt(store_.storeFd(), path.baseName()) && !store_.isValidPath(path);
    }

    LocalStore &store_;
    StorePathSet paths_;
};

} // namespace firn
