#include "libstore/build/output-copy.hh"

#include <algorithm>
#include <cstring>
#include <memory>
#include <system_error>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libstore/build/clone-file.hh"
#include "libutil/background-close.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/interrupt.hh"
#include "libutil/positioned-io.hh"

namespace firn {

namespace {

constexpr struct timespec canonicalTimes[2] = {{1, 0}, {1, 0}};
constexpr size_t blockSize = 256 * 1024;
constexpr uint64_t slowToCopy = 1024 * 1024; ///< bytes; takes longer than starting a thread

size_t readSome(int fd, uint64_t offset, char *buffer, size_t size) {
    for (;;) {
        ssize_t count = pread(fd, buffer, size, static_cast<off_t>(offset));
        if (count >= 0) {
            return static_cast<size_t>(count);
        }
        if (errno != EINTR) {
            throwErrno("reading a file that is to be rewritten");
        }
    }
}

} // namespace

std::string makeTemporary(const std::string &what, const std::function<bool(const std::string &)> &tryName) {
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

namespace {

std::vector<Patch> patchesFor(const std::vector<PartHit> &hits, Patch::Place place,
                              const Rewrites &rewrites) {
    std::vector<Patch> patches;
    patches.reserve(hits.size());
    for (const PartHit &hit : hits) {
        patches.push_back({place, hit.offset, rewrites.replacements[hit.part]});
    }
    return patches;
}

} // namespace

NodePatches changeOf(const TouchedNode &touched, const Rewrites &rewrites) {
    return {touched.node,
            patchesFor(touched.contents, Patch::Place::contents, rewrites),
            patchesFor(touched.target, Patch::Place::linkTarget, rewrites),
            patchesFor(touched.name, Patch::Place::entryName, rewrites),
            touched.everywhere,
            touched.isRewritten};
}

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
    abandoned_ = true;
    if (copier_.joinable()) {
        copier_.join();
    }
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

void ReplacementFile::readOld(int fd, uint64_t offset, char *buffer, size_t size) const {
    try {
        readFullAt(fd, offset, buffer, size);
    } catch (Error &error) {
        error.addContext(fmt::format("copying '{}'", escapeForDisplay(name_)));
        throw;
    }
}

void ReplacementFile::copyRange(int fd, uint64_t size) {
    auto buffer = std::make_unique_for_overwrite<char[]>(blockSize);
    for (uint64_t at = 0; at < size && !abandoned_;) {
        throwIfInterrupted();
        auto count = static_cast<size_t>(std::min<uint64_t>(blockSize, size - at));
        readOld(fd, at, buffer.get(), count);
        writeAt({buffer.get(), count}, at);
        at += count;
    }
}

void ReplacementFile::copyFrom(int fd, uint64_t size) {
    UniqueFd own = size < slowToCopy ? UniqueFd() : UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (own) {
        try {
            copier_ = std::thread([this, size, from = std::move(own)] {
                try {
                    copyRange(from.get(), size);
                } catch (...) {
                    copyFailure_ = std::current_exception();
                }
            });
            return;
        } catch (const std::system_error &) {
            // No thread to be had.
        }
    }
    copyRange(fd, size);
}

UniqueFd ReplacementFile::reopen() const {
    return openFileAt(dir_, temporary_);
}

void ReplacementFile::commit(UniqueFd old) {
    if (copier_.joinable()) {
        copier_.join();
    }
    if (copyFailure_) {
        std::rethrow_exception(copyFailure_);
    }
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
    struct stat st;
    if (old && fstat(old.get(), &st) == 0 && static_cast<uint64_t>(st.st_size) >= slowToFree) {
        std::vector<UniqueFd> files;
        files.push_back(std::move(old));
        closeInBackground(std::move(files));
    }
}

// ---- replaceSymlink

namespace {

std::string makeSymlink(int dir, const OutputTree &tree, uint32_t node, const std::string &target) {
    const std::string &name = tree.nodes[node].name;
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

} // namespace

void replaceSymlink(int dir, OutputTree &tree, uint32_t node, const std::string &target) {
    OutputNode &link = tree.nodes[node];
    std::string temporary = makeSymlink(dir, tree, node, target);
    if (utimensat(dir, temporary.c_str(), canonicalTimes, AT_SYMLINK_NOFOLLOW) != 0 ||
        renameat(dir, temporary.c_str(), dir, link.name.c_str()) != 0) {
        throwErrno("putting the new symlink '{}' in place", escapeForDisplay(link.name));
    }
    link.target = target;
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

// ---- readPatched

namespace {

/// Rewrites a file whose occurrences are too many to be kept: finds them again, window by window.
class WindowRewriter {
  public:
    WindowRewriter(const NodePatches &change, const Rewrites &rewrites, uint64_t begin)
        : patches_(change.contents),
          rewrites_(rewrites),
          offset_(begin),
          buffer_(std::make_unique_for_overwrite<char[]>(blockSize + maxHeld)) {}

    void rewrite(int from, Sink &to) {
        for (bool ended = false; !ended;) {
            throwIfInterrupted();
            size_t count = readSome(from, offset_ + held_, buffer_.get() + held_, blockSize);
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
    uint64_t offset_; ///< of the buffer in the file
    std::unique_ptr<char[]> buffer_;
    size_t held_ = 0;         ///< bytes in the buffer that were not written out yet
    uint64_t takenUntil_ = 0; ///< end of the last occurrence
    size_t firstPatch_ = 0;
};

void copyPatched(int from, const std::vector<Patch> &patches, uint64_t offset, Sink &to) {
    auto buffer = std::make_unique_for_overwrite<char[]>(blockSize);
    size_t first = 0;
    while (size_t count = readSome(from, offset, buffer.get(), blockSize)) {
        throwIfInterrupted();
        first = overlayPatches(patches, first, buffer.get(), count, offset);
        to.write({buffer.get(), count});
        offset += count;
    }
}

} // namespace

void readPatched(int from, const NodePatches &change, const Rewrites &rewrites, Sink &to, uint64_t begin) {
    if (change.everywhere) {
        WindowRewriter(change, rewrites, begin).rewrite(from, to);
    } else {
        copyPatched(from, change.contents, begin, to);
    }
}

} // namespace firn
