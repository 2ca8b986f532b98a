#include "libstore/build/worker.hh"

#include <algorithm>
#include <thread>

#include <boost/asio/post.hpp>

#include "libstore/build/derivation-goal.hh"
#include "libstore/build/helper-program.hh"
#include "libstore/store/features.hh"
#include "libutil/error.hh"
#include "libutil/hang-up-watch.hh"

namespace firn {

namespace {

constexpr auto firstPoll = std::chrono::milliseconds(5);
constexpr auto longestPoll = std::chrono::milliseconds(200);

/// The listener has decided it from nix.conf before a client could say anything.
unsigned machineSlots(const Settings &settings) {
    return std::max(settings.machineMaxJobs, 1u);
}

/// For the mechanism stateDirectory. Opened by its path, the directory need not be the one that was tried
/// out, so what holds for it is asked again, and put into the choice; that is known already if it lies on the
/// same file system.
std::unique_ptr<BuildDirectories> openStateDirectory(ExecChoice &choice, const Locations &locations,
                                                     const Settings &settings) {
    auto made = std::make_unique<BuildDirectories>(choice.base);
    ExecChoice now = chooseExecMechanism(*made, "", locations, settings, sandboxInitProgram());
    if (now.mechanism != ExecMechanism::direct) {
        throw Error(
            ErrorKind::failure,
            "programs could be executed in '{}' a moment ago, and not in what is there now: try again",
            choice.base.string());
    }
    choice.view = now.view;
    return made;
}

} // namespace

BuildWorker::BuildWorker(BuildContext &buildContext)
    : context(buildContext),
      store(buildContext.store),
      slots_(store.locations().stateDir, machineSlots(buildContext.settings)),
      jobs_(loop, std::max(buildContext.settings.maxJobs, 1u)),
      hasher_(store.dir(), store),
      realiseActivity_(buildContext.logger, Verbosity::error, ActivityType::realise, ""),
      buildsActivity_(buildContext.logger, Verbosity::error, ActivityType::builds, ""),
      waits_(store.dir()) {
    slots_.setClient(buildContext.clientPid);
}

BuildWorker::~BuildWorker() = default;

Task<BuildResult> BuildWorker::build(BuildRequest request) {
    GoalKey key(request.drvPath, request.mode);
    for (;;) {
        auto found = goals_.find(key);
        if (found == goals_.end()) {
            start(key, std::make_shared<DerivationGoal>(*this, request.drvPath, request.outputs, request.mode,
                                                        request.recorded));
            found = goals_.find(key);
        }
        std::shared_ptr<DerivationGoal> goal = found->second;
        goal->want(request.outputs, request.isDependency);
        co_await awaitGoal(goal, request.waiter);
        if (!goal->result().success() || goal->covers(request.outputs)) {
            co_return goal->result();
        }
        // It ended before it heard of these outputs: another goal takes its place.
        found = goals_.find(key);
        if (found != goals_.end() && found->second == goal) {
            goals_.erase(found);
        }
    }
}

Task<> BuildWorker::awaitGoal(std::shared_ptr<DerivationGoal> goal, std::optional<WaitGraph::Node> waiter) {
    if (!waiter) {
        co_await goal->done().wait();
        co_return;
    }
    WaitGraph::Wait wait(waits_, *waiter, GoalKey(goal->drvPath(), goal->mode()));
    endIfStuck();
    co_await goal->done().wait();
}

Task<> BuildWorker::runGoal(GoalKey key, std::shared_ptr<DerivationGoal> goal) {
    unfinishedGoals_++;
    co_await goal->run();
    unfinishedGoals_--;
    waits_.end(key);
    endIfStuck();
}

/// Goals that wait for each other would do so for ever.
void BuildWorker::endIfStuck() {
    if (waits_.isStuck()) {
        loop.spawn([circle = waits_.describeCircle()] { return fail(circle); });
    }
}

Task<> BuildWorker::fail(std::string message) {
    throw Error(ErrorKind::failure, "{}", message);
    co_return;
}

Task<StorePath> BuildWorker::makeDerivation(StorePath drvPath, std::vector<std::string> through,
                                            std::optional<WaitGraph::Node> waiter) {
    if (!through.empty()) {
        requireFeature(context.settings, "dynamic-derivations");
    }
    for (const std::string &name : through) {
        BuildRequest request{.drvPath = drvPath, .outputs = {name}, .isDependency = true, .waiter = waiter};
        BuildResult result = co_await build(request);
        if (!result.success()) {
            throw BuildFailure(BuildResult::Status::dependencyFailed,
                               fmt::format("cannot make a derivation: output '{}' of '{}' could not be built",
                                           name, store.dir().print(drvPath)),
                               result.lackedDescriptors);
        }
        drvPath = madeDerivation(drvPath, name, result);
    }
    co_return drvPath;
}

/// Where an output lies that was built, and is to be built in turn.
StorePath BuildWorker::madeDerivation(const StorePath &drvPath, const std::string &name,
                                      const BuildResult &result) {
    auto told = result.builtOutputs.find(name);
    std::optional<StorePath> path = told != result.builtOutputs.end()
                                        ? std::optional(told->second.outPath)
                                        : outputPath(store.dir(), store.readDerivation(drvPath), name);
    if (!path || !path->isDerivation()) {
        throw BuildFailure(
            BuildResult::Status::dependencyFailed,
            fmt::format(
                "cannot build outputs of '{}^{}': what was made is '{}', which is not a derivation (its "
                "name does not end in '.drv')",
                store.dir().print(drvPath), name, path ? store.dir().print(*path) : "not known"));
    }
    return *path;
}

void BuildWorker::addGoal(std::shared_ptr<DerivationGoal> goal) {
    GoalKey key(goal->drvPath(), goal->mode());
    start(key, std::move(goal));
}

void BuildWorker::start(const GoalKey &key, std::shared_ptr<DerivationGoal> goal) {
    goals_.insert_or_assign(key, goal);
    waits_.begin(key);
    loop.spawn([this, key, goal] { return runGoal(key, goal); });
}

void BuildWorker::run() {
    HangUpWatch watch(context.clientFd, [this] {
        boost::asio::post(loop.context(), [this] {
            hungUp_ = true;
            loop.stop("the client has gone away");
        });
    });
    loop.run();
    if (hungUp_) {
        throw Error(ErrorKind::interrupted, "the client has gone away");
    }
}

void BuildWorker::endUnlessKeepGoing(const BuildResult &result) {
    if (!result.success() && !result.lackedDescriptors && !context.settings.keepGoing) {
        loop.stop("another build failed");
    }
}

/// Slots of other connections are only seen by trying. Just as many coroutines try as this connection may
/// have jobs.
Task<BuildPermit> BuildWorker::acquirePermit() {
    Semaphore::Permit job = co_await jobs_.acquire();
    for (PollTimes polls(firstPoll, longestPoll);;) {
        if (std::optional<SlotLease> slot = slots_.tryAcquire()) {
            co_return BuildPermit{std::move(job), std::move(*slot)};
        }
        Clock::time_point next = polls.next();
        co_await loop.sleepUntil(next);
    }
}

std::unique_ptr<Activity> BuildWorker::showLockWait(const StorePath &drvPath) const {
    return std::make_unique<Activity>(
        context.logger, Verbosity::warning, ActivityType::buildWaiting,
        fmt::format("waiting for lock on the outputs of '{}'", store.dir().print(drvPath)));
}

BuildDirectories &BuildWorker::directories() {
    if (!directories_) {
        BuildDirectoryBase base = BuildDirectories::findBase(store.locations(), context.settings);
        auto made =
            std::make_unique<BuildDirectories>(base.path, BuildDirectories::Sweep::yes, &store.locations());
        execChoice_ = chooseExecMechanism(*made, base.origin, store.locations(), context.settings,
                                          sandboxInitProgram());
        if (!execChoice_.warning.empty()) {
            context.logger.warn(execChoice_.warning);
        }
        if (execChoice_.mechanism == ExecMechanism::stateDirectory) {
            made = openStateDirectory(execChoice_, store.locations(), context.settings);
        }
        directories_ = std::move(made);
    }
    return *directories_;
}

/// What lies at the directory's path may be another file system by now, or be mounted in another way. The
/// open directory is what counts.
const ExecChoice &BuildWorker::execChoiceFor(const BuildDirectory &directory) {
    if (viewOf(directory.fd()) != execChoice_.view) {
        throw Error(ErrorKind::failure,
                    "the file system of build directory '{}' is another one, or mounted in another way, than "
                    "when the first build of this request began: try again",
                    directory.path().string());
    }
    return execChoice_;
}

/// One that somebody has ended since it was started is of no use.
StartedSandbox BuildWorker::takeSandbox() {
    if (!nextSandbox_ || nextSandbox_->process.poll()) {
        nextSandbox_.emplace(startSandbox(sandboxInitProgram()));
    }
    StartedSandbox taken = std::move(*nextSandbox_);
    nextSandbox_.reset();
    return taken;
}

/// Where this cannot be done now, the next build tries again and tells.
void BuildWorker::startSandboxAhead() {
    if (!nextSandbox_ && unfinishedGoals_ > counts.running) {
        try {
            nextSandbox_.emplace(startSandbox(sandboxInitProgram()));
        } catch (const SysError &) {
        }
    }
}

void BuildWorker::addRealisations(const Derivation &drv, const std::set<std::string> &wanted,
                                  BuildResult &result) {
    if (result.builtOutputs.empty()) {
        for (const auto &[name, hash] : outputIds(drv)) {
            if (std::optional<StorePath> path = outputPath(store.dir(), drv, name)) {
                result.builtOutputs.emplace(name, Realisation{DrvOutput{hash, name}, *path, {}, {}});
            }
        }
    }
    std::erase_if(result.builtOutputs,
                  [&](const auto &output) { return !wanted.empty() && !wanted.contains(output.first); });
}

std::map<std::string, Hash> BuildWorker::outputIds(const Derivation &drv) {
    return hasher_.outputHashes(drv, /*maskOutputs=*/true);
}

Realisation BuildWorker::record(const DrvOutput &id, const StorePath &path) {
    std::optional<Realisation> known = store.queryRealisation(id);
    if (!known) {
        Realisation realisation{id, path, {}, {}};
        store.sign(realisation);
        known = store.recordRealisation(realisation); // another process may have been first
    }
    if (known->outPath != path) {
        context.logger.warn(fmt::format("'{}' is known to be '{}' already; what was built now is '{}'",
                                        id.print(), store.dir().print(known->outPath),
                                        store.dir().print(path)));
    }
    return std::move(*known);
}

void BuildWorker::showProgress() {
    buildsActivity_.progress(counts.done, counts.expected + counts.done, counts.running, counts.failed);
}

} // namespace firn
