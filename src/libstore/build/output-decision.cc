#include "libstore/build/output-decision.hh"

#include "libstore/build/output-address.hh"
#include "libstore/build/patched-nar.hh"

namespace firn {

namespace {

std::vector<Patch> patchesFor(const std::vector<PartHit> &hits, Patch::Place place,
                              const Rewrites &rewrites) {
    std::vector<Patch> patches;
    patches.reserve(hits.size());
    for (const PartHit &hit : hits) {
        patches.push_back({place, hit.offset, rewrites.replacements[hit.part]});
    }
    return patches;
}

std::vector<NodePatches> changesFor(const ScanResult &scan, const Rewrites &rewrites) {
    std::vector<NodePatches> changes;
    changes.reserve(scan.touched.size());
    for (const TouchedNode &touched : scan.touched) {
        changes.push_back({touched.node, patchesFor(touched.contents, Patch::Place::contents, rewrites),
                           patchesFor(touched.target, Patch::Place::linkTarget, rewrites),
                           patchesFor(touched.name, Patch::Place::entryName, rewrites), touched.everywhere});
    }
    return changes;
}

Rewrites rewritesFor(const ScanTargets &targets, const std::map<StorePath, StorePath> &finalByScratch) {
    Rewrites rewrites{&targets.parts, targets.rewritable, {}};
    for (size_t part = 0; part < targets.paths.size(); ++part) {
        auto found = finalByScratch.find(targets.paths[part]);
        const StorePath &becomes = found == finalByScratch.end() ? targets.paths[part] : found->second;
        rewrites.replacements.emplace_back(becomes.hashPart());
    }
    return rewrites;
}

void learn(Decision &decision, const std::string &name, const ScratchOutput &output, const StorePath &path) {
    decision.finalPaths.emplace(name, path);
    decision.finalByScratch.emplace(output.scratchPath, path);
}

/// Paths of inputs stay, those of other outputs are decided by now.
References referencesForAddress(const RegistrationContext &context, const ScanTargets &targets,
                                const Decision &decision, const NewOutput &output) {
    References references;
    if (!discardsReferences(context, output.name)) {
        references.others = finalReferences(targets, decision, output.scan);
        references.self = references.others.erase(output.scratch->scratchPath) > 0;
    }
    return references;
}

StorePath addressedPath(const RegistrationContext &context, const NewOutput &output,
                        const ContentAddress &address, const References &references) {
    std::string name = outputPathName(context.request.derivation->name, output.name);
    try {
        return makeContentAddressedPath(context.store.dir(), name, address, references);
    } catch (const Error &error) {
        if (error.kind() != ErrorKind::badInput) {
            throw;
        }
        rejectOutput(fmt::format("output '{}' of '{}' cannot have a content address: {}", output.name,
                                 context.drv, error.message()));
    }
}

/// The path of a floating output. What an earlier build recorded by the older rule is as good as by the newer
/// one.
void decideAddress(const RegistrationContext &context, const ScanTargets &targets, const NewOutput &output,
                   const ContentAddressMethod &method, Decision &decision) {
    if (method.method == ContentMethod::flat || method.method == ContentMethod::text) {
        requirePlainFile(context, output, method.method);
    }
    Rewrites rewrites = rewritesFor(targets, decision.finalByScratch);
    std::vector<NodePatches> changes = changesFor(output.scan, rewrites);
    FloatingContent content{context.request.scratchDir,
                            output.tree,
                            output.scan,
                            changes,
                            rewrites,
                            std::string(output.scratch->scratchPath.hashPart())};
    References references = referencesForAddress(context, targets, decision, output);
    ContentAddress address{method.method, hashFloatingContent(content, method)};
    StorePath path = addressedPath(context, output, address, references);
    if (output.scratch->recordedPath && path != *output.scratch->recordedPath) {
        ContentAddress older{method.method, hashFloatingContentByOlderRule(content, method)};
        if (addressedPath(context, output, older, references) == *output.scratch->recordedPath) {
            address = older;
            path = *output.scratch->recordedPath;
        }
    }
    learn(decision, output.name, *output.scratch, path);
    decision.addresses.emplace(output.name, address);
    context.store.addTempRoot(path);
    Rewrites final = rewritesFor(targets, decision.finalByScratch);
    if (!sameEntryOrder(output.tree, changes, changesFor(output.scan, final))) {
        rejectOutput(
            fmt::format("output '{}' of '{}' has its own path in the names of files, whose order changes "
                        "with it: such an output cannot have a content address",
                        output.name, context.drv));
    }
}

} // namespace

StorePathSet finalReferences(const ScanTargets &targets, const Decision &decision, const ScanResult &scan) {
    StorePathSet references;
    for (size_t part = 0; part < targets.paths.size(); ++part) {
        if (scan.found[part]) {
            auto found = decision.finalByScratch.find(targets.paths[part]);
            references.insert(found == decision.finalByScratch.end() ? targets.paths[part] : found->second);
        }
    }
    return references;
}

Decision decideOutputs(const RegistrationContext &context, const ScanTargets &targets, NewOutputs &outputs) {
    Decision decision;
    for (const auto &[name, output] : context.request.outputs) {
        if (output.finalPath) {
            learn(decision, name, output, *output.finalPath);
        }
    }
    // Each comes after those it refers to.
    for (const NewOutput &output : outputs) {
        if (output.scratch->finalPath) {
            continue;
        }
        std::optional<ContentAddressMethod> method = floatingMethod(output);
        if (!method) {
            throw Error(ErrorKind::bug, "the path of output '{}' of '{}' is not known", output.name,
                        context.drv);
        }
        decideAddress(context, targets, output, *method, decision);
    }
    decision.rewrites = rewritesFor(targets, decision.finalByScratch);
    for (NewOutput &output : outputs) {
        output.changes = changesFor(output.scan, decision.rewrites);
    }
    return decision;
}

} // namespace firn
