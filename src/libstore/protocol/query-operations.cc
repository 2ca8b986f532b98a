#include "libstore/protocol/connection.hh"
#include "libstore/protocol/messages.hh"
#include "libstore/protocol/operations.hh"

namespace firn::operations {

namespace {

/// Requests that are one path and results that are a set of paths.
template<typename Query>
void answerWithPaths(Connection &c, Query query) {
    StorePath path = c.in.storePath(c.dir());
    c.out.storePathSet(c.dir(), c.work([&] { return query(path); }));
}

/// An output map without the outputs whose path is not known.
StorePathSet knownPaths(const std::map<std::string, std::optional<StorePath>> &outputs) {
    StorePathSet paths;
    for (const auto &[name, path] : outputs) {
        if (path) {
            paths.insert(*path);
        }
    }
    return paths;
}

/// Reads and forgets what substitutes are asked for: paths, since 1.22 with their content addresses.
void skipSubstitutableRequest(Connection &c) {
    if (c.minor < 22) {
        c.in.storePathSet(c.dir());
        return;
    }
    for (uint64_t left = c.in.count(); left > 0; --left) {
        c.in.storePath(c.dir());
        c.in.name();
    }
}

} // namespace

void isValidPath(Connection &c) {
    StorePath path = c.in.storePath(c.dir());
    c.out.boolean(c.work([&] { return c.store.isValidPath(path); }));
}

void hasSubstitutes(Connection &c) {
    c.in.storePath(c.dir());
    c.work([] {});
    c.out.boolean(false);
}

void queryPathHash(Connection &c) {
    StorePath path = c.in.storePath(c.dir());
    PathInfo info = c.work([&] { return c.store.queryPathInfo(path); });
    c.out.string(info.narHash.digits(Encoding::base16));
}

void queryReferences(Connection &c) {
    answerWithPaths(c, [&](const StorePath &path) { return c.store.queryPathInfo(path).references; });
}

void queryReferrers(Connection &c) {
    answerWithPaths(c, [&](const StorePath &path) { return c.store.queryReferrers(path); });
}

void queryDeriver(Connection &c) {
    StorePath path = c.in.storePath(c.dir());
    PathInfo info = c.work([&] { return c.store.queryPathInfo(path); });
    c.out.optionalStorePath(c.dir(), info.deriver);
}

void querySubstitutablePathInfo(Connection &c) {
    c.in.storePath(c.dir());
    c.work([] {});
    c.out.boolean(false);
}

void queryDerivationOutputs(Connection &c) {
    answerWithPaths(
        c, [&](const StorePath &path) { return knownPaths(c.store.queryDerivationOutputMap(path)); });
}

void queryAllValidPaths(Connection &c) {
    c.out.storePathSet(c.dir(), c.work([&] { return c.store.queryAllValidPaths(); }));
}

void queryPathInfo(Connection &c) {
    StorePath path = c.in.storePath(c.dir());
    std::optional<PathInfo> info = c.work([&] { return c.store.tryQueryPathInfo(path); });
    c.out.boolean(info.has_value());
    if (info) {
        writeUnkeyedPathInfo(c.out, c.dir(), *info);
    }
}

void queryDerivationOutputNames(Connection &c) {
    StorePath path = c.in.storePath(c.dir());
    auto outputs = c.work([&] { return c.store.queryDerivationOutputMap(path); });
    std::set<std::string> names;
    for (const auto &[name, output] : outputs) {
        names.insert(name);
    }
    c.out.strings(names);
}

void queryPathFromHashPart(Connection &c) {
    std::string hashPart = c.in.name();
    c.out.optionalStorePath(c.dir(), c.work([&] { return c.store.queryPathFromHashPart(hashPart); }));
}

void querySubstitutablePathInfos(Connection &c) {
    skipSubstitutableRequest(c);
    c.work([] {});
    c.out.number(0);
}

void queryValidPaths(Connection &c) {
    StorePathSet paths = c.in.storePathSet(c.dir());
    if (c.minor >= 27) {
        c.in.boolean(); // whether to substitute what is missing: there are no substituters yet
    }
    c.out.storePathSet(c.dir(), c.work([&] { return c.store.queryValidPaths(paths); }));
}

void querySubstitutablePaths(Connection &c) {
    c.in.storePathSet(c.dir());
    c.work([] {});
    c.out.number(0);
}

void queryValidDerivers(Connection &c) {
    answerWithPaths(c, [&](const StorePath &path) { return c.store.queryValidDerivers(path); });
}

void queryDerivationOutputMap(Connection &c) {
    StorePath path = c.in.storePath(c.dir());
    auto outputs = c.work([&] { return c.store.queryDerivationOutputMap(path); });
    c.out.number(outputs.size());
    for (const auto &[name, output] : outputs) {
        c.out.string(name);
        c.out.optionalStorePath(c.dir(), output);
    }
}

void queryRealisation(Connection &c) {
    DrvOutput id = readDrvOutput(c.in);
    std::optional<Realisation> found = c.work([&] { return c.store.queryRealisation(id); });
    c.out.number(found ? 1 : 0);
    if (found && c.minor < 31) {
        c.out.storePath(c.dir(), found->outPath);
    } else if (found) {
        c.out.string(found->toJson());
    }
}

} // namespace firn::operations
