#include "libstore/build/derivation-goal.hh"

#include <algorithm>

#include "libstore/build/build-plan.hh"
#include "libstore/build/builtin-builder.hh"
#include "libstore/build/derivation-builder.hh"
#include "libstore/build/failure-message.hh"
#include "libstore/build/register-outputs.hh"
#include "libstore/build/resolution.hh"
#include "libstore/build/worker.hh"
#include "libstore/store/features.hh"
#include "libutil/descriptor-limit.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/nar.hh"

namespace firn {

namespace {

using Status = BuildResult::Status;

std::set<std::string> lockNames(const BuildPlan &plan) {
    std::set<std::string> names;
    for (const auto &[name, output] : plan.outputs) {
        // What is not known yet cannot be locked: then whoever builds the same derivation is kept out.
        names.insert(output.promised ? output.path->baseName() + ".lock"
                                     : plan.drvPath.baseName() + "." + name + ".lock");
    }
    return names;
}

/// What was waited for: permission to build, and the outputs' locks, which are given back first.
struct Turn {
    BuildPermit permit;
    PathLocks locks;
};

/// Whether what the database says of a path is what is there.
bool contentsAreGood(LocalStore &store, const StorePath &path) {
    std::optional<PathInfo> info = store.tryQueryPathInfo(path);
    if (!info || !existsAt(store.storeFd(), path.baseName())) {
        return false;
    }
    try {
        HashAndSize actual = hashNar(store.storeFd(), path.baseName(), info->narHash.algorithm());
        return actual.hash == info->narHash;
    } catch (const SysError &) {
        return false; // nobody can read it
    } catch (const Error &error) {
        if (error.kind() != ErrorKind::badInput) {
            throw;
        }
        return false; // of a type that no archive holds
    }
}

/// Nobody waits for a slot while holding an output lock, nor for a lock while holding a slot.
Task<Turn> awaitTurn(BuildWorker &worker, const BuildPlan &plan) {
    std::set<std::string> names = lockNames(plan);
    std::unique_ptr<Activity> waiting;
    for (PollTimes polls;;) {
        std::optional<BuildPermit> permit(co_await worker.acquirePermit());
        if (std::optional<PathLocks> locks = PathLocks::tryLock(worker.store.storeFd(), names)) {
            co_return Turn{std::move(*permit), std::move(*locks)};
        }
        permit.reset();
        if (!waiting) {
            waiting = worker.showLockWait(plan.drvPath);
        }
        Clock::time_point next = polls.next();
        co_await worker.loop.sleepUntil(next);
    }
}

} // namespace

/// Waits for many goals at once; over as soon as one fails, unless all are to be tried.
struct DerivationGoal::Inputs {
    explicit Inputs(EventLoop &loop) : over(loop) {}
    Event over;
    size_t pending = 0, failed = 0;
    bool lackedDescriptors = false; ///< one that failed
    /// Of outputs that were told of: derivation → output → path.
    std::map<StorePath, std::map<std::string, StorePath>> paths;
    /// The derivations that had to be made: as they were needed → as they came out.
    std::map<BuiltPath, StorePath> made;

