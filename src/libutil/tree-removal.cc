// Removing what a build left behind: everything in the tree may be hostile, somebody may still be changing
// it, and it may be deeper than a path or the descriptors allowed to a process. So: one open directory at a
// time with a bounded way back, every name looked up relative to it, nothing followed.

#include <algorithm>
#include <cerrno>
#include <exception>
#include <system_error>
#include <thread>

#include <fcntl.h>
#include <unistd.h>

#include "libutil/directory-stack.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/mount-id.hh"
#include "libutil/platform.hh"

namespace firn {

namespace {

/// Where all of a tree lies.
struct FileSystem {
    dev_t device = 0;
    std::optional<uint64_t> mount; ///< none: the device must do
};

struct RemovalOptions {
    bool counts = false; ///< how many bytes become free
    bool shares = true;  ///< the work with another thread, where it does not count
    /// Of the tree that this is a part of: nothing may be mounted on what is removed itself either.
    std::optional<FileSystem> inside{};
    size_t maxOpen = 48; ///< directories
};

class TreeRemover {
  public:
    TreeRemover(int dir, const RemovalOptions &options) : way_(dir, options.maxOpen), options_(options) {}

    uint64_t remove(const std::string &name);

  private:
    /// What is left to do in a directory on the way.
    struct Remainder {
        std::vector<DirectoryEntry> entries;
        unsigned listings = 1;
    };

    /// One step: the next entry of the innermost directory, or the directory itself when nothing is left.
    void removeNext() {
        std::vector<DirectoryEntry> &entries = remainders_.back().entries;
        if (entries.empty()) {
            leaveAndRemove();
            return;
        }
        DirectoryEntry entry = std::move(entries.back());
        entries.pop_back();
        bool known = entry.type != FileType::directory && entry.type != FileType::unknown;
        if (known && !options_.counts && unlinkUnseen(entry.name)) {
            return;
        }
        struct stat st;
        if (statAt(way_.current(), entry.name, st)) {
            removeEntry(entry.name, st);
        }
    }

    /// False where it has to be looked at: a directory may have taken its place.
    bool unlinkUnseen(const std::string &name) const {
        return unlinkat(way_.current(), name.c_str(), 0) == 0 || errno == ENOENT;
    }

    void removeEntry(const std::string &name, const struct stat &st) {
        if (S_ISDIR(st.st_mode)) {
            enter(name, st);
            return;
        }
        if (unlinkEntry(name, 0) && st.st_nlink == 1) {
            freed_ += static_cast<uint64_t>(st.st_blocks) * 512;
        }
    }

    void enter(const std::string &name, const struct stat &st) {
        if (!fileSystem_.mount) {
            checkSameDevice(name, st);
        }
        makeAccessible(name, st);
        way_.enter(name);
        checkSameMount();
        if ((way_.depth() > 1 || options_.inside) && isMountRoot(way_.current())) {
            throw Error(ErrorKind::refused, "{} is not removed: something is mounted there. Unmount it first",
                        way_.describe());
        }
        remainders_.push_back({listEntries(way_.current())});
    }

    /// A subvolume that the build made lies in the same mount; rmdir() removes it when it is empty, from
    /// Linux 4.18 on.
    void checkSameMount() const {
        if (!fileSystem_.mount) {
            checkSameDevice("", way_.currentStat());
        } else if (mountId(way_.current()) != fileSystem_.mount) {
            refuseOther("");
        }
    }

    void checkSameDevice(const std::string &name, const struct stat &st) const {
        if (st.st_dev != fileSystem_.device) {
            refuseOther(name);
        }
    }

    [[noreturn]] void refuseOther(const std::string &name) const {
        throw Error(
            ErrorKind::refused,
            "{} is not removed: it is on another file system than the tree it is in. Unmount it first",
            way_.describe(name));
    }

    /// Without following a symlink that took the directory's place. Fails for a directory of somebody else;
    /// then either it was accessible anyway (to root), or opening or emptying it fails and tells.
    void makeAccessible(const std::string &name, const struct stat &st) const {
        if ((st.st_mode & S_IRWXU) != S_IRWXU) {
            fchmodat(way_.current(), name.c_str(), (st.st_mode & 07777) | S_IRWXU, AT_SYMLINK_NOFOLLOW);
        }
    }

