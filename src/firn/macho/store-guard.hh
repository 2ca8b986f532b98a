#pragma once

#include <string>
#include <utility>
#include <vector>

#include <sys/stat.h>

namespace firn {

/// Knows the directories that hold store paths, which nobody but a daemon may change: the configured one
/// (NIX_STORE_DIR), /nix/store, and any directory called "store" beside which there is a Nix database.
class StoreGuard {
  public:
    StoreGuard();

    /// Throws Error(refused) if an existing path is in a store, or is one, by whatever names and links.
    void requireOutside(const std::string &path) const;
    /// Whether an open directory is a store. Its name is the last component of `path`.
    bool isStore(int directory, const std::string &path) const;

  private:
    bool isKnown(const struct stat &st) const;

    std::vector<std::pair<dev_t, ino_t>> stores_;
};

} // namespace firn
