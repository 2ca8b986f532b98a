#include "libstore/build/output-copy.hh"

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libstore/build/clone-file.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/interrupt.hh"
#include "libutil/positioned-io.hh"

namespace firn {

namespace {

constexpr struct timespec canonicalTimes[2] = {{1, 0}, {1, 0}};
constexpr size_t blockSize = 256 * 1024;

/// Names that nothing in a directory has: `tryName` returns false with EEXIST where one is taken.
template<typename Try>
std::string makeTemporary(const std::string &what, Try tryName) {
    for (unsigned number = 0;; ++number) {
        std::string name = fmt::format(".firn-{}", number);
        if (tryName(name)) {
            return name;
        }
        if (errno != EEXIST) {
            throwErrno("making a new file for '{}'", what);
        }
    }
}

size_t readSome(int fd, char *buffer, size_t size) {
    for (;;) {
        ssize_t count = read(fd, buffer, size);
        if (count >= 0) {
            return static_cast<size_t>(count);
        }
        if (errno != EINTR) {
            throwErrno("reading a file that is to be rewritten");
        }
    }
}

} // namespace

std::string overlaid(std::string text, const std::vector<Patch> &patches) {
    overlayPatches(patches, 0, text.data(), text.size(), 0);
    return text;
}

// ---- ReplacementFile

std::string ReplacementFile::rootTemporary(const std::string &rootName) {
    return rootName.substr(0, HashPartSet::length) + "-firn-new";
}

ReplacementFile::ReplacementFile(int dir, const OutputTree &tree, uint32_t node)
    : dir_(dir), name_(tree.nodes[node].name), executable_(tree.nodes[node].executable) {
    auto create = [this](const std::string &name) {
        fd_.reset(openat(dir_, name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
        return bool(fd_);
    };
    if (node != 0) {
        temporary_ = makeTemporary(escapeForDisplay(name_), create);
        return;
    }
    std::string name = rootTemporary(name_);
    removeTree(dir_, name); // left by a process that was killed
    if (!create(name)) {
        throwErrno("making a new file for '{}'", name_);
    }
    temporary_ = name;
}

ReplacementFile::~ReplacementFile() {
    if (!temporary_.empty()) {
        unlinkat(dir_, temporary_.c_str(), 0);
    }
}

bool ReplacementFile::cloneFrom(int fd) {
    return cloneFile(fd, fd_.get());
}

void ReplacementFile::write(std::string_view bytes) {
    writeFull(fd_.get(), bytes);
}

void ReplacementFile::writeAt(std::string_view bytes, uint64_t offset) {
    try {
        writeFullAt(fd_.get(), offset, bytes);
    } catch (Error &error) {
        error.addContext(fmt::format("patching '{}'", escapeForDisplay(name_)));
        throw;
    }
}

UniqueFd ReplacementFile::reopen() const {
    return openFileAt(dir_, temporary_);
}

void ReplacementFile::commit() {
    // The owner too: a file system may give a new file its directory's group.
    if (fchown(fd_.get(), geteuid(), getegid()) != 0 || fchmod(fd_.get(), executable_ ? 0555 : 0444) != 0 ||
        futimens(fd_.get(), canonicalTimes) != 0) {
        throwErrno("making the new '{}' canonical", escapeForDisplay(name_));
    }
    fd_.close();
    if (renameat(dir_, temporary_.c_str(), dir_, name_.c_str()) != 0) {
        throwErrno("putting the new '{}' in place", escapeForDisplay(name_));
    }
    temporary_.clear();
}

// ---- UnlockedDirectories

void UnlockedDirectories::unlock(int self, uint32_t node) {
    if (unlocked_.insert(node).second && fchmod(self, 0755) != 0) {
        throwErrno("making a directory writable");
    }
}

void UnlockedDirectories::lock(int self, uint32_t node) {
    if (unlocked_.erase(node) != 0 && (fchmod(self, 0555) != 0 || futimens(self, canonicalTimes) != 0)) {
        throwErrno("making a directory canonical again");
    }
}

// ---- applyPatches

namespace {

/// Rewrites a file whose occurrences are too many to be kept: finds them again, window by window.
class WindowRewriter {
  public:
    WindowRewriter(const NodePatches &change, const Rewrites &rewrites)
        : patches_(change.contents),
          rewrites_(rewrites),
          buffer_(std::make_unique_for_overwrite<char[]>(blockSize + maxHeld)) {}

    void rewrite(int from, Sink &to) {
        for (bool ended = false; !ended;) {
            throwIfInterrupted();
            size_t count = readSome(from, buffer_.get() + held_, blockSize);
            ended = count == 0;
            size_t size = held_ + count;
            replaceIn(size);
            // An occurrence may begin in the last bytes and go on in the next window.
            held_ = ended ? 0 : std::min(size, maxHeld);
            writeOut(size - held_, to);
        }
    }

  private:
    static constexpr size_t maxHeld = HashPartSet::length - 1;

    /// What was replaced stays replaced: a hit is taken only behind the last one.
    void replaceIn(size_t size) {
        rewrites_.parts->scan({buffer_.get(), size}, offset_, [this](const PartHit &hit) {
            if (takeHit(hit, rewrites_.rewritable, takenUntil_)) {
                const std::string &replacement = rewrites_.replacements[hit.part];
                std::memcpy(buffer_.get() + (hit.offset - offset_), replacement.data(), replacement.size());
            }
        });
    }

    void writeOut(size_t size, Sink &to) {
        firstPatch_ = overlayPatches(patches_, firstPatch_, buffer_.get(), size, offset_);
        to.write({buffer_.get(), size});
        std::memmove(buffer_.get(), buffer_.get() + size, held_);
        offset_ += size;
    }

    const std::vector<Patch> &patches_;
    const Rewrites &rewrites_;
    std::unique_ptr<char[]> buffer_;
    size_t held_ = 0;         ///< bytes in the buffer that were not written out yet
    uint64_t offset_ = 0;     ///< of the buffer in the file
    uint64_t takenUntil_ = 0; ///< end of the last occurrence
    size_t firstPatch_ = 0;
};

void copyPatched(int from, const std::vector<Patch> &patches, Sink &to) {
    auto buffer = std::make_unique_for_overwrite<char[]>(blockSize);
    uint64_t offset = 0;
    size_t first = 0;
    while (size_t count = readSome(from, buffer.get(), blockSize)) {
        throwIfInterrupted();
        first = overlayPatches(patches, first, buffer.get(), count, offset);
        to.write({buffer.get(), count});
        offset += count;
    }
}

void writeContents(int from, const NodePatches &change, const Rewrites &rewrites, ReplacementFile &to) {
    if (change.everywhere || !to.cloneFrom(from)) {
        readPatched(from, change, rewrites, to);
        return;
    }
    for (const Patch &patch : change.contents) {
        to.writeAt(patch.bytes, patch.offset);
    }
}

class Applier : public OutputVisitor {
  public:
    Applier(OutputTree &tree, const std::vector<NodePatches> &changes, const Rewrites &rewrites)
        : tree_(tree), rewrites_(rewrites) {
        for (const NodePatches &change : changes) {
            changes_.emplace(change.node, &change);
        }
    }

    void enterDirectory(int, uint32_t) override {}
    void leaveDirectory(int self, uint32_t node) override;
    void file(int dir, uint32_t node) override;
    void symlink(int dir, uint32_t node) override;

  private:
    /// Old and new names of a directory's members that get another.
    using Renames = std::map<uint32_t, std::string>;

    const NodePatches *changeOf(uint32_t node) const {
        auto found = changes_.find(node);
        return found == changes_.end() ? nullptr : found->second;
    }
    void unlockParent(int dir, uint32_t node) {
        if (node != 0) {
            unlocked_.unlock(dir, tree_.nodes[node].parent);
        }
    }
    std::string makeSymlink(int dir, uint32_t node, const std::string &target) const;
    Renames renamesIn(uint32_t directory) const;
    void checkCollisions(uint32_t directory, const Renames &renames) const;
    void rename(int self, const Renames &renames);

    OutputTree &tree_;
    const Rewrites &rewrites_;
    std::map<uint32_t, const NodePatches *> changes_;
    UnlockedDirectories unlocked_;
};

void Applier::file(int dir, uint32_t node) {
    const NodePatches *change = changeOf(node);
    if (change == nullptr || (change->contents.empty() && !change->everywhere)) {
        return;
    }
    unlockParent(dir, node);
    UniqueFd from = openFileAt(dir, tree_.nodes[node].name);
    ReplacementFile to(dir, tree_, node);
    writeContents(from.get(), *change, rewrites_, to);
    to.commit();
}

void Applier::symlink(int dir, uint32_t node) {
    const NodePatches *change = changeOf(node);
    if (change == nullptr || change->target.empty()) {
        return;
    }
    unlockParent(dir, node);
    OutputNode &link = tree_.nodes[node];
    std::string target = overlaid(link.target, change->target);
    std::string temporary = makeSymlink(dir, node, target);
    if (utimensat(dir, temporary.c_str(), canonicalTimes, AT_SYMLINK_NOFOLLOW) != 0 ||
        renameat(dir, temporary.c_str(), dir, link.name.c_str()) != 0) {
        throwErrno("putting the new symlink '{}' in place", escapeForDisplay(link.name));
    }
    link.target = target;
}

std::string Applier::makeSymlink(int dir, uint32_t node, const std::string &target) const {
    const std::string &name = tree_.nodes[node].name;
    auto create = [&](const std::string &temporary) {
        return symlinkat(target.c_str(), dir, temporary.c_str()) == 0;
    };
    if (node != 0) {
        return makeTemporary(escapeForDisplay(name), create);
    }
    std::string temporary = ReplacementFile::rootTemporary(name);
    removeTree(dir, temporary); // left by a process that was killed
    if (!create(temporary)) {
        throwErrno("making a new symlink for '{}'", name);
    }
    return temporary;
}

void Applier::leaveDirectory(int self, uint32_t node) {
    if (Renames renames = renamesIn(node); !renames.empty()) {
        checkCollisions(node, renames);
        unlocked_.unlock(self, node);
        rename(self, renames);
        tree_.sortChildren(node);
    }
    unlocked_.lock(self, node);
}

Applier::Renames Applier::renamesIn(uint32_t directory) const {
    Renames renames;
    for (uint32_t child : tree_.nodes[directory].children) {
        const NodePatches *change = changeOf(child);
        if (change != nullptr && !change->name.empty()) {
            renames.emplace(child, overlaid(tree_.nodes[child].name, change->name));
        }
    }
    return renames;
}

void Applier::checkCollisions(uint32_t directory, const Renames &renames) const {
    std::set<std::string> names;
    for (uint32_t child : tree_.nodes[directory].children) {
        auto found = renames.find(child);
        const std::string &name = found == renames.end() ? tree_.nodes[child].name : found->second;
        if (!names.insert(name).second) {
            throw Error(ErrorKind::refused,
                        "after rewriting store paths, two entries of '{}' are called '{}'",
                        escapeForDisplay(tree_.pathOf(directory)), escapeForDisplay(name));
        }
    }
}

/// By way of names that nothing has, since one's new name may be another's old one.
void Applier::rename(int self, const Renames &renames) {
    auto move = [&](const std::string &from, const std::string &to) {
        if (renameat(self, from.c_str(), self, to.c_str()) != 0) {
            throwErrno("renaming '{}' to '{}'", escapeForDisplay(from), escapeForDisplay(to));
        }
    };
    std::map<uint32_t, std::string> temporaries;
    for (const auto &[node, name] : renames) {
        std::string temporary = makeTemporary(escapeForDisplay(name), [&](const std::string &candidate) {
            errno = EEXIST;
            return !existsAt(self, candidate);
        });
        move(tree_.nodes[node].name, temporary);
        temporaries.emplace(node, temporary);
    }
    for (const auto &[node, name] : renames) {
        move(temporaries.at(node), name);
        tree_.nodes[node].name = name;
    }
}

} // namespace

void readPatched(int from, const NodePatches &change, const Rewrites &rewrites, Sink &to) {
    if (change.everywhere) {
        WindowRewriter(change, rewrites).rewrite(from, to);
    } else {
        copyPatched(from, change.contents, to);
    }
}

void applyPatches(int dir, OutputTree &tree, const std::vector<NodePatches> &changes,
                  const Rewrites &rewrites) {
    if (!changes.empty()) {
        Applier applier(tree, changes, rewrites);
        walkOutput(dir, tree, applier);
    }
}

} // namespace firn
