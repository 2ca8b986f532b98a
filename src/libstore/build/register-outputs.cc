#include "libstore/build/register-outputs.hh"

#include <algorithm>
#include <ctime>

#include <sys/stat.h>
#include <unistd.h>

#include "libstore/build/apply-patches.hh"
#include "libstore/build/new-output.hh"
#include "libstore/build/output-address.hh"
#include "libstore/build/output-checks.hh"
#include "libstore/build/output-decision.hh"
#include "libstore/build/output-order.hh"
#include "libstore/build/output-placement.hh"
#include "libstore/build/patched-nar.hh"
#include "libstore/build/untouched-output.hh"
#include "libstore/store/path-locks.hh"
#include "libutil/background-close.hh"
#include "libutil/files.hh"
#include "libutil/git-hash.hh"

// What a builder leaves is only a claim. Between it and a row in the database stand the phases below; each
// takes what the ones before made, and none but the last changes anything outside the scratch directory.

namespace firn {

namespace {

using Infos = std::map<std::string, PathInfo>;
using Context = RegistrationContext;

// ---- collect

/// Outputs that stay as they are: valid already, and nobody wants them anew.
Infos alreadyValidOutputs(const Context &context) {
    Infos infos;
    for (const auto &[name, output] : context.request.outputs) {
        BuildMode mode = context.request.mode;
        bool stays = mode == BuildMode::normal || (mode == BuildMode::repair && output.good);
        if (!stays || !output.finalPath) {
            continue;
        }
        if (auto info = context.store.tryQueryPathInfo(*output.finalPath)) {
            infos.emplace(name, *info);
        }
    }
    return infos;
}

void requireOutput(const Context &context, const std::string &name) {
    const StorePath &path = context.scratchPath(name);
    if (!existsAt(context.request.scratchDir, path.baseName())) {
        rejectOutput(fmt::format("builder for '{}' failed to produce output path for output '{}' at '{}'",
                                 context.drv, name, context.print(path)));
    }
}

NewOutput collectOne(const Context &context, const std::string &name, LinkCounts &links) {
    const ScratchOutput &scratch = context.request.outputs.at(name);
    CollectOptions options{context.print(scratch.scratchPath), name, context.request.builderUid,
                           context.store.settings().ignoredAcls};
    OutputTree tree =
        collectOutput(context.request.scratchDir, scratch.scratchPath.baseName(), options, links);
    const auto &specifications = context.request.derivation->outputs;
    return {name, &scratch, &specifications.at(name), std::move(tree), {}, {}, {}};
}

/// From here on everything is canonical and belongs to us.
NewOutputs collect(const Context &context, const Infos &alreadyValid) {
    NewOutputs outputs;
    LinkCounts links;
    for (const auto &[name, output] : context.request.outputs) {
        if (!alreadyValid.contains(name)) {
            requireOutput(context, name);
        }
    }
    for (const auto &[name, output] : context.request.outputs) {
        if (!alreadyValid.contains(name)) {
            outputs.push_back(collectOne(context, name, links));
        }
    }
    for (NewOutput &output : outputs) {
        links.markLinkedOutside(output.tree);
    }
    return outputs;
}

// ---- scan

ScanOptions scanOptions(const Context &context, const ScanTargets &targets, OutputRepair &repair,
                        const NewOutput &output) {
    ScanOptions options;
    options.parts = &targets.parts;
    options.rewritable = targets.rewritable;
    options.onTouchedFile = [&repair](const FileHead &head, uint64_t size) {
        return repair.foresee(head, size);
    };
    options.renewFiles = context.request.copyAllOutputs ||
                         (context.request.copyFixedOutputs && pathFollowsFromContent(*output.specification));
    if (const auto *fixed = std::get_if<FixedOutput>(output.specification)) {
        askForContentHash(options, {fixed->address.method, fixed->address.hash.algorithm()});
    } else if (auto method = floatingMethod(output)) {
        askForContentHash(options, *method);
    }
    return options;
}

/// Whether the tree that an output is to be compared with is looked at while the output is scanned.
bool looksMeanwhile(const Context &context, const NewOutput &output) {
    constexpr size_t worthAThread = 256;
    const std::optional<StorePath> &final = output.scratch->finalPath;
    return context.request.mode == BuildMode::check && output.tree.nodes.size() >= worthAThread && final &&
           context.store.isValidPath(*final);
}

void scan(const Context &context, const ScanTargets &targets, OutputRepair &repair, NewOutputs &outputs) {
    std::optional<Decision> known = decideBeforeScan(context, targets);
    for (NewOutput &output : outputs) {
        std::optional<UntouchedLook> look;
        if (looksMeanwhile(context, output)) {
            look.emplace(context.store.storeFd(), output.scratch->finalPath->baseName(), output.tree);
        }
        ScanOptions options = scanOptions(context, targets, repair, output);
        if (known) {
            options.rewrites = &known->rewrites;
            options.repairFile = [&](const NodePatches &change, int file) {
                std::vector<NodePatches> changes{change};
                return repair.repairFile({output.name, context.request.scratchDir, output.tree, changes,
                                          known->rewrites, known->finalByScratch},
                                         file);
            };
        }
        output.scan = scanOutput(context.request.scratchDir, output.tree, options);
        if (look) {
            output.untouched = look->finish();
        }
    }
}

// ---- repair

OutputRewrite rewriteOf(const Context &context, const Decision &decision, const NewOutput &output) {
    return {output.name,
            context.request.scratchDir,
            output.tree,
            output.changes,
            decision.rewrites,
            decision.finalByScratch,
            decision.hasOwnAddress(output.name)};
}

const FilePatches *patchesOf(const std::vector<FilePatches> &files, const std::string &path) {
    auto found =
        std::find_if(files.begin(), files.end(), [&](const FilePatches &file) { return file.path == path; });
    return found == files.end() ? nullptr : &*found;
}

/// Whether the address was computed with this in mind.
bool fitsAddress(const AddressForms &forms, const FilePatches &repair) {
    if (patchesOf(forms.normal, repair.path) != nullptr) {
        return true;
    }
    const FilePatches *settled = patchesOf(forms.settled, repair.path);
    return settled != nullptr && settled->patches == repair.patches;
}

/// It was made where signatures were left as they came, by another Nix perhaps.
[[noreturn]] void rejectRepairByNixsRule(const Context &context, const NewOutput &output,
                                         const std::string &file) {
    rejectOutput(fmt::format(
        "cannot repair '{0}', output '{1}' of '{2}': it was registered under the address that Nix's own rule "
        "gives, with a wrong code signature in the Mach-O file {3}, which 'macho-signatures = warn' alone "
        "lets "
        "be made again. It stays as it is. Set that to have it back as it was, or delete it ('nix-store "
        "--delete "
        "{0}') and build again to have it at another path with a right one",
        context.print(*output.scratch->recordedPath), output.name, context.drv,
        file.empty() ? "that it is" : quoteForDisplay(file)));
}

/// Where the address was computed from the page hashes as they are, nobody could verify it with others.
void requireAddressStays(const Context &context, const Decision &decision, const NewOutput &output,
                         const std::vector<FilePatches> &repairs) {
    auto found = decision.forms.find(output.name);
    if (!decision.addresses.contains(output.name) || found == decision.forms.end()) {
        return;
    }
    for (const FilePatches &settled : found->second.settled) {
        if (patchesOf(repairs, settled.path) == nullptr) {
            throw Error(
                ErrorKind::bug,
                "the address of output '{}' of '{}' was computed with a repair of '{}' that is not made",
                output.name, context.drv, escapeForDisplay(settled.path));
        }
    }
    for (const FilePatches &repair : repairs) {
        if (fitsAddress(found->second, repair)) {
            continue;
        }
        if (output.scratch->recordedPath == decision.finalPaths.at(output.name)) {
            rejectRepairByNixsRule(context, output, repair.path);
        }
        rejectOutput(fmt::format(
            "the code signature of the Mach-O file {}output '{}' of '{}' cannot stay valid: it is over the "
            "output's own path, which is computed from its content, page hashes among it, and the file is "
            "not of the kinds for which that can be done (the log says why). Sign what does not name its own "
            "output, or set 'macho-signatures = warn' to have it registered with a wrong signature",
            repair.path.empty() ? "" : quoteForDisplay(repair.path) + " of ", output.name, context.drv));
    }
}

/// What is on disk already cannot be patched any more.
void requireRepairsOnDisk(const NewOutput &output, const std::vector<FilePatches> &repairs) {
    std::map<std::string, const std::vector<Patch> *> wanted;
    for (const FilePatches &file : repairs) {
        wanted.emplace(file.path, &file.patches);
    }
    for (const TouchedNode &touched : output.scan.touched) {
        if (!touched.isRewritten) {
            continue;
        }
        std::string path = output.tree.pathOf(touched.node);
        auto found = wanted.find(path);
        if (found == wanted.end() ? !touched.repairs.empty() : *found->second != touched.repairs) {
            throw Error(ErrorKind::bug,
                        "output '{}': '{}' was rewritten with other patches than its repair wants",
                        output.name, escapeForDisplay(path));
        }
    }
}

void fixupMachoPageHashes(const Context &context, const Decision &decision, OutputRepair &repair,
                          NewOutputs &outputs) {
    for (NewOutput &output : outputs) {
        if (!output.changes.empty()) {
            std::vector<FilePatches> repairs = repair.repair(rewriteOf(context, decision, output));
            requireAddressStays(context, decision, output, repairs);
            requireRepairsOnDisk(output, repairs);
            mergeRepairs(output, output.changes, std::move(repairs));
        }
    }
}

// ---- apply and hash, verify

void apply(const Context &context, const Rewrites &rewrites, NewOutputs &outputs) {
    for (NewOutput &output : outputs) {
        // An output in which nothing is left to be changed is as it was when it was scanned.
        output.nar = output.scan.nar
                         ? *output.scan.nar
                         : applyPatches(context.request.scratchDir, output.tree, output.changes, rewrites);
    }
}

/// Looks at the new files as they are on disk.
void requireSameSizes(const Context &context, const NewOutput &output) {
    std::set<uint32_t> written;
    for (const NodePatches &change : output.changes) {
        if (change.changesContents()) {
            written.insert(change.node);
        }
    }
    visitFiles(context.request.scratchDir, output.tree, [&](int dir, uint32_t node) {
        const OutputNode &file = output.tree.nodes[node];
        struct stat st;
        if (!written.contains(node)) {
            return;
        }
        if (!statAt(dir, file.name, st) || !S_ISREG(st.st_mode) || st.st_nlink != 1 ||
            static_cast<uint64_t>(st.st_size) != file.size) {
            throw Error(ErrorKind::bug, "rewriting store paths in '{}' has changed its size",
                        escapeForDisplay(output.tree.pathOf(node)));
        }
    });
}

void verify(const Context &context, const Decision &decision, OutputRepair &repair,
            const NewOutputs &outputs) {
    for (const NewOutput &output : outputs) {
        if (!output.changes.empty()) {
            requireSameSizes(context, output);
            repair.verify(rewriteOf(context, decision, output));
        }
    }
}

PathInfo describe(const Context &context, const ScanTargets &targets, const Decision &decision,
                  const NewOutput &output) {
    PathInfo info{.path = decision.finalPaths.at(output.name),
                  .narHash = output.nar.hash,
                  .narSize = output.nar.size,
                  .references = {},
                  .deriver = context.request.drvPath,
                  .registrationTime = time(nullptr),
                  .ultimate = true,
                  .signatures = {},
                  .contentAddress = {}};
    if (!discardsReferences(context, output.name)) {
        info.references = finalReferences(targets, decision, output.scan);
    }
    if (const auto *fixed = std::get_if<FixedOutput>(output.specification)) {
        info.contentAddress = fixed->address;
    } else if (auto found = decision.addresses.find(output.name); found != decision.addresses.end()) {
        // By every other Nix's rules it would be wrong.
        if (!decision.hasOwnAddress(output.name)) {
            info.contentAddress = found->second;
        }
    }
    return info;
}

Infos describeAll(const Context &context, const ScanTargets &targets, const Decision &decision,
                  const NewOutputs &outputs) {
    Infos infos;
    for (const NewOutput &output : outputs) {
        infos.emplace(output.name, describe(context, targets, decision, output));
    }
    return infos;
}

// ---- check

Hash fixedOutputHash(const Context &context, const NewOutput &output, const ContentAddress &promised) {
    switch (promised.method) {
    case ContentMethod::flat:
    case ContentMethod::text:
        requirePlainFile(context, output, promised.method);
        return *output.scan.contentsHash;
    case ContentMethod::git:
        requireGitObject(context, output);
        return hashGitObject(context.request.scratchDir, output.tree.root().name, promised.hash.algorithm());
    case ContentMethod::nar:
        break;
    }
    return output.scan.archiveHash ? *output.scan.archiveHash : output.nar.hash;
}

/// Nothing is rewritten in a fixed output: any reference, also to itself, is refused.
void checkFixedOutput(const Context &context, const NewOutput &output, const PathInfo &info) {
    const auto *fixed = std::get_if<FixedOutput>(output.specification);
    if (fixed == nullptr) {
        return;
    }
    if (!info.references.empty() || !output.changes.empty()) {
        rejectOutput(
            fmt::format("fixed output derivation '{}' is not allowed to refer to other store paths.\n"
                        "It refers to {} of them, e.g. '{}'. You may need to use the "
                        "'unsafeDiscardReferences' derivation attribute",
                        context.drv, std::max<size_t>(1, info.references.size()),
                        context.print(info.references.empty() ? info.path : *info.references.begin())));
    }
    Hash got = fixedOutputHash(context, output, fixed->address);
    if (got != fixed->address.hash) {
        std::string url =
            context.request.url.empty() ? "" : "\n  likely URL: " + escapeForDisplay(context.request.url);
        rejectOutput(
            fmt::format("hash mismatch in fixed-output derivation '{}':{}\n  specified: {}\n     got:    {}",
                        context.drv, url, fixed->address.hash.sri(), got.sri()));
    }
}

/// Paths of all outputs of the derivation, also of those that are not in the request.
std::map<std::string, StorePath> allOutputPaths(const Context &context, const Decision &decision) {
    std::map<std::string, StorePath> paths = decision.finalPaths;
    for (const auto &[name, specification] : context.request.derivation->outputs) {
        if (auto path = outputPath(context.store.dir(), *context.request.derivation, name)) {
            paths.emplace(name, *path);
        }
    }
    return paths;
}

void check(const Context &context, const Decision &decision, const NewOutputs &outputs, const Infos &infos) {
    for (const NewOutput &output : outputs) {
        checkFixedOutput(context, output, infos.at(output.name));
    }
    std::map<std::string, StorePath> paths = allOutputPaths(context, decision);
    auto readInfo = [&](const StorePath &path) { return context.store.queryPathInfo(path); };
    checkOutputs({context.store.dir(), context.options, paths, readInfo}, infos);
}

/// What was built here once more and came out the same is known at first hand.
void markUltimate(LocalStore &store, PathInfo &info) {
    if (!info.ultimate) {
        info.ultimate = true;
        store.sign(info);
        store.registerValidPaths({info});
    }
}

/// Has all outputs that are valid compared. Others are not registered. Throws where there is a refusal.
Infos compareWithValid(const Context &context, const NewOutputs &outputs, const Infos &made,
                       const BuildFailure *refusal) {
    Infos infos;
    std::vector<CheckedOutput> checked;
    for (const NewOutput &output : outputs) {
        const PathInfo &info = made.at(output.name);
        if (auto valid = context.store.tryQueryPathInfo(info.path)) {
            const PathInfo &known = infos.emplace(output.name, *valid).first->second;
            // What was looked at beside names and targets that are others now says nothing.
            bool asScanned = output.changes.empty() && info.path == output.scratch->finalPath;
            checked.push_back({output.name, known, info, context.request.scratchDir, output.tree,
                               output.changes, output.scan.heads,
                               asScanned ? output.untouched : std::shared_future<bool>()});
        }
    }
    context.request.judge->judge(checked, refusal);
    // Nobody minds what may differ.
    for (auto &[name, info] : infos) {
        if (info.narHash == made.at(name).narHash) {
            markUltimate(context.store, info);
        }
    }
    return infos;
}

// ---- register

std::vector<PathInfo> signedInfos(LocalStore &store, Infos &infos) {
    std::vector<PathInfo> list;
    for (auto &[name, info] : infos) {
        store.sign(info);
        list.push_back(info);
    }
    return list;
}

void optimise(const Context &context, const Infos &infos) {
    if (!context.store.settings().autoOptimiseStore) {
        return;
    }
    for (const auto &[name, info] : infos) {
        try {
            context.store.optimisePath(info.path);
        } catch (const Error &e) {
            // It is valid, only larger than it could be.
            context.logger.warn(fmt::format("optimising '{}': {}", context.print(info.path), e.message()));
        }
    }
}

/// Into place, to disk, into the database; or nothing of all that.
void registerAll(const Context &context, const NewOutputs &outputs, Infos &infos) {
    OutputPlacement placement(context.store);
    for (const NewOutput &output : outputs) {
        placement.place(context.request.scratchDir, output.tree.root().name, infos.at(output.name).path);
    }
    if (context.store.settings().syncBeforeRegistering) {
        sync();
    }
    context.store.registerValidPaths(signedInfos(context.store, infos));
    placement.commit();
    optimise(context, infos);
}

/// Whether somebody who waits for its removal notices it.
bool isSlowToRemove(const OutputTree &tree) {
    constexpr size_t many = 256;
    return tree.nodes.size() >= many ||
           std::ranges::any_of(tree.nodes, [](const OutputNode &node) { return node.size >= slowToFree; });
}

/// After success: scratch outputs of what was valid already, or was only compared, except `left`.
void removeScratch(const Context &context, const std::set<std::string> &left) {
    for (const auto &[name, output] : context.request.outputs) {
        const StorePath &path = output.scratchPath;
        if (left.contains(name)) {
            continue;
        }
        if (context.scratchInStore && context.store.isValidPath(path)) {
            continue; // it is the final path
        }
        try {
            removeTree(context.request.scratchDir, path.baseName());
        } catch (const Error &e) {
            context.logger.warn(
                fmt::format("removing the scratch output '{}': {}", context.print(path), e.message()));
        }
    }
}

// ---- adopt

/// What the output will be, of which nothing is rewritten on disk yet.
Hash narHashToBe(const Context &context, const Decision &decision, const NewOutput &output) {
    if (output.scan.nar) {
        return output.scan.nar->hash;
    }
    HashSink hash(HashAlgorithm::sha256);
    writePatchedNar(context.request.scratchDir, output.tree, output.changes, decision.rewrites, hash);
    return hash.current();
}

/// An address does not tell zeros from the output's own hash part, nor that of a plain file whether it is
/// executable, and anybody may import what an address fits.
void requireSameContents(const Context &context, const NewOutput &output, const PathInfo &valid,
                         const Hash &built) {
    if (valid.narHash == built) {
        return;
    }
    std::string path = context.print(valid.path);
    rejectOutput(fmt::format(
        "output '{}' of '{}' belongs at '{}', but that path is valid with other contents, which were built "
        "or imported by somebody else and have the same content address:\n  valid: {}\n  built: {}\n"
        "Nothing was recorded of this build. Delete the path ('nix-store --delete {}') and build again, or, "
        "as a trusted user, have it replaced by building with '--repair'",
        output.name, context.drv, path, valid.narHash.prefixed(Encoding::nix32),
        built.prefixed(Encoding::nix32), path));
}

/// Outputs whose computed path is valid already with the same contents are used as they are, whoever made
/// them. `builtHash` says what was built.
template<typename BuiltHash>
void adoptValid(const Context &context, const Decision &decision, NewOutputs &outputs, Infos &adopted,
                const BuiltHash &builtHash) {
    if (context.request.mode != BuildMode::normal) {
        return;
    }
    std::erase_if(outputs, [&](const NewOutput &output) {
        auto valid = decision.addresses.contains(output.name)
                         ? context.store.tryQueryPathInfo(decision.finalPaths.at(output.name))
                         : std::nullopt;
        if (valid) {
            requireSameContents(context, output, *valid, builtHash(output));
            adopted.emplace(output.name, *valid);
        }
        return valid.has_value();
    });
}

} // namespace

struct OutputRegistration::Impl {
    Context context;
    OutputRepair &repair;
    Infos alreadyValid{}, made{};
    NewOutputs outputs{};
    Decision decision{};
    std::optional<BuildFailure> refusal{}; ///< under check: told once it was compared
    std::set<std::string> slowToRemove{};  ///< outputs, those of which nothing is known among them

