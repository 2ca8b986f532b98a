#pragma once

#include <atomic>
#include <exception>
#include <functional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "libstore/build/output-scan.hh"
#include "libstore/build/output-tree.hh"
#include "libstore/build/patch.hh"
#include "libstore/build/reference-scanner.hh"
#include "libutil/file-descriptor.hh"
#include "libutil/stream.hh"

// Changing what lies in an output. No byte of an existing inode is ever written: a changed file is a new one,
// complete and canonical before it takes the old one's name. So hard links and descriptors that others hold
// keep what they had.

namespace firn {

/// A new file that is to take the place of a regular file of an output. If it is not committed it vanishes.
class ReplacementFile : public Sink {
  public:
    /// `dir` is the file's directory, which must be writable and stay open; `tree` must outlive it.
    ReplacementFile(int dir, const OutputTree &tree, uint32_t node);
    ~ReplacementFile() override;
    ReplacementFile(const ReplacementFile &) = delete;
    ReplacementFile &operator=(const ReplacementFile &) = delete;

    /// Shares all data of another file where the file system can (reflink); returns whether it could.
    bool cloneFrom(int fd);
    void write(std::string_view bytes) override; ///< behind what was written before
    void writeAt(std::string_view bytes, uint64_t offset);
    /// Writes the first `size` bytes of another file to the same place; many of them in a thread of its own,
    /// for which commit() waits. To be called once.
    void copyFrom(int fd, uint64_t size);
    /// Another descriptor, to read it from its start.
    UniqueFd reopen() const;
    /// Makes it canonical and gives it the old file's name. `old` may be a descriptor of the old file: then
    /// nobody waits until a large one's blocks are free.
    void commit(UniqueFd old);

    /// Name under which the replacement of a root is made, beside it: with its hash part, so that a temporary
    /// root of the scratch path protects it too. (Members' are made inside the output.)
    static std::string rootTemporary(const std::string &rootName);

  private:
    void readOld(int fd, uint64_t offset, char *buffer, size_t size) const;
    void copyRange(int fd, uint64_t size);

    int dir_;
    std::string name_;
    bool executable_;
    std::string temporary_; ///< empty once committed
    UniqueFd fd_;

    std::thread copier_;
    std::atomic<bool> abandoned_ = false;
    std::exception_ptr copyFailure_; ///< the thread's, to be looked at after it
};

/// Puts a canonical symlink in the place of one of an output; the tree follows. `dir` as for ReplacementFile.
void replaceSymlink(int dir, OutputTree &tree, uint32_t node, const std::string &target);

/// A name that nothing in a directory has: `tryName` makes or moves something there, or returns false, with
/// EEXIST in errno where the name is taken. `what` is for the message.
std::string makeTemporary(const std::string &what, const std::function<bool(const std::string &)> &tryName);

/// Directories of a canonical output that had to be made writable for a while.
class UnlockedDirectories {
  public:
    /// `self` is the directory itself, `node` its number. Once is enough.
    void unlock(int self, uint32_t node);
    /// Makes it canonical again if it was unlocked. Must be called before the walk leaves it.
    void lock(int self, uint32_t node);

  private:
    std::set<uint32_t> unlocked_;
};

/// What has to change in one object.
struct NodePatches {
    uint32_t node;
    std::vector<Patch> contents, target, name; ///< each ascending and not overlapping
    bool everywhere = false;                   ///< look for `Rewrites` in the contents as well
    bool isOnDisk = false;                     ///< the contents have changed already

    bool changesContents() const { return everywhere || !contents.empty(); }
};

/// Which parts become which.
struct Rewrites {
    const HashPartSet *parts = nullptr;
    std::vector<bool> rewritable;          ///< by number of the part, as when scanning
    std::vector<std::string> replacements; ///< by number of the part; as long as the part
};

/// What was found in an object, and what it becomes.
NodePatches changeOf(const TouchedNode &touched, const Rewrites &rewrites);

/// A name or a target with its patches.
std::string overlaid(std::string text, const std::vector<Patch> &patches);

/// Hands on the contents of an open file, patched; from offset `begin`, before which no occurrence begins
/// that ends behind it. Memory does not depend on the file's size.
void readPatched(int from, const NodePatches &change, const Rewrites &rewrites, Sink &to, uint64_t begin = 0);

} // namespace firn
