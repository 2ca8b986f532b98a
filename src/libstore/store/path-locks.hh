#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "libstore/model/store-path.hh"
#include "libutil/file-descriptor.hh"

// Output locks as stock Nix takes them: flock-style exclusive locks on "<store path>.lock" beside the path,
// in sorted order; a lock file is deleted by whoever registered the path (after writing a byte "d" into it,
// so that those who wait open it anew).

namespace firn {

enum class LockMode { none, shared, exclusive };

/// Takes or changes a lock on an open file (flock). Without `wait` returns false when somebody else holds it.
bool lockFile(int fd, LockMode mode, bool wait);

/// "<base name>.lock" for each.
std::set<std::string> lockNames(const StorePathSet &paths);

/// Locks on a set of names (usually "<base name>.lock") in one directory; released, all at once, by the
/// destructor.
class PathLocks {
  public:
    PathLocks() = default;
    PathLocks(PathLocks &&) noexcept;
    PathLocks &operator=(PathLocks &&) noexcept;
    ~PathLocks();

    /// All or nothing, without waiting: nullopt if somebody else holds one of them. A stale (deleted) lock
    /// file is opened anew.
    static std::optional<PathLocks> tryLock(int dir, const std::set<std::string> &names);
    /// Waits for each in turn (sorted).
    static PathLocks lock(int dir, const std::set<std::string> &names);

    /// Delete the lock files on release.
    void setDeletion(bool remove) { remove_ = remove; }
    void release();

  private:
    int dir_ = -1;
    std::vector<std::pair<std::string, UniqueFd>> held_;
    bool remove_ = false;
};

} // namespace firn
