#include <cerrno>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libstore/store/gc-server.hh"
#include "libstore/store/roots.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/interrupt.hh"

// Garbage collection. With gc.lock held exclusively nobody can write a temporary root unnoticed: they
// announce them at our socket instead (gc-server.hh). Roots and their closures are determined once; then the
// store directory is gone through, and an entry is deleted, after everything that refers to it, unless one of
// them is alive. What is asked of each group right before it goes is only whether it has become a temporary
// root meanwhile.

namespace firn {

namespace {

struct LimitReached {};

class Collector {
  public:
    Collector(LocalStore::Impl &store, const GcOptions &options);
    GcResults run();

  private:
    using Action = GcOptions::Action;

    void readRoots();
    void markClosure(const StorePath &root);
    std::vector<StorePath> dependencies(const StorePath &path);
    std::optional<StorePathSet> deadGroup(const StorePath &start);
    std::vector<StorePath> dependants(const StorePath &path);
    bool isAlive(const StorePath &path);
    void collect(const StorePath &path);
    void deleteGroup(const StorePathSet &group);
    void deleteEntry(const std::string &name);
    void collectStray(const std::string &name);
    bool lockedByOthers(const std::string &name);
    void deleteSpecific();
    void collectAll();
    void removeUnusedLinks();
    void countFreed(uint64_t bytes);
    bool deletes() const {
        return options_.action == Action::deleteDead || options_.action == Action::deleteSpecific;
    }

