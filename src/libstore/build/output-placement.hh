#pragma once

#include <string>
#include <vector>

#include "libstore/model/store-path.hh"

namespace firn {

class LocalStore;

/// Moves finished outputs to their final paths. Until commit() everything can be undone, and the destructor
/// does so: outputs go back to where they came from, what they replaced comes back.
class OutputPlacement {
  public:
    /// The store must outlive it.
    explicit OutputPlacement(LocalStore &store) : store_(store) {}
    ~OutputPlacement();
    OutputPlacement(const OutputPlacement &) = delete;
    OutputPlacement &operator=(const OutputPlacement &) = delete;

    /// Moves entry `name` of `dir` to `path`. What lies there without being valid (of a process that was
    /// killed, of anybody) is removed, relative to the store directory; what is valid is exchanged with it in
    /// one step, where the file system can, and kept till the end. `dir` must stay open. Does nothing if it
    /// is in its place.
    void place(int dir, const std::string &name, const StorePath &path);
    /// Everything is registered: removes what was replaced.
    void commit();

  private:
    struct Move {
        int dir;
        std::string name;  ///< where it came from
        std::string final; ///< in the store directory
        std::string aside; ///< name of what was there before, empty: nothing
        bool exchanged;    ///< what was there before lies where this came from
    };

    void clear(const StorePath &path, Move &move);
    void undo(const Move &move);

    LocalStore &store_;
    std::vector<Move> moves_;
};

/// Renames a canonical file or tree to another directory, also where its root would have to be writable for
/// that (as for an ordinary user).
void moveOutput(int fromDir, const std::string &from, int toDir, const std::string &to);

/// Whether two descriptors are of the same directory.
bool isSameDirectory(int a, int b);

} // namespace firn