    const StorePath &derivation(const BuiltPath &needed) const {
        return needed.through.empty() ? needed.drvPath : made.at(needed);
    }
};

DerivationGoal::DerivationGoal(BuildWorker &worker, StorePath drvPath, std::set<std::string> wanted,
                               BuildMode mode, std::map<std::string, StorePath> recorded)
    : worker_(worker),
      drvPath_(std::move(drvPath)),
      mode_(mode),
      recorded_(std::move(recorded)),
      done_(worker.loop) {
    if (!wanted.empty()) {
        wanted_ = std::move(wanted);
    }
}

DerivationGoal::DerivationGoal(BuildWorker &worker, StorePath drvPath, const BasicDerivation &drv,
                               BuildMode mode)
    : worker_(worker),
      drvPath_(std::move(drvPath)),
      mode_(mode),
      derivation_(std::in_place),
      done_(worker.loop) {
    static_cast<BasicDerivation &>(*derivation_) = drv;
}

DerivationGoal::~DerivationGoal() = default;

void DerivationGoal::want(const std::set<std::string> &outputs, bool asDependency) {
    isDependency_ = isDependency_ || asDependency;
    if (decided_ || !wanted_) {
        return;
    }
    if (outputs.empty()) {
        wanted_.reset();
    } else {
        wanted_->insert(outputs.begin(), outputs.end());
    }
}

bool DerivationGoal::covers(const std::set<std::string> &outputs) const {
    if (!wanted_ || result_.status == Status::built) {
        return true;
    }
    return !outputs.empty() && std::ranges::includes(*wanted_, outputs);
}

Task<> DerivationGoal::run() {
    BuildResult failure;
    try {
        co_await tryRun();
        co_return;
    } catch (const BuildFailure &error) {
        failure.status = error.status();
        failure.errorMessage = error.message();
    } catch (const Error &error) {
        if (error.kind() == ErrorKind::interrupted || error.kind() == ErrorKind::bug) {
            throw;
        }
        failure.status = Status::miscFailure;
        failure.errorMessage = error.message();
        const auto *system = dynamic_cast<const SysError *>(&error);
        if (system && isLackOfDescriptors(system->number())) {
            failure.lackedDescriptors = true;
            failure.errorMessage += ". " + descriptorRemedy();
        }
    }
    failure.lackedDescriptors = failure.lackedDescriptors || (inputs_ && inputs_->lackedDescriptors);
    failure.startTime = result_.startTime;
    failure.stopTime = result_.stopTime;
    failure.cpuUser = result_.cpuUser;
    failure.cpuSystem = result_.cpuSystem;
    finish(failure);
}

void DerivationGoal::finish(BuildResult result) {
    decided_ = true;
    result_ = std::move(result);
    if (!result_.success() && isDependency_) {
        worker_.context.logger.log(Verbosity::error, "error: " + result_.errorMessage);
    }
    done_.set();
}

Task<> DerivationGoal::tryRun() {
    loadDerivation();
    findOutputs();
    decided_ = true;
    if (isSatisfied()) {
        result_.status = Status::alreadyValid;
        describeValid();
        finish(result_);
        co_return;
    }
    co_await buildInputs();
    if (mustResolve()) {
        co_await buildResolved();
    } else {
        checkSources();
        checkPlatform();
        co_await buildLocally();
    }
    // Everything is released by now.
    finish(result_);
}

void DerivationGoal::loadDerivation() {
    LocalStore &store = worker_.store;
    store.addTempRoot(drvPath_);
    if (!derivation_) {
        if (!store.isValidPath(drvPath_)) {
            throw Error(ErrorKind::notFound, "cannot build missing derivation '{}'",
                        store.dir().print(drvPath_));
        }
        derivation_ = store.readDerivation(drvPath_);
    }
    kind_ = derivationKind(*derivation_);
    requireFeaturesFor(worker_.context.settings, *derivation_);
    if (kind_ == DerivationKind::impure || keepsRealisations()) {
        DerivationHashes hashes = worker_.hasher().hashes(*derivation_, /*maskOutputs=*/true);
        ids_ = std::move(hashes.outputs);
        ambiguousIds_ = hashes.ambiguous;
    }
    plan_ = std::make_unique<BuildPlan>(BuildPlan{drvPath_, std::move(*derivation_), {}, mode_, {}, {}});
}

/// As stock Nix does where it may: those of every derivation, so that a copy of one takes them along.
bool DerivationGoal::keepsRealisations() const {
    return kind_ != DerivationKind::impure &&
           worker_.context.settings.experimentalFeatures.contains("ca-derivations");
}

/// Where an output whose path nothing promises came to lie before. An impure one is always made anew.
std::optional<StorePath> DerivationGoal::recordedPath(const std::string &name) const {
    if (kind_ == DerivationKind::impure) {
        return std::nullopt;
    }
    if (auto found = recorded_.find(name); found != recorded_.end()) {
        return found->second;
    }
    if (ambiguousIds_ && mode_ != BuildMode::check) {
        return std::nullopt; // it may be another derivation's; what this one resolves to is known better
    }
    std::optional<Realisation> known = worker_.store.queryRealisation(DrvOutput{ids_.at(name), name});
    return known ? std::optional(known->outPath) : std::nullopt;
}

void DerivationGoal::findOutputs() {
    LocalStore &store = worker_.store;
    plan_->outputs.clear();
    for (const auto &[name, specification] : plan_->derivation.outputs) {
        BuildPlan::Output output{outputPath(store.dir(), plan_->derivation, name)};
        output.promised = output.path.has_value();
        if (!output.path) {
            output.path = recordedPath(name);
        }
        if (output.path) {
            store.addTempRoot(*output.path);
            output.valid = store.isValidPath(*output.path) &&
                           (mode_ != BuildMode::repair || contentsAreGood(store, *output.path));
        }
        plan_->outputs.emplace(name, output);
    }
    for (const std::string &name : wantedOutputs()) {
        if (!plan_->outputs.contains(name)) {
            throw Error(ErrorKind::notFound, "derivation '{}' does not have wanted output '{}'",
                        store.dir().print(drvPath_), escapeForDisplay(name));
        }
    }
}

std::set<std::string> DerivationGoal::wantedOutputs() const {
    if (wanted_) {
        return *wanted_;
    }
    std::set<std::string> all;
    for (const auto &[name, output] : plan_->outputs) {
        all.insert(name);
    }
    return all;
}

bool DerivationGoal::isSatisfied() {
    std::set<std::string> wanted = wantedOutputs();
    bool allValid =
        std::ranges::all_of(wanted, [&](const std::string &name) { return plan_->outputs.at(name).valid; });
    if (mode_ == BuildMode::check && !allValid) {
        throw Error(ErrorKind::failure, "some outputs of '{}' are not valid, so checking is not possible{}",
                    worker_.store.dir().print(drvPath_),
                    kind_ == DerivationKind::impure
                        ? ": the derivation is impure, which has its outputs made anew, at other paths, by "
                          "every build, and none of them is one to compare with"
                        : "");
    }
    return allValid && mode_ != BuildMode::check;
}

/// Whatever comes of it is told to the others by `inputs`.
Task<> DerivationGoal::buildInput(BuildWorker &worker, std::shared_ptr<Inputs> inputs, BuiltPath needed,
                                  std::optional<WaitGraph::Node> waiter) {
    BuildResult result;
    try {
        StorePath drvPath = co_await worker.makeDerivation(needed.drvPath, needed.through, waiter);
        BuildRequest request{
            .drvPath = drvPath, .outputs = needed.outputs, .isDependency = true, .waiter = waiter};
        result = co_await worker.build(request);
        for (const auto &[name, realisation] : result.builtOutputs) {
            inputs->paths[drvPath].emplace(name, realisation.outPath);
        }
        inputs->made.emplace(needed, drvPath);
    } catch (const Error &error) {
        if (error.kind() == ErrorKind::interrupted || error.kind() == ErrorKind::bug) {
            throw;
        }
        worker.context.logger.log(Verbosity::error, "error: " + error.message());
        const auto *failure = dynamic_cast<const BuildFailure *>(&error);
        result.lackedDescriptors = failure && failure->lackedDescriptors();
    }
    inputs->failed += result.success() ? 0 : 1;
    inputs->lackedDescriptors = inputs->lackedDescriptors || result.lackedDescriptors;
    inputs->pending--;
    if (inputs->pending == 0 || (inputs->failed > 0 && !worker.context.settings.keepGoing)) {
        inputs->over.set();
    }
}

Task<> DerivationGoal::buildInputs() {
    refuseImpureInputs();
    auto inputs = std::make_shared<Inputs>(worker_.loop);
    inputs_ = inputs;
    std::vector<BuiltPath> needed = neededOutputs(plan_->derivation);
    inputs->pending = needed.size();
    for (const BuiltPath &input : needed) {
        worker_.loop.spawn([&worker = worker_, inputs, input, waiter = node()] {
            return buildInput(worker, inputs, input, waiter);
        });
    }
    if (inputs->pending > 0) {
        co_await inputs->over.wait();
    }
    if (inputs->failed > 0) {
        std::vector<StorePath> outputs = plan_->outputPaths();
        throw BuildFailure(Status::dependencyFailed,
                           dependencyFailureMessage(worker_.context, {drvPath_, outputs}, inputs->failed));
    }
}

void DerivationGoal::refuseImpureInputs() const {
    if (mayHaveImpureInputs()) {
        return;
    }
    for (const auto &[path, input] : plan_->derivation.inputDerivations) {
        refuseImpureInput(path, worker_.store.readDerivation(path));
    }
}

bool DerivationGoal::mayHaveImpureInputs() const {
    return kind_ == DerivationKind::impure || kind_ == DerivationKind::fixed ||
           !worker_.context.settings.experimentalFeatures.contains("impure-derivations");
}

/// What is made anew at every turn would be in outputs that are made but once.
void DerivationGoal::refuseImpureInput(const StorePath &path, const Derivation &drv) const {
    const StoreDir &dir = worker_.store.dir();
    if (!mayHaveImpureInputs() && drv.isImpure()) {
        throw Error(ErrorKind::failure, "pure derivation '{}' depends on impure derivation '{}'",
                    dir.print(drvPath_), dir.print(path));
    }
}

/// Of an input that was built.
StorePath DerivationGoal::inputPath(const StorePath &drvPath, const Derivation &drv,
                                    const std::string &name) const {
    LocalStore &store = worker_.store;
    if (std::optional<StorePath> path = outputPath(store.dir(), drv, name)) {
        return *path;
    }
    auto told = inputs_->paths.find(drvPath);
    if (told != inputs_->paths.end() && told->second.contains(name)) {
        return told->second.at(name);
    }
    throw Error(ErrorKind::notFound, "it is not known where output '{}' of '{}', which '{}' needs, lies",
                escapeForDisplay(name), store.dir().print(drvPath), store.dir().print(drvPath_));
}

bool DerivationGoal::mustResolve() const {
    const auto &inputs = plan_->derivation.inputDerivations;
    if (plan_->derivation.hasDynamicInputs()) {
        return true;
    }
    switch (kind_) {
    case DerivationKind::inputAddressed:
        return false;
    case DerivationKind::fixed:
        return std::ranges::any_of(inputs, [&](const auto &input) {
            return !worker_.store.readDerivation(input.first).hasKnownOutputPaths();
        });
    case DerivationKind::deferred:
        return true;
    case DerivationKind::floating:
    case DerivationKind::impure:
        break;
    }
    return !inputs.empty();
}

Derivation DerivationGoal::resolve() const {
    LocalStore &store = worker_.store;
    InputPaths paths;
    for (const BuiltPath &needed : neededOutputs(plan_->derivation)) {
        const StorePath &drvPath = inputs_->derivation(needed);
        Derivation drv = store.readDerivation(drvPath);
        refuseImpureInput(drvPath, drv);
        for (const std::string &name : needed.outputs) {
            paths.emplace(BuiltPath{needed.drvPath, {name}, needed.through}, inputPath(drvPath, drv, name));
        }
    }
    return resolveDerivation(store.dir(), worker_.hasher(), plan_->derivation, paths);
}

/// Its outputs are those of the resolved derivation, which is built like any other.
Task<> DerivationGoal::buildResolved() {
    LocalStore &store = worker_.store;
    Derivation resolved = resolve();
    StorePath path = store.addDerivation(resolved);
    worker_.context.logger.log(Verbosity::talkative,
                               fmt::format("resolved derivation: '{}' => '{}'", store.dir().print(drvPath_),
                                           store.dir().print(path)));
    std::map<std::string, StorePath> recorded;
    for (const auto &[name, output] : plan_->outputs) {
        if (output.valid) {
            recorded.emplace(name, *output.path);
        }
    }
    if (mode_ != BuildMode::check) {
        recorded.clear();
    }
    std::set<std::string> wanted = wantedOutputs();
    BuildRequest request{
        .drvPath = path, .outputs = wanted, .mode = mode_, .recorded = recorded, .waiter = node()};
    BuildResult built = co_await worker_.build(request);
    std::map<std::string, StorePath> paths;
    for (const auto &[name, realisation] : built.builtOutputs) {
        paths.emplace(name, realisation.outPath);
    }
    result_ = std::move(built);
    if (!result_.success()) {
        throw BuildFailure(result_.status, result_.errorMessage);
    }
    if (result_.status == Status::alreadyValid) {
        result_.status = Status::resolvesToAlreadyValid;
    }
    requireRepaired(paths);
    describe(paths);
}

/// Tells the client, and the store, what the outputs turned out to be.
void DerivationGoal::describe(const std::map<std::string, StorePath> &paths) {
    result_.builtOutputs.clear();
    if (ids_.empty()) {
        return;
    }
    for (const auto &[name, path] : paths) {
        Realisation realisation{DrvOutput{ids_.at(name), name}, path, {}, {}};
        if (keepsRealisations()) {
            realisation = worker_.record(realisation.id, path);
            refuseOtherRealisation(realisation, path);
        }
        if (plan_->outputs.at(name).promised) {
            realisation.outPath = path;
        }
        result_.builtOutputs.emplace(name, realisation);
    }
}

/// What is damaged where it was recorded stays so if it is made somewhere else.
void DerivationGoal::requireRepaired(const std::map<std::string, StorePath> &paths) const {
    const StoreDir &dir = worker_.store.dir();
    for (const auto &[name, path] : paths) {
        const BuildPlan::Output &known = plan_->outputs.at(name);
        if (mode_ != BuildMode::repair || known.valid || !known.path || *known.path == path) {
            continue;
        }
        throw BuildFailure(
            Status::notDeterministic,
            fmt::format(
                "cannot repair '{0}': derivation '{1}' may not be deterministic, as its output '{2}' came "
                "out with other contents, at '{3}'. '{0}' stays damaged. Delete it, and what refers to "
                "it ('nix-store --delete {0}'), and build again",
                dir.print(*known.path), dir.print(drvPath_), name, dir.print(path)));
    }
}

/// Where the identity says less than the derivation does, the path under it may be somebody else's choice.
void DerivationGoal::refuseOtherRealisation(const Realisation &known, const StorePath &path) const {
    if (!ambiguousIds_ || known.outPath == path) {
        return;
    }
    const StoreDir &dir = worker_.store.dir();
    throw Error(
        ErrorKind::failure,
        "output '{0}' of '{1}' was built now as '{2}', but is known to be '{3}'. Outputs are known by a "
        "hash that does not tell which derivations are made for this one, so that may be what another "
        "derivation built. Delete it ('nix-store --delete {3}') and build again",
        known.id.outputName, dir.print(drvPath_), dir.print(path), dir.print(known.outPath));
}

void DerivationGoal::describeValid() {
    std::map<std::string, StorePath> paths;
    for (const auto &[name, output] : plan_->outputs) {
        if (output.valid) {
            paths.emplace(name, *output.path);
        }
    }
    describe(paths);
}

/// Also finds what the builder may see. Inputs that were built by now stay: they have temporary roots.
void DerivationGoal::checkSources() {
    LocalStore &store = worker_.store;
    StorePathSet inputs = plan_->derivation.inputSources;
    for (const StorePath &path : inputs) {
        store.addTempRoot(path);
        if (!store.isValidPath(path)) {
            throw Error(ErrorKind::notFound,
                        "dependency '{}' of '{}' does not exist, and substitution is disabled",
                        store.dir().print(path), store.dir().print(drvPath_));
        }
    }
    for (const auto &[drvPath, input] : plan_->derivation.inputDerivations) {
        Derivation drv = store.readDerivation(drvPath);
        for (const std::string &name : input.outputs) {
            std::optional<StorePath> path = outputPath(store.dir(), drv, name);
            if (!path) {
                throw Error(ErrorKind::bug, "output '{}' of input '{}' has no path", name,
                            store.dir().print(drvPath));
            }
            inputs.insert(*path);
        }
    }
    plan_->inputClosure = store.computeClosure(inputs);
}

void DerivationGoal::checkBuiltin() const {
    if (std::optional<std::string> reason = refuseBuiltin(plan_->derivation)) {
        std::vector<StorePath> outputs = plan_->outputPaths();
        throw BuildFailure(Status::inputRejected,
                           builderFailureMessage(worker_.context, {drvPath_, outputs}, *reason, {}));
    }
}

void DerivationGoal::checkPlatform() const {
    const Settings &settings = worker_.context.settings;
    plan_->options = readDerivationOptions(plan_->derivation);
    const std::string &platform = plan_->derivation.platform;
    const StringSet &required = plan_->options.requiredSystemFeatures;
    bool rightPlatform = platform == settings.system || settings.extraPlatforms.contains(platform) ||
                         plan_->derivation.isBuiltin(); // which is ours, whatever it calls its system
    if (!rightPlatform || !std::ranges::includes(settings.systemFeatures, required)) {
        throw BuildFailure(Status::inputRejected,
                           platformMessage(worker_.context, drvPath_, platform, required));
    }
    if (plan_->derivation.isBuiltin()) {
        checkBuiltin();
    }
    if (settings.maxJobs == 0) {
        throw Error(ErrorKind::failure,
                    "unable to start any build; either increase '--max-jobs' or enable remote "
                    "builds (local builds are disabled: max-jobs is 0)");
    }
}

/// Somebody else may have built it while we waited.
bool DerivationGoal::tryFinishWithoutBuild() {
    findOutputs();
    if (mode_ == BuildMode::check || !isSatisfied()) {
        return false;
    }
    result_.status = Status::alreadyValid;
    describeValid();
    return true;
}

Task<> DerivationGoal::buildLocally() {
    worker_.counts.expected++;
    worker_.showProgress();
    ScopeExit uncount([this] {
        worker_.counts.expected--;
        worker_.showProgress();
    });
    Turn turn = co_await awaitTurn(worker_, *plan_);
    // With the locks held nobody else makes or needs these lock files' names.
    turn.locks.setDeletion(true);
    if (!tryFinishWithoutBuild()) {
        co_await buildWithLocks(turn.permit.slot);
    }
}

Task<> DerivationGoal::buildWithLocks(const SlotLease &slot) {
    worker_.counts.running++;
    worker_.showProgress();
    ScopeExit uncount([this] {
        worker_.counts.running--;
        worker_.counts.failed += result_.success() ? 0 : 1;
        worker_.showProgress();
    });
    OutputInfos infos;
    uint64_t rounds = mode_ == BuildMode::check ? 1 + uint64_t{worker_.context.settings.checkRepeat} : 1;
    for (uint64_t round = 0; round < rounds; ++round) {
        DerivationBuilder builder(worker_, *plan_, slot, result_);
        infos = co_await builder.run();
        result_.timesBuilt = round + 1;
    }
    std::map<std::string, StorePath> paths;
    for (const auto &[name, info] : infos) {
        paths.emplace(name, info.path);
    }
    requireRepaired(paths);
    describe(paths);
    worker_.counts.done++;
    result_.status = Status::built;
}

} // namespace firn
