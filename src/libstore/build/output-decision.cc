#include "libstore/build/output-decision.hh"

#include <algorithm>

#include "libstore/build/output-address.hh"
#include "libstore/build/patched-nar.hh"

namespace firn {

namespace {

std::vector<NodePatches> changesFor(const ScanResult &scan, const Rewrites &rewrites) {
    std::vector<NodePatches> changes;
    changes.reserve(scan.touched.size());
    for (const TouchedNode &touched : scan.touched) {
        changes.push_back(changeOf(touched, rewrites));
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

/// One floating output while its path is looked for.
class AddressSearch {
  public:
    AddressSearch(const RegistrationContext &context, const ScanTargets &targets, const Decision &decision,
                  const NewOutput &output, const ContentAddressMethod &method)
        : context_(context),
          targets_(targets),
          decision_(decision),
          output_(output),
          method_(method),
          finalByScratch_(decision.finalByScratch) {
        finalByScratch_.erase(output.scratch->scratchPath);
        rewrites_ = rewritesFor(targets, finalByScratch_);
        changes_ = changesFor(output.scan, rewrites_);
    }

    struct Found {
        ContentAddress address;
        StorePath path;
        bool byNormalForm = false;
        bool settled = false; ///< computed with signatures made right over the paths of other outputs
    };

    /// `isKnown`: it has an address that follows from normal forms already.
    AddressForms formsFrom(OutputRepair &repair, bool isKnown) const {
        const StorePath &scratch = output_.scratch->scratchPath;
        // Contents that are hashed by themselves have no references, and no path of their own in them.
        if (changes_.empty() || method_.method != ContentMethod::nar) {
            return {};
        }
        return repair.formsForAddress({output_.name, context_.request.scratchDir, output_.tree, changes_,
                                       rewrites_, finalByScratch_, isKnown},
                                      scratch);
    }

    /// What an earlier build recorded by another rule is as good as what the first one gives.
    Found find(const AddressForms &forms) {
        references_ = referencesForAddress(context_, targets_, decision_, output_);
        std::vector<NodePatches> settled = changes_;
        mergeRepairs(output_, settled, forms.settled);
        std::vector<Found> found;
        if (!forms.normal.empty()) {
            std::vector<NodePatches> changes = settled;
            mergeRepairs(output_, changes, forms.normal);
            found.push_back(at(hashNormalForm(with(changes), method_), true));
            found.front().byNormalForm = true;
        }
        if (!forms.onlyNormal) {
            addByNixsRules(settled, true, found);
        }
        if (forms.onlyNormal || !forms.settled.empty()) {
            addByNixsRules(changes_, false, found);
        }
        return isRecorded(found.back()) ? found.back() : found.front();
    }

    const std::vector<NodePatches> &changes() const { return changes_; }

  private:
    /// Nothing is looked for any more once the last one is what was recorded.
    void addByNixsRules(const std::vector<NodePatches> &changes, bool settled,
                        std::vector<Found> &found) const {
        if (found.empty() || isSought(found.back())) {
            found.push_back(at(hashFloatingContent(with(changes), method_), settled));
        }
        if (isSought(found.back())) {
            found.push_back(at(hashFloatingContentByOlderRule(with(changes), method_), settled));
        }
    }

    bool isSought(const Found &found) const {
        return output_.scratch->recordedPath.has_value() && !isRecorded(found);
    }

    bool isRecorded(const Found &found) const { return found.path == output_.scratch->recordedPath; }

    FloatingContent with(const std::vector<NodePatches> &changes) const {
        return {context_.request.scratchDir,
                output_.tree,
                output_.scan,
                changes,
                rewrites_,
                std::string(output_.scratch->scratchPath.hashPart())};
    }

    Found at(const Hash &hash, bool settled) const {
        ContentAddress address{method_.method, hash};
        return {address, addressedPath(context_, output_, address, references_), false, settled};
    }

    const RegistrationContext &context_;
    const ScanTargets &targets_;
    const Decision &decision_;
    const NewOutput &output_;
    ContentAddressMethod method_;
    std::map<StorePath, StorePath> finalByScratch_; ///< of the others
    Rewrites rewrites_;
    std::vector<NodePatches> changes_; ///< its own path stays as it is
    References references_;
};

/// Whether what is valid there may have an address of our own: then it comes to be in its final forms again,
/// whatever is made of a new output.
bool mayHaveOwnAddress(const RegistrationContext &context, const std::optional<StorePath> &path) {
    auto valid = path ? context.store.tryQueryPathInfo(*path) : std::nullopt;
    return valid && !valid->contentAddress;
}

/// The path of a floating output.
void decideAddress(const RegistrationContext &context, const ScanTargets &targets, OutputRepair &repair,
                   const NewOutput &output, const ContentAddressMethod &method, Decision &decision) {
    if (method.method == ContentMethod::flat || method.method == ContentMethod::text) {
        requirePlainFile(context, output, method.method);
    } else if (method.method == ContentMethod::git) {
        requireGitObject(context, output);
    }
    AddressSearch search(context, targets, decision, output, method);
    AddressForms forms = search.formsFrom(repair, mayHaveOwnAddress(context, output.scratch->recordedPath));
    AddressSearch::Found found = search.find(forms);
    if (!found.byNormalForm) {
        forms.normal.clear();
    }
    if (!found.settled) {
        forms.settled.clear();
    }
    learn(decision, output.name, *output.scratch, found.path);
    decision.addresses.emplace(output.name, found.address);
    decision.forms.emplace(output.name, std::move(forms));
    context.store.addTempRoot(found.path);
    Rewrites final = rewritesFor(targets, decision.finalByScratch);
    if (!sameEntryOrder(output.tree, search.changes(), changesFor(output.scan, final))) {
        rejectOutput(
            fmt::format("output '{}' of '{}' has its own path in the names of files, whose order changes "
                        "with it: such an output cannot have a content address",
                        output.name, context.drv));
    }
}

/// What is compared with an output that has an address of our own has to be in the final forms, too.
void prepareCheck(const RegistrationContext &context, const ScanTargets &targets, OutputRepair &repair,
                  const NewOutput &output, const ContentAddressMethod &method, Decision &decision) {
    if (mayHaveOwnAddress(context, output.scratch->finalPath)) {
        AddressSearch search(context, targets, decision, output, method);
        decision.forms.emplace(output.name, search.formsFrom(repair, true));
    }
}

void learnKnownPaths(const RegistrationContext &context, Decision &decision) {
    for (const auto &[name, output] : context.request.outputs) {
        if (output.finalPath) {
            learn(decision, name, output, *output.finalPath);
        }
    }
}

} // namespace

std::optional<Decision> decideBeforeScan(const RegistrationContext &context, const ScanTargets &targets) {
    bool known = std::ranges::all_of(context.request.derivation->outputs, [&](const auto &output) {
        auto found = context.request.outputs.find(output.first);
        bool hasPath = found == context.request.outputs.end() || found->second.finalPath;
        return hasPath && !pathFollowsFromContent(output.second);
    });
    if (!known || std::ranges::find(targets.rewritable, true) == targets.rewritable.end()) {
        return std::nullopt;
    }
    Decision decision;
    learnKnownPaths(context, decision);
    decision.rewrites = rewritesFor(targets, decision.finalByScratch);
    return decision;
}

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

Decision decideOutputs(const RegistrationContext &context, const ScanTargets &targets, OutputRepair &repair,
                       NewOutputs &outputs) {
    Decision decision;
    learnKnownPaths(context, decision);
    // Each comes after those it refers to.
    for (const NewOutput &output : outputs) {
        std::optional<ContentAddressMethod> method = floatingMethod(output);
        if (!output.scratch->finalPath && !method) {
            throw Error(ErrorKind::bug, "the path of output '{}' of '{}' is not known", output.name,
                        context.drv);
        }
        if (!output.scratch->finalPath) {
            decideAddress(context, targets, repair, output, *method, decision);
        } else if (method) {
            prepareCheck(context, targets, repair, output, *method, decision);
        }
    }
    decision.rewrites = rewritesFor(targets, decision.finalByScratch);
    for (NewOutput &output : outputs) {
        output.changes = changesFor(output.scan, decision.rewrites);
    }
    return decision;
}

} // namespace firn
