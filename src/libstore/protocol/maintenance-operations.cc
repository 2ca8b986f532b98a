#include "libstore/protocol/client-options.hh"
#include "libstore/protocol/connection.hh"
#include "libstore/protocol/operations.hh"

namespace firn::operations {

namespace {

GcOptions readGcOptions(Connection &c) {
    GcOptions options;
    uint64_t action = c.in.number();
    if (action > static_cast<uint64_t>(GcOptions::Action::deleteSpecific)) {
        c.in.defer(Error(ErrorKind::badInput, "There is no garbage collection action {}.", action));
        action = 0;
    }
    options.action = static_cast<GcOptions::Action>(action);
    options.pathsToDelete = c.in.storePathSet(c.dir());
    options.ignoreLiveness = c.in.boolean();
    options.maxFreed = c.in.number();
    for (int obsolete = 0; obsolete < 3; ++obsolete) {
        c.in.number();
    }
    return options;
}

} // namespace

void setOptions(Connection &c) {
    ClientOptions options = readClientOptions(c.in);
    c.work([&] { applyClientOptions(c.settings, options, c.peer.trusted, c.logger); });
    c.logger.setVerbosity(c.settings.verbosity);
}

void addTempRoot(Connection &c) {
    StorePath path = c.in.storePath(c.dir());
    c.work([&] { c.store.addTempRoot(path); });
    c.out.number(1);
}

void addIndirectRoot(Connection &c) {
    std::string link = c.in.name();
    c.work([&] { c.store.addIndirectRoot(link); });
    c.out.number(1);
}

void addPermRoot(Connection &c) {
    StorePath path = c.in.storePath(c.dir());
    std::string link = c.in.name();
    c.work([&] {
        c.requireTrust("create permanent roots; an indirect root needs no privilege");
        c.store.addPermanentRoot(path, link);
    });
    c.out.string(link);
}

void syncWithGc(Connection &c) {
    c.work([] {}); // temporary roots are announced to a running collection as they are added
    c.out.number(1);
}

void findRoots(Connection &c) {
    auto roots = c.work([&] { return c.store.findRoots(!c.peer.trusted); });
    uint64_t count = 0;
    for (const auto &[link, paths] : roots) {
        count += paths.size();
    }
    c.out.number(count);
    for (const auto &[link, paths] : roots) {
        for (const StorePath &path : paths) {
            c.out.string(link);
            c.out.storePath(c.dir(), path);
        }
    }
}

void collectGarbage(Connection &c) {
    GcOptions options = readGcOptions(c);
    GcResults results = c.work([&] {
        if (options.ignoreLiveness) {
            throw Error(ErrorKind::refused, "ignoring liveness is not allowed through a daemon");
        }
        return c.store.collectGarbage(options);
    });
    c.out.strings(results.paths);
    c.out.number(results.bytesFreed);
    c.out.number(0); // obsolete
}

void optimiseStore(Connection &c) {
    c.work([&] { c.store.optimiseAll(); });
    c.out.number(1);
}

void verifyStore(Connection &c) {
    bool checkContents = c.in.boolean();
    bool repair = c.in.boolean();
    bool errors = c.work([&] {
        if (repair) {
            c.requireTrust("repair paths");
        }
        return c.store.verify(checkContents, repair ? Repair::yes : Repair::no);
    });
    c.out.boolean(errors);
}

/// Failures are not remembered, so there are none.
void queryFailedPaths(Connection &c) {
    c.work([] {});
    c.out.number(0);
}

void clearFailedPaths(Connection &c) {
    c.in.strings();
    c.work([] {});
    c.out.number(1);
}

} // namespace firn::operations
