#pragma once

#include <filesystem>
#include <functional>
#include <set>
#include <string>

#include "libutil/file-descriptor.hh"

// Temporary roots: store paths that must not be collected for as long as this process lives. They stand, each
// ended by a NUL, in the file `temproots/<pid>`, on which the process holds an exclusive lock (flock): a
// collection that gets the lock knows that the process is gone, and removes the file.
//
// A collection holds `gc.lock` exclusively and reads the files once. So a root is written while gc.lock is
// held shared, or, where that cannot be had, is announced to the running collection: full path and newline
// to the socket `gc-socket/socket`, which answers '1' when the path is safe. A root protects every entry of
// the store directory with the same hash part.

namespace firn {

class TempRoots {
  public:
    explicit TempRoots(std::filesystem::path stateDir) : stateDir_(std::move(stateDir)) {}
    /// Removes the file.
    ~TempRoots();
    TempRoots(const TempRoots &) = delete;
    TempRoots &operator=(const TempRoots &) = delete;

    /// Returns when the path (full) is safe. Cheap for a path that is a root already.
    void add(const std::string &path);
    bool contains(const std::string &path) const { return announced_.contains(path); }

  private:
    void openFile();
    bool fileIsGone() const;
    bool noCollectorRuns();
    bool tellCollector(const std::string &path);
    void append(const std::string &path);

    std::filesystem::path stateDir_, filePath_;
    UniqueFd file_, gcLock_, socket_;
    std::set<std::string> announced_;
};

/// Opens `gc.lock`, unlocked.
UniqueFd openGcLock(const std::filesystem::path &stateDir);

/// Calls `found` for every root in the files of living processes (with their process ids) and removes the
/// files of dead ones. For the holder of gc.lock or for whoever only wants to look (`removeStale` false).
void readTempRoots(const std::filesystem::path &stateDir, bool removeStale,
                   const std::function<void(const std::string &pid, const std::string &path)> &found);

} // namespace firn
