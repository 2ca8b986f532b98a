#include <cerrno>

#include <sys/stat.h>
#include <unistd.h>

#include "libstore/store/impl.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/interrupt.hh"
#include "libutil/nar.hh"

// Whether the database and the disk agree: every valid path has files, and, if asked, the files have the hash
// that was registered. What has vanished and is needed by nothing is removed from the database; anything else
// is reported. Making a path good again takes a substituter or a build, which the store does not have.

namespace firn {

namespace {

class Verifier {
  public:
    Verifier(LocalStore::Impl &store, Repair repair) : store_(store), repair_(repair) {}

    bool run(bool checkContents) {
        store_.log(Verbosity::info, "reading the Nix store...");
        // Nothing may be collected meanwhile, and what is added meanwhile does no harm.
        auto gcLock = openGcLock(store_.locations.stateDir);
        if (!lockFile(gcLock.get(), LockMode::shared, false)) {
            store_.log(Verbosity::error, "waiting for the big garbage collector lock...");
            lockFile(gcLock.get(), LockMode::shared, true);
        }
        store_.log(Verbosity::info, "checking path existence...");
        for (auto &text : store_.database.allPathTexts()) {
            throwIfInterrupted();
            checkExistence(text);
        }
        if (checkContents) {
            checkLinks();
            gcLock.reset(); // hashing takes long
            checkHashes();
        }
        return errors_;
    }

  private:
    void error(const std::string &message) {
        store_.log(Verbosity::error, message);
        errors_ = true;
    }

    bool exists(const StorePath &path) { return existsAt(store_.storeFd.get(), path.baseName()); }

    void checkExistence(const std::string &text) {
        auto path = store_.locations.storeDir.tryParse(text);
        if (!path) {
            error(fmt::format("path '{}' is not in the Nix store", escapeForDisplay(text)));
            store_.database.transaction([&] { store_.database.removeText(text); });
        } else if (exists(*path)) {
            present_.insert(*path);
        } else {
            vanished(*path);
        }
    }

    /// Referrers that vanished as well do not count; they are removed first.
    void vanished(const StorePath &start) {
        std::vector<StorePath> pending{start};
        StorePathSet group;
        bool needed = false;
        while (!pending.empty()) {
            auto path = std::move(pending.back());
            pending.pop_back();
            if (!group.insert(path).second) {
                continue;
            }
            needed = needed || exists(path);
            for (auto &referrer : store_.database.referrers(path)) {
                pending.push_back(referrer);
            }
        }
        auto name = store_.print(start);
        if (needed) {
            error(fmt::format("path '{}' disappeared, but it still has valid referrers!", name));
            sayUnrepaired(start);
            return;
        }
        store_.log(Verbosity::error, fmt::format("path '{}' disappeared, removing from database...", name));
        store_.database.transaction([&] {
            auto sorted = store_.self.topologicallySorted(group);
            for (auto path = sorted.rbegin(); path != sorted.rend(); ++path) {
                store_.database.remove(*path);
            }
        });
    }

    void sayUnrepaired(const StorePath &path) {
        if (repair_ == Repair::yes) {
            store_.logger.warn(fmt::format("path '{}' can only be repaired by 'nix-store --repair-path'",
                                           store_.print(path)));
        }
    }

    void checkLinks() {
        store_.log(Verbosity::info, "checking link hashes...");
        auto links = openDirectoryAt(store_.storeFd.get(), ".links");
        for (auto &name : listDirectory(links.get())) {
            auto hash = hashNar(links.get(), name).hash.digits(Encoding::nix32);
            if (hash == name) {
                continue;
            }
            error(fmt::format("link '{}' was modified! expected hash '{}', got '{}'", escapeForDisplay(name),
                              escapeForDisplay(name), hash));
            if (repair_ == Repair::yes) {
                if (unlinkat(links.get(), name.c_str(), 0) != 0) {
                    throwErrno("removing link '.links/{}'", escapeForDisplay(name));
                }
                store_.log(Verbosity::info, fmt::format("removed link '{}'", escapeForDisplay(name)));
            }
        }
    }

    void checkHashes() {
        store_.log(Verbosity::info, "checking store hashes...");
        for (auto &path : present_) {
            throwIfInterrupted();
            try {
                store_.addTempRoot(path);
                if (auto info = store_.database.find(path)) {
                    checkHash(*info);
                }
            } catch (const Error &problem) {
                if (problem.kind() == ErrorKind::interrupted) {
                    throw;
                }
                // One unreadable path must not hide the state of the others.
                error(problem.message());
            }
        }
    }

    void checkHash(const PathInfo &info) {
        auto actual = hashNar(store_.storeFd.get(), info.path.baseName(), info.narHash.algorithm());
        if (actual.hash != info.narHash) {
            error(fmt::format("path '{}' was modified! expected hash '{}', got '{}'", store_.print(info.path),
                              info.narHash.prefixed(Encoding::nix32), actual.hash.prefixed(Encoding::nix32)));
            sayUnrepaired(info.path);
        } else if (info.narSize == 0) {
            auto corrected = info;
            corrected.narSize = actual.size;
            store_.log(Verbosity::error, fmt::format("updating size field on '{}' to {}",
                                                     store_.print(info.path), actual.size));
            store_.database.transaction([&] { store_.database.updateInfo(corrected); });
        }
    }

    LocalStore::Impl &store_;
    Repair repair_;
    StorePathSet present_;
    bool errors_ = false;
};

} // namespace

bool LocalStore::verify(bool checkContents, Repair repair) {
    return Verifier(*impl_, repair).run(checkContents);
}

} // namespace firn