    void prepare();
    void checkOrRemember(const Infos &infos);
    Infos finish();
};

void OutputRegistration::Impl::prepare() {
    alreadyValid = alreadyValidOutputs(context);
    outputs = collect(context, alreadyValid);
    for (const auto &[name, info] : alreadyValid) {
        slowToRemove.insert(name);
    }
    for (const NewOutput &output : outputs) {
        if (isSlowToRemove(output.tree)) {
            slowToRemove.insert(output.name);
        }
    }
    // Everything is canonical and ours.
    ScanTargets targets = scanTargets(context);
    scan(context, targets, repair, outputs);
    outputs = orderOutputs(context, targets, std::move(outputs));
    decision = decideOutputs(context, targets, repair, outputs);
    fixupMachoPageHashes(context, decision, repair, outputs);
    // It is known which bytes will be in the store.
    Infos adopted;
    adoptValid(context, decision, outputs, adopted,
               [&](const NewOutput &output) { return narHashToBe(context, decision, output); });
    apply(context, decision.rewrites, outputs);
    verify(context, decision, repair, outputs);
    // They are on disk, nothing below the scratch paths changes any more, and their hashes are known.
    made = describeAll(context, targets, decision, outputs);
    Infos all = made;
    all.insert(adopted.begin(), adopted.end());
    checkOrRemember(all);
    alreadyValid.merge(adopted);
}

/// What may not be an output differs, mostly, from what is one: under check nothing is registered, and where
/// it differs is to be told as well.
void OutputRegistration::Impl::checkOrRemember(const Infos &infos) {
    try {
        check(context, decision, outputs, infos);
    } catch (const BuildFailure &failure) {
        if (context.request.mode != BuildMode::check) {
            throw;
        }
        refusal = failure;
    }
}

Infos OutputRegistration::Impl::finish() {
    // Somebody else may have made the same meanwhile.
    adoptValid(context, decision, outputs, alreadyValid,
               [](const NewOutput &output) { return output.nar.hash; });
    for (const auto &[name, info] : alreadyValid) {
        made.erase(name);
    }
    if (context.request.mode == BuildMode::check) {
        made = compareWithValid(context, outputs, made, refusal ? &*refusal : nullptr);
    } else if (!outputs.empty()) {
        registerAll(context, outputs, made);
    }
    removeScratch(context, slowToRemove);
    made.merge(alreadyValid);
    return std::move(made);
}

AddressForms OutputRepair::formsForAddress(const OutputRewrite &, const StorePath &) {
    return {};
}

OutputRegistration::OutputRegistration(LocalStore &store, Logger &logger, const RegistrationRequest &request,
                                       OutputRepair &repair)
    : impl_(new Impl{{store, logger, request}, repair}) {}

OutputRegistration::~OutputRegistration() = default;

void OutputRegistration::prepare() {
    impl_->prepare();
}

StorePathSet OutputRegistration::pathsToLock() const {
    StorePathSet paths;
    for (const NewOutput &output : impl_->outputs) {
        bool isMade = impl_->context.request.mode != BuildMode::check;
        if (isMade && impl_->decision.addresses.contains(output.name)) {
            paths.insert(impl_->decision.finalPaths.at(output.name));
        }
    }
    return paths;
}

std::map<std::string, PathInfo> OutputRegistration::finish() {
    return impl_->finish();
}

std::map<std::string, PathInfo> registerOutputs(LocalStore &store, Logger &logger,
                                                const RegistrationRequest &request, OutputRepair &repair) {
    OutputRegistration registration(store, logger, request, repair);
    registration.prepare();
    PathLocks locks = PathLocks::lock(store.storeFd(), lockNames(registration.pathsToLock()));
    locks.setDeletion(true);
    return registration.finish();
}

} // namespace firn
