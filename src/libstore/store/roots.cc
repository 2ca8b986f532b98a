#include "libstore/store/roots.hh"

#include <cerrno>
#include <climits>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libstore/store/runtime-roots.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/hash.hh"

// Roots: symlinks into the store anywhere below gcroots/ and profiles/, regular files there that are called
// like a store path, links in gcroots/auto to such symlinks elsewhere (indirect roots; they go stale by
// deleting the symlink), and what running processes use.

namespace firn {

namespace {

namespace fs = std::filesystem;

/// Links that users make can point anywhere, in circles too: a root is at most two links long.
class RootFinder {
  public:
    RootFinder(LocalStore::Impl &store, bool removeStale)
        : store_(store),
          storePrefix_(store.locations.storeDir.str() + "/"),
          autoDir_(store.locations.stateDir / "gcroots" / "auto"),
          removeStale_(removeStale) {}

    void scan(const fs::path &start) {
        std::vector<fs::path> pending{start};
        while (!pending.empty()) {
            auto path = std::move(pending.back());
            pending.pop_back();
            try {
                visit(path, pending);
            } catch (const SysError &error) {
                // Users name these paths: whatever is wrong with one of them must not keep all others from a
                // collection.
                bool ours = path.string().starts_with(store_.locations.stateDir.string() + "/") &&
                            !path.string().starts_with(autoDir_.string() + "/");
                if (ours && error.number() != EACCES && error.number() != ENOENT &&
                    error.number() != ENOTDIR && error.number() != ELOOP && error.number() != ENAMETOOLONG) {
                    throw;
                }
                store_.log(Verbosity::info, fmt::format("cannot read potential root '{}'", path.string()));
            }
        }
    }

    void found(const std::string &where, const std::string &target) {
        std::optional<StorePath> path;
        try {
            path = store_.locations.storeDir.parsePrefix(target).first;
        } catch (const Error &) {
            // Something else in the store directory; nothing that a link could keep.
        }
        if (path && store_.database.isValid(*path)) {
            roots[*path].insert(where);
        } else {
            store_.log(Verbosity::info, fmt::format("skipping invalid root from '{}' to '{}'",
                                                    escapeForDisplay(where), escapeForDisplay(target)));
        }
    }

    Roots roots;

  private:
    bool inStore(const std::string &target) const { return target.starts_with(storePrefix_); }

    void visit(const fs::path &path, std::vector<fs::path> &pending) {
        struct stat st;
        if (!statAt(AT_FDCWD, path.string(), st)) {
            return;
        }
        if (S_ISDIR(st.st_mode)) {
            auto dir = openDirectoryAt(AT_FDCWD, path.string());
            for (auto &name : listDirectory(dir.get())) {
                pending.push_back(path / name);
            }
        } else if (S_ISLNK(st.st_mode)) {
            visitLink(path);
        } else if (S_ISREG(st.st_mode)) {
            auto named = store_.locations.storeDir.tryParse(storePrefix_ + path.filename().string());
            if (named && store_.database.isValid(*named)) {
                roots[*named].insert(path.string());
            }
        }
    }

    void visitLink(const fs::path &path) {
        auto target = readLinkAt(AT_FDCWD, path.string());
        if (inStore(target)) {
            found(path.string(), target);
            return;
        }
        auto absolute = (path.parent_path() / target).lexically_normal();
        struct stat st;
        if (!statAt(AT_FDCWD, absolute.string(), st)) {
            removeStaleLink(path, absolute);
        } else if (S_ISLNK(st.st_mode)) {
            auto second = readLinkAt(AT_FDCWD, absolute.string());
            if (inStore(second)) {
                found(absolute.string(), second);
            }
        }
    }

    void removeStaleLink(const fs::path &path, const fs::path &target) {
        if (!removeStale_ || path.parent_path() != autoDir_) {
            return;
        }
        store_.log(Verbosity::info, fmt::format("removing stale link from '{}' to '{}'", path.string(),
                                                escapeForDisplay(target.string())));
        if (unlink(path.c_str()) != 0 && errno != ENOENT) {
            throwErrno("removing stale link '{}'", path.string());
        }
    }