    LocalStore::Impl &store_;
    const GcOptions &options_;
    bool keepOutputs_, keepDerivations_;
    UniqueFd lock_;
    CollectionRoots tempRoots_;
    std::optional<CollectionServer> server_;
    StorePathSet alive_, dead_;
    GcResults results_;
};

Collector::Collector(LocalStore::Impl &store, const GcOptions &options)
    : store_(store),
      options_(options),
      keepOutputs_(store.settings.keepOutputs),
      keepDerivations_(store.settings.keepDerivations) {
    if (options.action == Action::deleteSpecific || options.ignoreLiveness) {
        // Named paths alone are deleted, not what hangs on them by derivations.
        keepOutputs_ = keepDerivations_ = false;
    }
}

GcResults Collector::run() {
    if (deletes()) {
        unlink((store_.locations.stateDir / "db" / "reserved").c_str());
    }
    lock_ = openGcLock(store_.locations.stateDir);
    if (!lockFile(lock_.get(), LockMode::exclusive, false)) {
        store_.log(Verbosity::error, "waiting for the big garbage collector lock...");
        lockFile(lock_.get(), LockMode::exclusive, true);
    }
    server_.emplace(store_.locations.stateDir, store_.locations.storeDir.str() + "/", tempRoots_,
                    store_.logger);
    readRoots();
    try {
        options_.action == Action::deleteSpecific ? deleteSpecific() : collectAll();
    } catch (const LimitReached &) {
    }
    if (options_.action == Action::returnLive) {
        for (auto &path : alive_) {
            results_.paths.insert(store_.print(path));
        }
    }
    if (deletes()) {
        removeUnusedLinks();
    }
    return std::move(results_);
}

void Collector::readRoots() {
    // Temporary roots first: a process that ends from here on has made its lasting roots before, so that they
    // are found below. The other way round a path would be lost whose only root changed kind in between.
    readTempRoots(store_.locations.stateDir, true, [&](const std::string &, const std::string &text) {
        auto path = store_.locations.storeDir.tryParse(text);
        if (!path) {
            return;
        }
        tempRoots_.add(std::string(path->hashPart()));
        if (store_.database.isValid(*path)) {
            markClosure(*path);
        }
    });
    if (!options_.ignoreLiveness) {
        store_.log(Verbosity::info, "finding garbage collector roots...");
        for (auto &[path, places] : findLastingRoots(store_, true, true)) {
            markClosure(path);
        }
    }
}

/// What a live path keeps alive, one step.
std::vector<StorePath> Collector::dependencies(const StorePath &path) {
    std::vector<StorePath> next;
    auto info = store_.database.find(path);
    if (!info) {
        return next;
    }
    next.assign(info->references.begin(), info->references.end());
    if (keepOutputs_ && path.isDerivation()) {
        for (auto &[name, output] : store_.database.derivationOutputs(path)) {
            if (store_.database.isValid(output)) {
                next.push_back(output);
            }
        }
    }
    if (keepDerivations_ && info->deriver && store_.database.isValid(*info->deriver)) {
        next.push_back(*info->deriver);
    }
    return next;
}

void Collector::markClosure(const StorePath &root) {
    std::vector<StorePath> pending{root};
    while (!pending.empty()) {
        auto path = std::move(pending.back());
        pending.pop_back();
        if (!alive_.insert(path).second) {
            continue;
        }
        for (auto &next : dependencies(path)) {
            if (!alive_.contains(next)) {
                pending.push_back(std::move(next));
            }
        }
    }
}

/// What must be dead for `path` to be dead: the reverse of dependencies().
std::vector<StorePath> Collector::dependants(const StorePath &path) {
    auto referrers = store_.database.referrers(path);
    std::vector<StorePath> next(referrers.begin(), referrers.end());
    if (keepDerivations_ && path.isDerivation()) {
        for (auto &[name, output] : store_.database.derivationOutputs(path)) {
            auto info = store_.database.find(output);
            if (info && info->deriver == path) {
                next.push_back(output);
            }
        }
    }
    if (keepOutputs_) {
        auto derivers = store_.database.validDerivers(path);
        next.insert(next.end(), derivers.begin(), derivers.end());
    }
    return next;
}

bool Collector::isAlive(const StorePath &path) {
    return alive_.contains(path) || tempRoots_.contains(std::string(path.hashPart()));
}

/// `start` and everything that hangs on it, if all of it is dead. Otherwise what is alive is marked.
std::optional<StorePathSet> Collector::deadGroup(const StorePath &start) {
    StorePathSet group;
    std::vector<StorePath> pending{start};
    while (!pending.empty()) {
        auto path = std::move(pending.back());
        pending.pop_back();
        if (dead_.contains(path) || !group.insert(path).second) {
            continue;
        }
        if (isAlive(path)) {
            markClosure(path);
            // Not a reference where it hangs on a derivation alone; then marking again would not find it.
            alive_.insert(start);
            return std::nullopt;
        }
        if (options_.action == Action::deleteSpecific && !options_.pathsToDelete.contains(path)) {
            return std::nullopt;
        }
        for (auto &next : dependants(path)) {
            pending.push_back(std::move(next));
        }
    }
    return group;
}

void Collector::collect(const StorePath &path) {
    auto group = alive_.contains(path) || dead_.contains(path) ? std::nullopt : deadGroup(path);
    if (!group) {
        return;
    }
    if (deletes()) {
        deleteGroup(*group);
        return;
    }
    dead_.insert(group->begin(), group->end());
    if (options_.action == Action::returnDead) {
        for (auto &member : *group) {
            results_.paths.insert(store_.print(member));
        }
    }
}

void Collector::deleteGroup(const StorePathSet &group) {
    std::set<std::string> hashParts;
    for (auto &path : group) {
        hashParts.insert(std::string(path.hashPart()));
    }
    if (auto root = tempRoots_.claim(hashParts)) {
        // Became one since deadGroup() looked.
        for (auto &path : group) {
            if (path.hashPart() == *root) {
                markClosure(path);
            }
        }
        return;
    }
    ScopeExit release([&] { tempRoots_.release(); });
    auto sorted = store_.self.topologicallySorted(group);
    for (auto path = sorted.rbegin(); path != sorted.rend(); ++path) {
        throwIfInterrupted();
        bool valid = store_.database.isValid(*path);
        if (!valid && lockedByOthers(path->baseName())) {
            continue; // being made at this moment
        }
        if (valid) {
            // First the row, then the files: never a valid path without its files.
            store_.database.transaction([&] { store_.database.remove(*path); });
        }
        dead_.insert(*path);
        deleteEntry(path->baseName());
    }
}

/// Whether a process holds the output lock beside an entry, or the entry is such a lock.
bool Collector::lockedByOthers(const std::string &name) {
    auto lockName = name.ends_with(".lock") ? name : name + ".lock";
    UniqueFd fd(openat(store_.storeFd.get(), lockName.c_str(), O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    return fd && !lockFile(fd.get(), LockMode::exclusive, false);
}

void Collector::deleteEntry(const std::string &name) {
    auto path = store_.locations.storeDir.str() + "/" + name;
    store_.log(Verbosity::info, fmt::format("deleting '{}'", escapeForDisplay(path)));
    results_.paths.insert(path);
    countFreed(removeStoreEntry(store_, name));
}

void Collector::countFreed(uint64_t bytes) {
    results_.bytesFreed += bytes;
    if (results_.bytesFreed > options_.maxFreed) {
        store_.log(Verbosity::info, fmt::format("deleted more than {} bytes; stopping", options_.maxFreed));
        throw LimitReached();
    }
}

/// What cannot be a store path: left by processes that died.
void Collector::collectStray(const std::string &name) {
    if (!deletes() || name == ".links") {
        return;
    }
    if (name.starts_with("tmp-")) {
        // Newer Nixes lock such directories while they use them.
        UniqueFd fd(
            openat(store_.storeFd.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
        if (fd && !lockFile(fd.get(), LockMode::exclusive, false)) {
            store_.log(Verbosity::debug, fmt::format("skipping locked temporary directory '{}'", name));
            return;
        }
    }
    if (!lockedByOthers(name)) {
        deleteEntry(name);
    }
}

void Collector::deleteSpecific() {
    for (auto &path : options_.pathsToDelete) {
        throwIfInterrupted();
        collect(path);
        if (!dead_.contains(path)) {
            throw Error(ErrorKind::refused,
                        "Cannot delete path '{}' since it is still alive. To find out why, use: nix-store "
                        "--query --roots",
                        store_.print(path));
        }
    }
}

void Collector::collectAll() {
    if (options_.maxFreed == 0) {
        return;
    }
    store_.log(Verbosity::info, deletes() ? "deleting garbage..." : "determining live/dead paths...");
    for (auto &name : listDirectory(store_.storeFd.get())) {
        throwIfInterrupted();
        if (auto path = store_.locations.storeDir.tryParse(store_.locations.storeDir.str() + "/" + name)) {
            collect(*path);
        } else {
            collectStray(name);
        }
    }
}

void Collector::removeUnusedLinks() {
    store_.log(Verbosity::info, "deleting unused links...");
    auto links = openDirectoryAt(store_.storeFd.get(), ".links");
    int64_t actual = 0, unshared = 0;
    for (auto &name : listDirectory(links.get())) {
        struct stat st;
        if (!statAt(links.get(), name, st)) {
            continue;
        }
        if (st.st_nlink != 1) {
            actual += st.st_size;
            unshared += static_cast<int64_t>(st.st_nlink - 1) * st.st_size;
            continue;
        }
        store_.log(Verbosity::talkative, fmt::format("deleting unused link '{}'", escapeForDisplay(name)));
        if (unlinkat(links.get(), name.c_str(), 0) != 0 && errno != ENOENT) {
            throwErrno("deleting unused link '.links/{}'", escapeForDisplay(name));
        }
        results_.bytesFreed += static_cast<uint64_t>(st.st_blocks) * 512;
    }
    store_.log(Verbosity::info, fmt::format("note: currently hard linking saves {:.2f} MiB",
                                            static_cast<double>(unshared - actual) / (1024 * 1024)));
}

} // namespace

GcResults LocalStore::collectGarbage(const GcOptions &options) {
    return Collector(*impl_, options).run();
}

} // namespace firn
