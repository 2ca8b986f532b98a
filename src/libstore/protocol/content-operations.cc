#include <algorithm>

#include "libstore/protocol/connection.hh"
#include "libstore/protocol/messages.hh"
#include "libstore/protocol/operations.hh"

// Adding to the store and reading from it.

namespace firn::operations {

namespace {

struct AddOptions {
    bool repair = false, dontCheckSignatures = false;
    Repair repairMode() const { return repair ? Repair::yes : Repair::no; }
};

AddOptions readAddOptions(Connection &c) {
    AddOptions options;
    options.repair = c.in.boolean();
    options.dontCheckSignatures = c.in.boolean();
    return options;
}

/// A client that is not trusted may ask for unchecked signatures; they are checked all the same.
CheckSignatures signatureMode(const Connection &c, const AddOptions &options) {
    return options.dontCheckSignatures && c.peer.trusted ? CheckSignatures::no : CheckSignatures::yes;
}

// ---- AddToStore

/// Since 1.25: the method says everything, the data come in frames.
void addFramed(Connection &c) {
    std::string name = c.in.name(), method = c.in.name();
    StorePathSet references = c.in.storePathSet(c.dir());
    bool repair = c.in.boolean();
    Source &dump = c.framedPayload();
    PathInfo info = c.work([&] {
        c.checkRepair(repair);
        return c.store.addContent(name, ContentAddressMethod::parse(method), dump, references,
                                  repair ? Repair::yes : Repair::no);
    });
    writePathInfo(c.out, c.dir(), info);
}

/// Before: an archive follows at once, also where a single file is meant. "fixed" is false where a client
/// wants the usual method, an archive by its sha256.
void addArchive(Connection &c) {
    std::string name = c.in.name();
    bool fixed = c.in.boolean();
    bool recursive = c.in.number() == 1 || !fixed;
    std::string algorithm = c.in.name();
    UniqueFd spool = recursive ? spoolArchive(c.in.source()) : spoolFileOfArchive(c.in.source());
    PathInfo info = c.work([&] {
        auto parsed = fixed ? parseHashAlgorithm(algorithm) : HashAlgorithm::sha256;
        if (!parsed) {
            throw Error(ErrorKind::badInput, "There is no hash algorithm '{}'.",
                        escapeForDisplay(algorithm, 64));
        }
        FdSource dump(spool.get());
        ContentMethod method = recursive ? ContentMethod::nar : ContentMethod::flat;
        return c.store.addContent(name, ContentAddressMethod{method, *parsed}, dump, {});
    });
    c.out.storePath(c.dir(), info.path);
}

// ---- AddToStoreNar

void addNar(Connection &c, PathInfo &info, const AddOptions &options, Source &nar) {
    c.checkRepair(options.repair);
    info.ultimate = info.ultimate && c.peer.trusted;
    c.store.addNar(info, nar, options.repairMode(), signatureMode(c, options));
}

// ---- AddMultipleToStore

/// One path and its archive. The archive cannot take more than its announced size from the frames.
void addNext(Connection &c, WireReader &frames, const AddOptions &options) {
    frames.beginMessage();
    PathInfo info = readPathInfo(frames, c.dir());
    frames.throwDeferred();
    if (info.narSize == 0) {
        throw Error(ErrorKind::badInput, "The size of '{}' is missing.", c.dir().print(info.path));
    }
    info.ultimate = false;
    LimitedSource nar(frames.source(), info.narSize);
    c.store.addNar(info, nar, options.repairMode(), signatureMode(c, options));
    NullSink nowhere;
    copyAll(nar, nowhere);
}

} // namespace

void addToStore(Connection &c) {
    c.minor >= 25 ? addFramed(c) : addArchive(c);
}

void addTextToStore(Connection &c) {
    std::string name = c.in.name(), text = c.in.string();
    StorePathSet references = c.in.storePathSet(c.dir());
    PathInfo info = c.work([&] { return c.store.addText(name, text, references); });
    c.out.storePath(c.dir(), info.path);
}

void addToStoreNar(Connection &c) {
    PathInfo info = readPathInfo(c.in, c.dir());
    AddOptions options = readAddOptions(c);
    if (c.minor >= 23) {
        Source &nar = c.framedPayload();
        c.work([&] { addNar(c, info, options, nar); });
    } else if (c.minor >= 21) {
        c.work([&] {
            RequestedSource blocks(c.in, c.logger);
            UniqueFd spool = spoolArchive(blocks);
            FdSource nar(spool.get());
            addNar(c, info, options, nar);
        });
    } else {
        UniqueFd spool = spoolArchive(c.in.source());
        FdSource nar(spool.get());
        c.work([&] { addNar(c, info, options, nar); });
    }
}

void addMultipleToStore(Connection &c) {
    AddOptions options = readAddOptions(c);
    WireReader frames(c.framedPayload());
    c.work([&] {
        c.checkRepair(options.repair);
        for (uint64_t left = frames.number(); left > 0; --left) {
            addNext(c, frames, options);
        }
    });
}

void addSignatures(Connection &c) {
    StorePath path = c.in.storePath(c.dir());
    std::set<std::string> signatures = c.in.stringSet();
    c.work([&] { c.store.addSignatures(path, signatures); });
    c.out.number(1);
}

void addBuildLog(Connection &c) {
    StorePath path = c.in.storePath(c.dir());
    Source &log = c.framedPayload();
    c.work([&] {
        c.requireTrust("add logs");
        c.store.addBuildLog(path, log);
    });
    c.out.number(1);
}

void registerDrvOutput(Connection &c) {
    Realisation realisation = readRealisation(c.in, c.dir(), c.minor);
    c.work([&] {
        c.store.registerRealisation(realisation, c.peer.trusted ? CheckSignatures::no : CheckSignatures::yes);
    });
}

void importPaths(Connection &c) {
    std::vector<StorePath> paths = c.work([&] {
        RequestedSource stream(c.in, c.logger);
        return c.store.importPaths(stream, c.peer.trusted ? CheckSignatures::no : CheckSignatures::yes);
    });
    c.out.number(paths.size());
    for (const StorePath &path : paths) {
        c.out.storePath(c.dir(), path);
    }
}

void exportPath(Connection &c) {
    StorePath path = c.in.storePath(c.dir());
    c.in.number(); // whether to sign: obsolete
    c.work([&] {
        TunnelSink sink(c.logger);
        c.store.exportPath(path, sink);
    });
    c.out.number(1);
}

void narFromPath(Connection &c) {
    StorePath path = c.in.storePath(c.dir());
    c.work([&] { c.store.queryPathInfo(path); });
    c.store.narFromPath(path, c.sink);
}

} // namespace firn::operations
