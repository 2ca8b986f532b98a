#pragma once

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
                if (!store_.isValidPath(path)) {
                    removeTree(store_.storeFd(), path.baseName());
                }
            } catch (const Error &error) {
                store_.logger().warn(error.message());
            }
        }
    }
    void add(const StorePath &path) { paths_.insert(path); }
    void forget(const StorePath &path) { paths_.erase(path); }

  private:
    LocalStore &store_;
    StorePathSet paths_;
};

} // namespace firn
