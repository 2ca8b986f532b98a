#include <algorithm>

#include "libstore/protocol/connection.hh"
#include "libstore/protocol/messages.hh"
#include "libstore/protocol/operations.hh"

namespace firn::operations {

namespace {

struct BuildRequest {
    std::vector<DerivedPath> paths;
    BuildMode mode;
};

BuildRequest readBuildRequest(Connection &c) {
    std::vector<DerivedPath> paths = readDerivedPaths(c.in, c.dir(), c.minor);
    return {paths, readBuildMode(c.in)};
}

std::vector<BuildResult> build(Connection &c, const BuildRequest &request) {
    c.checkRepair(request.mode == BuildMode::repair);
    BuildContext context = c.buildContext();
    return c.builder.build(context, request.paths, request.mode);
}

/// Whether each output's path will follow from its content: then nobody can pass off one thing for another.
bool isContentAddressed(const BasicDerivation &drv) {
    return !drv.outputs.empty() && std::ranges::all_of(drv.outputs, [](const auto &output) {
        return !std::holds_alternative<InputAddressedOutput>(output.second) &&
               !std::holds_alternative<DeferredOutput>(output.second);
    });
}

/// The path under which the derivation is built. An untrusted client's word for it does not count: it is
/// written anew, as what it is.
StorePath trustworthyPath(Connection &c, const StorePath &claimed, const BasicDerivation &drv) {
    if (c.peer.trusted) {
        return claimed;
    }
    if (!isContentAddressed(drv)) {
        c.requireTrust("build input-addressed derivations");
    }
    Derivation whole;
    static_cast<BasicDerivation &>(whole) = drv;
    return c.store.addDerivation(whole);
}

std::string derivationName(Connection &c, const StorePath &drvPath) {
    if (!drvPath.isDerivation()) {
        c.in.defer(Error(ErrorKind::badInput, "'{}' is not a derivation.", c.dir().print(drvPath)));
        return "unnamed";
    }
    std::string_view name = drvPath.name();
    return std::string(name.substr(0, name.size() - std::string_view(".drv").size()));
}

} // namespace

void buildPaths(Connection &c) {
    BuildRequest request = readBuildRequest(c);
    c.work([&] { throwIfFailed(c.dir(), c.logger, request.paths, build(c, request)); });
    c.out.number(1);
}

void buildPathsWithResults(Connection &c) {
    BuildRequest request = readBuildRequest(c);
    std::vector<BuildResult> results = c.work([&] { return build(c, request); });
    writeKeyedBuildResults(c.out, c.dir(), request.paths, results, c.minor);
}

void buildDerivation(Connection &c) {
    StorePath claimed = c.in.storePath(c.dir());
    BasicDerivation drv = readBasicDerivation(c.in, c.dir(), derivationName(c, claimed));
    BuildMode mode = readBuildMode(c.in);
    BuildResult result = c.work([&] {
        c.checkRepair(mode == BuildMode::repair);
        StorePath drvPath = trustworthyPath(c, claimed, drv);
        BuildContext context = c.buildContext();
        return c.builder.buildOne(context, drvPath, drv, mode);
    });
    writeBuildResult(c.out, result, c.minor);
}

void ensurePath(Connection &c) {
    StorePath path = c.in.storePath(c.dir());
    c.work([&] {
        if (!c.store.isValidPath(path)) {
            std::vector<DerivedPath> paths{OpaquePath{path}};
            throwIfFailed(c.dir(), c.logger, paths, build(c, {paths, BuildMode::normal}));
        }
    });
    c.out.number(1);
}

void queryMissing(Connection &c) {
    std::vector<DerivedPath> paths = readDerivedPaths(c.in, c.dir(), c.minor);
    MissingPaths missing = c.work([&] { return firn::queryMissing(c.store, paths); });
    c.out.storePathSet(c.dir(), missing.willBuild);
    c.out.storePathSet(c.dir(), missing.willSubstitute);
    c.out.storePathSet(c.dir(), missing.unknown);
    c.out.number(missing.downloadSize);
    c.out.number(missing.narSize);
}

} // namespace firn::operations
