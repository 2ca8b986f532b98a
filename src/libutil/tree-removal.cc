// Removing what a build left behind: everything in the tree may be hostile, somebody may still be changing
// it, and it may be deeper than a path or the descriptors allowed to a process. So: one open directory at a
// time with a bounded way back, every name looked up relative to it, nothing followed.

#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <unistd.h>

#include "libutil/directory-stack.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/mount-id.hh"
#include "libutil/platform.hh"

namespace firn {

namespace {

class TreeRemover {
  public:
    explicit TreeRemover(int dir) : way_(dir) {}

    uint64_t remove(const std::string &name) {
        struct stat st;
        if (!statAt(way_.current(), name, st)) {
            return 0;
        }
        device_ = st.st_dev;
        mount_ = mountId(way_.current());
        removeEntry(name, st);
        while (way_.depth() > 0) {
            removeNext();
        }
        return freed_;
    }

  private:
    /// What is left to do in a directory on the way.
    struct Remainder {
        std::vector<std::string> names;
        unsigned listings = 1;
    };

    /// One step: the next entry of the innermost directory, or the directory itself when nothing is left.
    void removeNext() {
        std::vector<std::string> &names = remainders_.back().names;
        if (names.empty()) {
            leaveAndRemove();
            return;
        }
        std::string name = std::move(names.back());
        names.pop_back();
        struct stat st;
        if (statAt(way_.current(), name, st)) {
            removeEntry(name, st);
        }
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
        if (!mount_) {
            checkSameDevice(name, st);
        }
        makeAccessible(name, st);
        way_.enter(name);
        checkSameMount();
        if (way_.depth() > 1 && isMountRoot(way_.current())) {
            throw Error(ErrorKind::refused, "{} is not removed: something is mounted there. Unmount it first",
                        way_.describe());
        }
        remainders_.push_back({listDirectory(way_.current())});
    }

    /// A subvolume that the build made lies in the same mount; rmdir() removes it when it is empty, from
    /// Linux 4.18 on.
    void checkSameMount() const {
        if (!mount_) {
            checkSameDevice("", way_.currentStat());
        } else if (mountId(way_.current()) != mount_) {
            refuseOther("");
        }
    }

    void checkSameDevice(const std::string &name, const struct stat &st) const {
        if (st.st_dev != device_) {
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
        remainders_.back().names = listDirectory(way_.current());
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
    std::vector<Remainder> remainders_; ///< one for each directory on the way
    dev_t device_ = 0;
    std::optional<uint64_t> mount_; ///< of the directory that the tree is in; none: st_dev must do
    uint64_t freed_ = 0;
};

} // namespace

uint64_t removeTree(int dir, const std::string &name) {
    return TreeRemover(dir).remove(name);
}

} // namespace firn
