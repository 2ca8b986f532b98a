#pragma once

#include <string>
#include <vector>

#include "libutil/files.hh"

namespace firn {

/// What a walk meets. `dir` is the open directory of `name` and valid during the call; `path` is for people:
/// the path the walk began with, '/' and the way below it.
class TreeVisitor {
  public:
    virtual ~TreeVisitor() = default;
    /// Whether to go into the directory that was just opened.
    virtual bool enter(int /*self*/, const std::string & /*path*/) { return true; }
    virtual void file(int dir, const std::string &name, const std::string &path) = 0;
    virtual void symlink(int /*dir*/, const std::string & /*name*/, const std::string & /*path*/) {}
    /// After everything below; `entries` are what was there when the directory was entered. `path` is the
    /// directory's.
    virtual void leave(int /*self*/, const std::vector<DirectoryEntry> & /*entries*/,
                       const std::string & /*path*/) {}
    /// A directory that could not be read; the walk goes on beside it.
    virtual void problem(const std::string &path, const std::string &message) = 0;
};

/// Walks the tree below an open directory, in the order of names, iteratively, and without following a
/// symlink. Sockets, FIFOs and devices are passed over. What is moved away under it ends the walk with an
/// Error; so does requestInterrupt().
void walkTree(int root, const std::string &path, TreeVisitor &visitor);

} // namespace firn
