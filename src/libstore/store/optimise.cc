#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libstore/store/impl.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/interrupt.hh"
#include "libutil/nar.hh"

// Files with equal contents and executable bit, and symlinks with equal targets, become hard links to one
// inode: each has a name in .links, the SHA-256 of its NAR in base-32. An entry of .links with one link left
// is garbage.

namespace firn {

namespace {

struct OptimiseStats {
    uint64_t filesLinked = 0, bytesFreed = 0;
};

class Optimiser {
  public:
    explicit Optimiser(LocalStore::Impl &store)
        : store_(store), links_(openDirectoryAt(store.storeFd.get(), ".links")) {}

    /// Remembers what is linked already, so that it need not be hashed: for many paths.
    void readLinks() {
        for (auto &name : listDirectory(links_.get())) {
            struct stat st;
            if (statAt(links_.get(), name, st)) {
                known_.insert(st.st_ino);
            }
        }
    }

    void run(const std::string &name) {
        visit(store_.storeFd.get(), name, false);
        while (!stack_.empty()) {
            auto &top = stack_.back();
            if (top.next == top.names.size()) {
                stack_.pop_back();
                continue;
            }
            auto entry = top.names[top.next++];
            visit(top.fd.get(), entry, true);
        }
    }

    OptimiseStats stats;

  private:
    struct Directory {
        UniqueFd fd;
        std::vector<std::string> names;
        size_t next = 0;
    };

    void visit(int dir, const std::string &name, bool protectedDir) {
        throwIfInterrupted();
        struct stat st;
        if (!statAt(dir, name, st)) {
            return; // collected meanwhile
        }
        if (S_ISDIR(st.st_mode)) {
            auto fd = openDirectoryAt(dir, name);
            auto names = listDirectory(fd.get());
            stack_.push_back({std::move(fd), std::move(names), 0});
        } else if (S_ISREG(st.st_mode) || S_ISLNK(st.st_mode)) {
            visitFile(dir, name, st, protectedDir);
        }
    }

    void visitFile(int dir, const std::string &name, const struct stat &st, bool protectedDir) {
        if (S_ISREG(st.st_mode) && (st.st_mode & (S_IWUSR | S_IWGRP | S_IWOTH))) {
            // No finished store path has such files; linking would spread whatever may still happen to it.
            store_.logger.warn(fmt::format("skipping suspicious writable file '{}'", escapeForDisplay(name)));
            return;
        }
        if (st.st_nlink > 1 && known_.contains(st.st_ino)) {
            return;
        }
        auto link = hashNar(dir, name).hash.digits(Encoding::nix32);
        if (!offer(dir, name, link, st)) {
            replace(dir, name, link, st, protectedDir);
        }
    }

    /// Makes this file the one in .links, unless there is one already.
    bool offer(int dir, const std::string &name, const std::string &link, const struct stat &st) {
        struct stat existing;
        if (statAt(links_.get(), link, existing) && existing.st_size != st.st_size) {
            store_.logger.warn(fmt::format("removing corrupted link '{}'", link));
            unlinkat(links_.get(), link.c_str(), 0);
        }
        if (linkat(dir, name.c_str(), links_.get(), link.c_str(), 0) == 0) {
            known_.insert(st.st_ino);
            return true;
        }
        if (errno == EEXIST) {
            return false;
        }
        if (errno == ENOSPC || errno == EMLINK || errno == EPERM || errno == ENOTSUP) {
            // A full directory index (ext4), too many links, a file system without links (of symlinks): the
            // file stays as it is.
            store_.log(Verbosity::info,
                       fmt::format("cannot link '{}' in .links: {}", link, std::strerror(errno)));
            return true;
        }
        throwErrno("creating the link '.links/{}'", link);
    }

    void replace(int dir, const std::string &name, const std::string &link, const struct stat &st,
                 bool protectedDir) {
        struct stat shared;
        if (!statAt(links_.get(), link, shared) || shared.st_ino == st.st_ino) {
            return;
        }
        auto temporary = fmt::format(".tmp-link-{}-{}", getpid(), store_.stagedCount++);
        int storeFd = store_.storeFd.get();
        if (linkat(links_.get(), link.c_str(), storeFd, temporary.c_str(), 0) != 0) {
            if (errno == EMLINK || errno == ENOENT) {
                return;
            }
            throwErrno("linking '.links/{}'", link);
        }
        ScopeExit cleanUp([&] { unlinkat(storeFd, temporary.c_str(), 0); });
        if (moveOver(temporary, dir, name, protectedDir)) {
            cleanUp.cancel();
            stats.filesLinked++;
            stats.bytesFreed += static_cast<uint64_t>(st.st_size);
        }
    }

    /// Directories of the store are read-only and have a fixed time; an ordinary user must lift the former.
    bool moveOver(const std::string &temporary, int dir, const std::string &name, bool protectedDir) {
        if (protectedDir && fchmod(dir, 0755) != 0) {
            throwErrno("making the directory of '{}' writable", escapeForDisplay(name));
        }
        int status = renameat(store_.storeFd.get(), temporary.c_str(), dir, name.c_str());
        int number = errno;
        struct timespec times[2] = {{0, UTIME_OMIT}, {1, 0}};
        if (protectedDir && (fchmod(dir, 0555) != 0 || futimens(dir, times) != 0)) {
            throwErrno("making the directory of '{}' read-only again", escapeForDisplay(name));
        }
        if (status != 0 && number != EMLINK && number != ENOENT) {
            throw SysError(number, fmt::format("replacing '{}' by a link", escapeForDisplay(name)));
        }
        return status == 0;
    }

    LocalStore::Impl &store_;
    UniqueFd links_;
    std::set<ino_t> known_;
    std::vector<Directory> stack_;
};

} // namespace

void LocalStore::optimisePath(const StorePath &path) {
    Optimiser(*impl_).run(path.baseName());
}

void LocalStore::optimiseAll() {
    Activity activity(logger(), Verbosity::info, ActivityType::optimiseStore, "");
    Optimiser optimiser(*impl_);
    optimiser.readLinks();
    auto paths = queryAllValidPaths();
    uint64_t done = 0;
    for (auto &path : paths) {
        addTempRoot(path);
        if (isValidPath(path)) {
            optimiser.run(path.baseName());
        }
        activity.progress(++done, paths.size());
    }
    impl_->log(Verbosity::info, fmt::format("{:.2f} MiB freed by hard-linking {} files",
                                            static_cast<double>(optimiser.stats.bytesFreed) / (1024 * 1024),
                                            optimiser.stats.filesLinked));
}

} // namespace firn
