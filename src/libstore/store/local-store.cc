#include "libstore/store/local-store.hh"

#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <grp.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libstore/store/impl.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/nar.hh"

namespace firn {

namespace {

constexpr uint64_t derivationLimit = 64 * 1024 * 1024;

/// Group-writable and sticky for the build users, as stock Nix makes it, whoever made the directory: they may
/// create, but not delete.
void giveToBuildUsers(int dir, const std::filesystem::path &store, const std::string &group, Logger &logger) {
    if (geteuid() != 0 || group.empty()) {
        return;
    }
    struct group *entry = getgrnam(group.c_str());
    if (!entry) {
        logger.warn(fmt::format("the group '{}' specified in 'build-users-group' does not exist", group));
        return;
    }
    constexpr mode_t mode = 01775;
    struct stat st;
    bool known = fstat(dir, &st) == 0;
    if (known && st.st_uid == 0 && st.st_gid == entry->gr_gid && (st.st_mode & 07777) == mode) {
        return;
    }
    if (fchown(dir, 0, entry->gr_gid) != 0 || fchmod(dir, mode) != 0) {
        throwErrno("giving the store directory '{}' to the group '{}'", store.string(), group);
    }
}

/// Stock Nix refuses a store behind symlinks: builds that resolve them would have another path inside.
void refuseSymlinks(const std::filesystem::path &store) {
    std::filesystem::path path;
    for (const auto &component : store) {
        path /= component;
        struct stat st;
        if (lstat(path.c_str(), &st) == 0 && S_ISLNK(st.st_mode)) {
            throw Error(ErrorKind::refused,
                        "the path '{}' is a symlink; this is not allowed for the Nix store and its parent "
                        "directories",
                        path.string());
        }
    }
}

void makeStateDirectories(const std::filesystem::path &state) {
    bool newRoots = !std::filesystem::exists(state / "gcroots");
    for (auto *name : {"profiles", "temproots", "db", "gcroots", "profiles/per-user", "gcroots/per-user"}) {
        makeDirectories(state / name);
    }
    if (newRoots && symlink((state / "profiles").c_str(), (state / "gcroots" / "profiles").c_str()) != 0 &&
        errno != EEXIST) {
        throwErrno("creating symlink '{}'", (state / "gcroots" / "profiles").string());
    }
}

UniqueFd openStoreDirectory(const Locations &locations, const Settings &settings, Logger &logger) {
    std::filesystem::path store = locations.storeDir.str();
    refuseSymlinks(store);
    if (!std::filesystem::exists(store)) {
        makeDirectories(store);
    }
    makeStateDirectories(locations.stateDir);
    auto fd = openDirectory(store);
    giveToBuildUsers(fd.get(), store, settings.buildUsersGroup, logger);
    if (mkdirat(fd.get(), ".links", 0755) != 0 && errno != EEXIST) {
        throwErrno("creating directory '{}'", (store / ".links").string());
    }
    return fd;
}

DatabaseOptions databaseOptions(const Settings &settings) {
    return {.useWal = settings.useSqliteWal,
            .synchronous = settings.fsyncMetadata,
            .realisations = settings.experimentalFeatures.contains("ca-derivations"),
            .reservedSpace = settings.gcReservedSpace};
}

} // namespace

LocalStore::Impl::Impl(LocalStore &owner, const Locations &places, const Settings &configured, Logger &log)
    : self(owner),
      locations(places),
      settings(configured),
      logger(log),
      storeFd(openStoreDirectory(places, configured, log)),
      database(places.stateDir / "db", locations.storeDir, databaseOptions(configured), log),
      tempRoots(places.stateDir),
      hasher(locations.storeDir, owner) {}

void LocalStore::Impl::throwInvalid(const StorePath &path) const {
    throw Error(ErrorKind::notFound, "path '{}' is not valid", print(path));
}

LocalStore::LocalStore(const Locations &locations, const Settings &settings, Logger &logger)
    : impl_(std::make_unique<Impl>(*this, locations, settings, logger)) {}

/// A collection by stock Nix reads lasting roots first and temporary ones later. What became a lasting root
/// in between must stay a temporary one until it has read those too.
LocalStore::~LocalStore() {
    if (impl_ && impl_->madeLastingRoot) {
        try {
            UniqueFd lock = openGcLock(locations().stateDir);
            lockFile(lock.get(), LockMode::shared, /*wait=*/true);
        } catch (const Error &) {
            // The client has gone: there is nobody to tell, and the roots themselves are made.
        }
    }
}

const StoreDir &LocalStore::dir() const {
    return impl_->locations.storeDir;
}
const Locations &LocalStore::locations() const {
    return impl_->locations;
}
const Settings &LocalStore::settings() const {
    return impl_->settings;
}
Logger &LocalStore::logger() const {
    return impl_->logger;
}
int LocalStore::storeFd() const {
    return impl_->storeFd.get();
}

void LocalStore::createUser(const std::string &user, uid_t uid, gid_t gid) {
    if (user.empty() || user.find('/') != std::string::npos || user.front() == '.') {
        throw Error(ErrorKind::badInput, "'{}' is no name of a user", escapeForDisplay(user, 256));
    }
    for (auto *kind : {"profiles", "gcroots"}) {
        auto parent = openDirectory(impl_->locations.stateDir / kind / "per-user");
        if (mkdirat(parent.get(), user.c_str(), 0755) != 0 && errno != EEXIST) {
            throwErrno("creating the directory of user '{}' in '{}/per-user'", user, kind);
        }
        auto dir = openDirectoryAt(parent.get(), user);
        if (fchown(dir.get(), uid, gid) != 0) {
            throwErrno("giving '{}/per-user/{}' to its user", kind, user);
        }
    }
}

bool LocalStore::isValidPath(const StorePath &path) {
    return impl_->database.isValid(path);
}

std::optional<PathInfo> LocalStore::tryQueryPathInfo(const StorePath &path) {
    return impl_->database.find(path);
}

PathInfo LocalStore::queryPathInfo(const StorePath &path) {
    auto info = impl_->database.find(path);
    if (!info) {
        impl_->throwInvalid(path);
    }
    return std::move(*info);
}

std::optional<StorePath> LocalStore::queryPathFromHashPart(const std::string &hashPart) {
    if (hashPart.size() != StorePath::hashPartLength) {
        throw Error(ErrorKind::badInput, "invalid hash part '{}': it must have {} digits",
                    escapeForDisplay(hashPart, 256), StorePath::hashPartLength);
    }
    return impl_->database.findByHashPart(hashPart);
}

StorePathSet LocalStore::queryAllValidPaths() {
    return impl_->database.allPaths();
}

StorePathSet LocalStore::queryValidPaths(const StorePathSet &paths) {
    StorePathSet valid;
    impl_->database.snapshot([&] {
        for (auto &path : paths) {
            if (impl_->database.isValid(path)) {
                valid.insert(path);
            }
        }
    });
    return valid;
}

StorePathSet LocalStore::queryReferrers(const StorePath &path) {
    return impl_->database.referrers(path);
}

StorePathSet LocalStore::queryValidDerivers(const StorePath &path) {
    return impl_->database.validDerivers(path);
}

std::map<std::string, std::optional<StorePath>>
LocalStore::queryDerivationOutputMap(const StorePath &drvPath) {
    auto drv = readDerivation(drvPath);
    std::map<std::string, std::optional<StorePath>> outputs;
    for (auto &[name, output] : drv.outputs) {
        outputs.emplace(name, outputPath(dir(), drv, name));
    }
    bool complete =
        std::all_of(outputs.begin(), outputs.end(), [](auto &output) { return output.second.has_value(); });
    if (complete || !impl_->database.hasRealisations()) {
        return outputs;
    }
    for (auto &[name, hash] : impl_->hasher.outputHashes(drv, /*maskOutputs=*/true)) {
        auto realised = impl_->database.findRealisation(DrvOutput{hash, name});
        if (auto known = outputs.find(name); known != outputs.end() && !known->second && realised) {
            known->second = realised->outPath;
        }
    }
    return outputs;
}

StorePathSet LocalStore::computeClosure(const StorePathSet &paths) {
    return impl_->database.closure(paths);
}

std::vector<StorePath> LocalStore::topologicallySorted(const StorePathSet &paths) {
    std::vector<StorePath> sorted;
    impl_->database.snapshot([&] {
        sorted = sortByReferences(paths, [this](const StorePath &path) {
            auto info = tryQueryPathInfo(path);
            return info ? info->references : StorePathSet();
        });
    });
    return sorted;
}

std::vector<StorePath>
LocalStore::sortByReferences(const StorePathSet &paths,
                             const std::function<StorePathSet(const StorePath &)> &references) {
    enum class Mark { open, done };
    struct Visit {
        StorePath path;
        std::vector<StorePath> left;
    };
    std::map<StorePath, Mark> marks;
    std::vector<StorePath> sorted;
    std::vector<Visit> stack;
    auto enter = [&](const StorePath &path) {
        marks.emplace(path, Mark::open);
        auto refs = references(path);
        stack.push_back({path, std::vector<StorePath>(refs.begin(), refs.end())});
    };
    for (auto &start : paths) {
        if (!marks.contains(start)) {
            enter(start);
        }
        while (!stack.empty()) {
            auto &top = stack.back();
            if (top.left.empty()) {
                marks.at(top.path) = Mark::done;
                sorted.push_back(top.path);
                stack.pop_back();
                continue;
            }
            auto next = top.left.back();
            top.left.pop_back();
            auto mark = marks.find(next);
            if (mark == marks.end() && paths.contains(next)) {
                enter(next);
            } else if (mark != marks.end() && mark->second == Mark::open && next != top.path) {
                throw Error(ErrorKind::badInput, "cycle detected in the references of '{}' from '{}'",
                            dir().print(top.path), dir().print(next));
            }
        }
    }
    return sorted;
}

Derivation LocalStore::readDerivation(const StorePath &drvPath) {
    if (!isValidPath(drvPath)) {
        impl_->throwInvalid(drvPath);
    }
    return readDerivationFile(drvPath);
}

Derivation LocalStore::readDerivationFile(const StorePath &drvPath) {
    if (!drvPath.isDerivation()) {
        throw Error(ErrorKind::badInput, "path '{}' is not a derivation", dir().print(drvPath));
    }
    auto name = drvPath.name();
    name.remove_suffix(std::string_view(".drv").size());
    try {
        return parseDerivation(dir(), readFileAt(storeFd(), drvPath.baseName(), derivationLimit), name);
    } catch (Error &error) {
        error.addContext(fmt::format("error parsing derivation '{}'", dir().print(drvPath)));
        throw;
    }
}

void LocalStore::narFromPath(const StorePath &path, Sink &sink) {
    if (!isValidPath(path)) {
        impl_->throwInvalid(path);
    }
    dumpNar(storeFd(), path.baseName(), sink);
}

void LocalStore::addTempRoot(const StorePath &path) {
    impl_->addTempRoot(path);
}

void LocalStore::invalidatePath(const StorePath &path) {
    impl_->database.transaction([&] { impl_->database.remove(path); });
    removeStoreEntry(*impl_, path.baseName());
}

} // namespace firn