    LocalStore::Impl &store_;
    std::string storePrefix_;
    fs::path autoDir_;
    bool removeStale_;
};

std::string censored(bool censor, const std::string &where) {
    return censor ? "{censored}" : where;
}

} // namespace

Roots findLastingRoots(LocalStore::Impl &store, bool censor, bool removeStale) {
    RootFinder finder(store, removeStale);
    finder.scan(store.locations.stateDir / "gcroots");
    finder.scan(store.locations.stateDir / "profiles");
    for (auto &[target, places] : findRuntimeRoots(store.locations.storeDir.str())) {
        std::optional<StorePath> path;
        try {
            path = store.locations.storeDir.parsePrefix(target).first;
        } catch (const Error &) {
            continue; // an environment holds all kinds of text
        }
        if (!store.database.isValid(*path)) {
            continue;
        }
        for (auto &place : places) {
            finder.roots[*path].insert(censored(censor, place));
        }
    }
    return std::move(finder.roots);
}

std::map<std::string, StorePathSet> LocalStore::findRoots(bool censor) {
    std::map<std::string, StorePathSet> byPlace;
    for (auto &[path, places] : findLastingRoots(*impl_, censor, false)) {
        for (auto &place : places) {
            byPlace[place].insert(path);
        }
    }
    readTempRoots(locations().stateDir, false, [&](const std::string &pid, const std::string &text) {
        if (auto path = dir().tryParse(text)) {
            byPlace[censored(censor, "{temp:" + pid + "}")].insert(*path);
        }
    });
    return byPlace;
}

namespace {

/// A symlink that replaces an older one at once.
void makeLink(const fs::path &link, const std::string &target) {
    makeDirectories(link.parent_path());
    auto temporary = link;
    temporary += fmt::format(".tmp-{}", getpid());
    unlink(temporary.c_str());
    if (symlink(target.c_str(), temporary.c_str()) != 0) {
        throwErrno("creating symlink '{}'", temporary.string());
    }
    if (rename(temporary.c_str(), link.c_str()) != 0) {
        int number = errno;
        unlink(temporary.c_str());
        throw SysError(number, fmt::format("renaming '{}' to '{}'", temporary.string(), link.string()));
    }
}

} // namespace

namespace {

/// A path that no system call takes could never be looked at again.
void checkPathLength(const std::string &path) {
    size_t longest = 0;
    for (const fs::path &component : fs::path(path)) {
        longest = std::max(longest, component.native().size());
    }
    if (path.size() >= PATH_MAX || longest > NAME_MAX || path.find('\0') != path.npos) {
        throw Error(ErrorKind::badInput, "the indirect root '{}' is no path that a file can have",
                    escapeForDisplay(path, 300));
    }
}

} // namespace

void LocalStore::addIndirectRoot(const std::string &link) {
    if (link.empty() || link.front() != '/') {
        throw Error(ErrorKind::badInput, "the indirect root '{}' is not an absolute path",
                    escapeForDisplay(link));
    }
    checkPathLength(link);
    auto name = hashString(HashAlgorithm::sha1, link).digits(Encoding::nix32);
    makeLink(locations().stateDir / "gcroots" / "auto" / name, link);
    impl_->madeLastingRoot = true;
}

void LocalStore::addPermanentRoot(const StorePath &path, const std::string &link) {
    struct stat st;
    bool exists = statAt(AT_FDCWD, link, st);
    bool ours = exists && S_ISLNK(st.st_mode) && readLinkAt(AT_FDCWD, link).starts_with(dir().str() + "/");
    if (exists && !ours) {
        throw Error(ErrorKind::refused, "cannot create symlink '{}'; already exists", escapeForDisplay(link));
    }
    if (link.empty() || link.front() != '/' || link.starts_with(dir().str() + "/")) {
        throw Error(
            ErrorKind::badInput,
            "creating a garbage collector root '{}' in the Nix store or by a relative path is forbidden",
            escapeForDisplay(link));
    }
    // A link must never point to what a collection is about to delete.
    addTempRoot(path);
    makeLink(link, dir().print(path));
    addIndirectRoot(link);
}

} // namespace firn
