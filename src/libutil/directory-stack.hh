#pragma once

#include <string>
#include <vector>

#include "libutil/file-descriptor.hh"
#include "libutil/files.hh"

namespace firn {

/// The way from a base directory down to the one being worked in, for walks over trees of any depth without
/// recursion. At most `maxOpen` directories of the way are open at a time: further up they are closed, and
/// opened again through ".." on the way back, where device and inode must be the ones met on the way down. No
/// symlink is followed.
class DirectoryStack {
  public:
    /// `base` stays the caller's and must stay open. It may be AT_FDCWD.
    explicit DirectoryStack(int base, size_t maxOpen = 48) : base_(base), maxOpen_(maxOpen) {}

    /// The innermost directory (the base if nothing was entered).
    int current() const { return levels_.empty() ? base_ : levels_.back().fd.get(); }
    size_t depth() const { return levels_.size(); }
    /// Facts of the innermost directory as it was entered. Not for the base.
    const struct stat &currentStat() const { return levels_.back().st; }

    /// Opens directory `name` in the current one and goes there. `name` may be a path if nothing was entered
    /// and the base is AT_FDCWD.
    void enter(const std::string &name);
    /// Goes back up and returns the name of what was left. Throws Error(refused) if that was moved meanwhile.
    std::string leave();

    /// "a/b/name" below the base, for messages; a long one is cut at its front.
    std::string describe(const std::string &name = "") const;

  private:
    struct Level {
        std::string name;
        struct stat st;
        UniqueFd fd; ///< none when closed for want of room
    };

    void reopenParent();

    int base_;
    size_t maxOpen_;
    std::vector<Level> levels_;
};

} // namespace firn
