#include "libstore/protocol/messages.hh"

#include "libutil/logging.hh"

namespace firn {

namespace {

DrvOutput placeholderOutput() {
    return DrvOutput{Hash(HashAlgorithm::sha256), "out"};
}

Realisation placeholderRealisation() {
    return Realisation{placeholderOutput(), StorePath("00000000000000000000000000000000-unreadable"), {}, {}};
}

std::optional<ContentAddress> readContentAddress(WireReader &in) {
    std::string text = in.name();
    if (text.empty()) {
        return std::nullopt;
    }
    return in.content<std::optional<ContentAddress>>([&] { return ContentAddress::parse(text); },
                                                     std::nullopt);
}

/// Before 1.30 a plain derivation path asks for all its outputs.
DerivedPath parseOldDerivedPath(const StoreDir &store, const std::string &text) {
    DerivedPath path = parseDerivedPath(store, text);
    const OpaquePath *opaque = std::get_if<OpaquePath>(&path);
    if (opaque && opaque->path.isDerivation()) {
        return BuiltPath{opaque->path, {}};
    }
    return path;
}

/// A derivation's output as three words, the way derivation files have it as well.
DerivationOutput parseOutput(const StoreDir &store, const std::string &path, const std::string &method,
                             const std::string &hash) {
    if (method.empty()) {
        if (!hash.empty()) {
            throw Error(ErrorKind::badInput, "A derivation's output has a hash but no hash algorithm.");
        }
        return path.empty() ? DerivationOutput(DeferredOutput{})
                            : DerivationOutput(InputAddressedOutput{store.parse(path)});
    }
    ContentAddressMethod parsed = ContentAddressMethod::parse(method);
    if (hash == "impure") {
        return ImpureOutput{parsed};
    }
    if (hash.empty()) {
        return FloatingOutput{parsed};
    }
    return FixedOutput{ContentAddress{parsed.method, Hash::parse(hash, parsed.algorithm)}};
}

void readOutput(WireReader &in, const StoreDir &store, BasicDerivation &drv) {
    std::string name = in.name(), path = in.name(), method = in.name(), hash = in.name();
    DerivationOutput output = in.content<DerivationOutput>(
        [&] { return parseOutput(store, path, method, hash); }, DerivationOutput(DeferredOutput{}));
    if (!drv.outputs.emplace(name, output).second) {
        in.defer(Error(ErrorKind::badInput, "A derivation has two outputs called '{}'.",
                       escapeForDisplay(name, 256)));
    }
    in.content<bool>(
        [&] {
            checkStorePathName(name);
            return true;
        },
        false);
}

void writeMicroseconds(WireWriter &out, const std::optional<uint64_t> &time) {
    out.boolean(time.has_value());
    if (time) {
        out.number(*time);
    }
}

} // namespace

PathInfo readUnkeyedPathInfo(WireReader &in, const StoreDir &store, const StorePath &path) {
    PathInfo info{.path = path, .references = {}, .deriver = {}, .signatures = {}, .contentAddress = {}};
    info.deriver = in.optionalStorePath(store);
    std::string hash = in.name();
    info.narHash = in.content<Hash>([&] { return Hash::parse(hash, HashAlgorithm::sha256); }, info.narHash);
    info.references = in.storePathSet(store);
    info.registrationTime = static_cast<time_t>(in.number());
    info.narSize = in.number();
    info.ultimate = in.boolean();
    info.signatures = in.stringSet();
    info.contentAddress = readContentAddress(in);
    return info;
}

PathInfo readPathInfo(WireReader &in, const StoreDir &store) {
    StorePath path = in.storePath(store);
    return readUnkeyedPathInfo(in, store, path);
}

void writeUnkeyedPathInfo(WireWriter &out, const StoreDir &store, const PathInfo &info) {
    out.optionalStorePath(store, info.deriver);
    out.string(info.narHash.digits(Encoding::base16));
    out.storePathSet(store, info.references);
    out.number(static_cast<uint64_t>(info.registrationTime));
    out.number(info.narSize);
    out.boolean(info.ultimate);
    out.strings(info.signatures);
    out.string(info.contentAddress ? info.contentAddress->print() : "");
}

void writePathInfo(WireWriter &out, const StoreDir &store, const PathInfo &info) {
    out.storePath(store, info.path);
    writeUnkeyedPathInfo(out, store, info);
}

std::vector<DerivedPath> readDerivedPaths(WireReader &in, const StoreDir &store, unsigned minor) {
    std::vector<DerivedPath> paths;
    for (uint64_t left = in.count(); left > 0; --left) {
        std::string text = in.name();
        in.content<bool>(
            [&] {
                paths.push_back(minor >= 30 ? parseDerivedPath(store, text)
                                            : parseOldDerivedPath(store, text));
                return true;
            },
            false);
    }
    return paths;
}

BuildMode readBuildMode(WireReader &in) {
    uint64_t mode = in.number();
    if (mode > static_cast<uint64_t>(BuildMode::check)) {
        in.defer(Error(ErrorKind::badInput, "There is no build mode {}.", mode));
        return BuildMode::normal;
    }
    return static_cast<BuildMode>(mode);
}

BasicDerivation readBasicDerivation(WireReader &in, const StoreDir &store, std::string_view name) {
    BasicDerivation drv;
    drv.name = name;
    for (uint64_t left = in.count(); left > 0; --left) {
        readOutput(in, store, drv);
    }
    drv.inputSources = in.storePathSet(store);
    drv.platform = in.string();
    drv.builder = in.string();
    drv.args = in.strings();
    for (uint64_t left = in.count(); left > 0; --left) {
        std::string key = in.string();
        drv.env[key] = in.string();
    }
    return drv;
}

void writeBuildResult(WireWriter &out, const BuildResult &result, unsigned minor) {
    out.number(static_cast<uint64_t>(result.status));
    out.string(result.errorMessage);
    if (minor >= 29) {
        out.number(result.timesBuilt);
        out.boolean(result.isNonDeterministic);
        out.number(static_cast<uint64_t>(result.startTime));
        out.number(static_cast<uint64_t>(result.stopTime));
    }
    if (minor >= 37) {
        writeMicroseconds(out, result.cpuUser);
        writeMicroseconds(out, result.cpuSystem);
    }
    if (minor >= 28) {
        out.number(result.builtOutputs.size());
        for (const auto &[name, realisation] : result.builtOutputs) {
            out.string(realisation.id.print());
            out.string(realisation.toJson());
        }
    }
}

void writeKeyedBuildResults(WireWriter &out, const StoreDir &store, const std::vector<DerivedPath> &paths,
                            const std::vector<BuildResult> &results, unsigned minor) {
    if (paths.size() != results.size()) {
        throw Error(ErrorKind::bug, "{} build results for {} requests.", results.size(), paths.size());
    }
    out.number(results.size());
    for (size_t i = 0; i < results.size(); ++i) {
        out.string(printDerivedPath(store, paths[i]));
        writeBuildResult(out, results[i], minor);
    }
}

DrvOutput readDrvOutput(WireReader &in) {
    std::string text = in.name();
    return in.content<DrvOutput>([&] { return DrvOutput::parse(text); }, placeholderOutput());
}

Realisation readRealisation(WireReader &in, const StoreDir &store, unsigned minor) {
    if (minor < 31) {
        DrvOutput id = readDrvOutput(in);
        return Realisation{id, in.storePath(store), {}, {}};
    }
    std::string json = in.string();
    return in.content<Realisation>([&] { return Realisation::parseJson(json); }, placeholderRealisation());
}

void writeError(WireWriter &out, std::string_view message, unsigned minor) {
    if (minor < 26) {
        out.string(message);
        out.number(1);
        return;
    }
    out.string("Error");
    out.number(static_cast<uint64_t>(Verbosity::error));
    out.string("Error");
    out.string(message);
    out.number(0); // no position
    out.number(0); // no traces
}

} // namespace firn
