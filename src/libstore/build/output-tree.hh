#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <sys/stat.h>

#include "libutil/file-descriptor.hh"

// What a builder left as one output, read once through descriptors. The list is taken after every process of
// the build is gone and everything is canonical, so it stays true; whoever reads the files later still opens
// them relative to their directory and without following symlinks.

namespace firn {

/// One file-system object of an output.
struct OutputNode {
    enum class Type { regular, directory, symlink };

    Type type = Type::regular;
    bool executable = false;
    /// A regular file that somebody else may still reach: it has names outside the build's outputs.
    bool linkedOutside = false;
    uint32_t parent = 0;            ///< index of the directory; the root's is its own
    uint64_t size = 0;              ///< of a regular file, bytes
    std::string name;               ///< as it is on disk now; the root's is the scratch entry's
    std::string target;             ///< of a symlink
    std::vector<uint32_t> children; ///< of a directory, sorted bytewise by name
};

/// The first bytes of a regular file.
using FileHead = std::array<char, 4>;

/// A regular file with several names.
struct LinkedNode {
    uint32_t node;
    dev_t device;
    ino_t inode;
};

/// Nodes of an output, the root first. Not thread-safe.
struct OutputTree {
    std::vector<OutputNode> nodes;
    std::vector<LinkedNode> linked;

    const OutputNode &root() const { return nodes.front(); }
    /// Relative to the root, '/' between components; "" for the root.
    std::string pathOf(uint32_t node) const;
};

/// Files with several names that were seen in the outputs of one build.
class LinkCounts {
  public:
    void add(const struct stat &st);
    bool wasSeen(const struct stat &st) const { return counts_.contains({st.st_dev, st.st_ino}); }
    /// Sets OutputNode::linkedOutside where a file has more names than were seen. For when all outputs of the
    /// build were collected.
    void markLinkedOutside(OutputTree &tree) const;

  private:
    struct Count {
        uint64_t links = 0, seen = 0;
    };
    std::map<std::pair<dev_t, ino_t>, Count> counts_;
};

struct CollectOptions {
    std::string displayPath;                   ///< for messages: what the builder knew the output as
    std::string outputName;                    ///< for messages
    uid_t builderUid = static_cast<uid_t>(-1); ///< owner that everything must have; −1: not checked
    std::set<std::string> ignoredAcls;         ///< extended attributes that may stay
};

/// Reads the tree of entry `name` in `dir` and makes it canonical on the way: every object belongs to us, has
/// mode 0444 or 0555, a modification time of 1 and no extended attributes. Iterative, no symlink followed.
/// Throws BuildFailure(outputRejected) for a root that others could write to, a foreign owner, a file type
/// that a store does not hold, a directory deeper than 1024. `links` is shared by the outputs of a build.
OutputTree collectOutput(int dir, const std::string &name, const CollectOptions &options, LinkCounts &links);

/// Receives a tree in the order of an archive. `dir` is the object's directory and valid during the call.
class OutputVisitor {
  public:
    virtual ~OutputVisitor() = default;
    virtual void enterDirectory(int self, uint32_t node) = 0;
    virtual void leaveDirectory(int self, uint32_t node) = 0;
    virtual void file(int dir, uint32_t node) = 0;
    virtual void symlink(int dir, uint32_t node) = 0;
};

/// Goes through the tree below `dir`; directories are opened relative to each other. The visitor may rename
/// the children of a directory in leaveDirectory().
void walkOutput(int dir, const OutputTree &tree, OutputVisitor &visitor);

/// Calls it for every regular file, in the order of an archive. `dir` as for the visitor.
void visitFiles(int dir, const OutputTree &tree, const std::function<void(int dir, uint32_t node)> &onFile);

} // namespace firn