    void leaveAndRemove() {
        std::string name = way_.leave();
        if (unlinkat(way_.current(), name.c_str(), AT_REMOVEDIR) == 0 || errno == ENOENT) {
            remainders_.pop_back();
            return;
        }
        static constexpr unsigned patience = 16;
        if ((errno != ENOTEMPTY && errno != EEXIST) || remainders_.back().listings == patience) {
            failToRemove(name);
        }
        // Somebody put something in since it was listed.
        way_.enter(name);
        checkSameMount();
        remainders_.back().entries = listEntries(way_.current());
        remainders_.back().listings++;
    }

    /// False if it was gone already.
    bool unlinkEntry(const std::string &name, int flags) {
        if (unlinkat(way_.current(), name.c_str(), flags) == 0) {
            return true;
        }
        if (errno != ENOENT) {
            failToRemove(name);
        }
        return false;
    }

    [[noreturn]] void failToRemove(const std::string &name) const {
        int number = errno;
        std::string attempt = "removing " + way_.describe(name);
        if (number == EPERM) {
            attempt += " (it or its directory may be marked immutable, or belong to another user)";
        }
        throw SysError(number, attempt);
    }

    DirectoryStack way_;
    const RemovalOptions options_;
    std::vector<Remainder> remainders_; ///< one for each directory on the way
    FileSystem fileSystem_;             ///< the mount is that of the directory that the tree is in
    uint64_t freed_ = 0;
};

/// Half of the directories in a directory, removed by a thread of its own: the kernel takes its time for each
/// file, and most machines have a core to spare when nothing is left to do but to clean up.
class SharedRemoval {
  public:
    /// Takes its share out of `entries`, or nothing where there are few, or no thread is to be had.
    SharedRemoval(int directory, const FileSystem &fileSystem, std::vector<DirectoryEntry> &entries)
        : fileSystem_(fileSystem) {
        // Its own: the other is closed while its owner is far enough below.
        directory_.reset(fcntl(directory, F_DUPFD_CLOEXEC, 0));
        if (directory_) {
            share_ = takeHalf(entries);
        }
        if (share_.empty()) {
            return;
        }
        try {
            thread_ = std::thread([this] {
                try {
                    for (const std::string &name : share_) {
                        TreeRemover(directory_.get(), {.inside = fileSystem_, .maxOpen = 16}).remove(name);
                    }
                } catch (...) {
                    failure_ = std::current_exception();
                }
            });
        } catch (const std::system_error &) {
            for (std::string &name : share_) {
                entries.push_back({std::move(name), FileType::directory});
            }
        }
    }
    SharedRemoval(const SharedRemoval &) = delete;
    SharedRemoval &operator=(const SharedRemoval &) = delete;
    ~SharedRemoval() { join(); }

    void finish() {
        join();
        if (failure_) {
            std::rethrow_exception(failure_);
        }
    }

  private:
    static std::vector<std::string> takeHalf(std::vector<DirectoryEntry> &entries) {
        constexpr ptrdiff_t few = 16;
        auto isDirectory = [](const DirectoryEntry &entry) { return entry.type == FileType::directory; };
        std::vector<std::string> half;
        if (std::count_if(entries.begin(), entries.end(), isDirectory) < few) {
            return half;
        }
        bool take = false;
        std::erase_if(entries, [&](DirectoryEntry &entry) {
            take = isDirectory(entry) && !take;
            if (take) {
                half.push_back(std::move(entry.name));
            }
            return take;
        });
        return half;
    }

    void join() {
        if (thread_.joinable()) {
            thread_.join();
        }
    }

    UniqueFd directory_;
    FileSystem fileSystem_;
    std::vector<std::string> share_;
    std::exception_ptr failure_;
    std::thread thread_;
};

uint64_t TreeRemover::remove(const std::string &name) {
    struct stat st;
    if (!statAt(way_.current(), name, st)) {
        return 0;
    }
    fileSystem_ = options_.inside ? *options_.inside : FileSystem{st.st_dev, mountId(way_.current())};
    removeEntry(name, st);
    if (way_.depth() > 0 && options_.shares && !options_.counts && !options_.inside) {
        SharedRemoval share(way_.current(), fileSystem_, remainders_.back().entries);
        while (way_.depth() > 1 || !remainders_.back().entries.empty()) {
            removeNext();
        }
        share.finish();
    }
    while (way_.depth() > 0) {
        removeNext();
    }
    return freed_;
}

} // namespace

void removeTree(int dir, const std::string &name, Awaited awaited) {
    RemovalOptions options;
    if (awaited == Awaited::no) {
        options.shares = false;
        options.maxOpen = 16;
    }
    TreeRemover(dir, options).remove(name);
}

uint64_t removeTreeCounting(int dir, const std::string &name) {
    return TreeRemover(dir, {.counts = true}).remove(name);
}

} // namespace firn
