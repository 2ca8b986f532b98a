#include "libstore/build/derivation-builder.hh"

#include <algorithm>
#include <cstring>
#include <thread>

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "libstore/build/background-removal.hh"
#include "libstore/build/build-log.hh"
#include "libstore/build/build-users.hh"
#include "libstore/build/builder-environment.hh"
#include "libstore/build/builder-view.hh"
#include "libstore/build/builder-watch.hh"
#include "libstore/build/builtin-builder.hh"
#include "libstore/build/diff-hook.hh"
#include "libstore/build/exported-references.hh"
#include "libstore/build/failure-message.hh"
#include "libstore/build/fixup-macho-page-hashes.hh"
#include "libstore/build/helper-program.hh"
#include "libstore/build/kept-build.hh"
#include "libstore/build/noting-logger.hh"
#include "libstore/build/output-check.hh"
#include "libstore/build/output-placement.hh"
#include "libstore/build/pseudo-terminal.hh"
#include "libstore/build/register-outputs.hh"
#include "libstore/build/sandbox.hh"
#include "libstore/build/scratch-store.hh"
#include "libstore/build/store-leftovers.hh"
#include "libstore/build/worker.hh"
#include "libstore/model/structured-attributes.hh"
#include "libstore/store/path-locks.hh"
#include "libutil/descriptor-limit.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/interrupt.hh"

namespace firn {

namespace {

using Status = BuildResult::Status;

/// What a build takes, and what the end of one, with a removal in the background, may take for a moment: with
/// that many free when one begins, all that have begun come to their ends.
constexpr size_t descriptorsOfBuild = 96;
constexpr uint64_t scarceSpace = 8 * 1024 * 1024; // bytes left that may explain a failure

unsigned coresFor(const Settings &settings) {
    return settings.cores > 0 ? settings.cores : std::max(std::thread::hardware_concurrency(), 1u);
}

/// Where an output is made whose path is not known yet, or is taken: unsandboxed builders share the store
/// with everybody.
StorePath fallbackPath(const StoreDir &store, const BuildPlan &plan, const std::string &output) {
    Hash zero(HashAlgorithm::sha256);
    return store.makePath("rewrite:" + plan.drvPath.baseName() + ":name:" + output, zero,
                          outputPathName(plan.derivation.name, output));
}

bool isScarce(int fd) {
    struct statvfs space;
    return fstatvfs(fd, &space) == 0 && uint64_t{space.f_bavail} * space.f_frsize < scarceSpace;
}

} // namespace

// Members are destroyed in reverse order: first the processes end, then their files go, last the user is free
// again.
struct DerivationBuilder::Impl {
    BuildWorker &worker;
    LocalStore &store;
    const Settings &settings;
    const BuildPlan &plan;
    const SlotLease &slot;
    BuildResult &result;

    bool sandboxed = true;
    std::optional<BuildUser> user;
    std::map<std::string, StorePath> scratchPaths;
    std::optional<StoreLeftovers> leftovers;
    std::unique_ptr<ScratchStore> scratchStore;
    std::optional<BuildDirectory> directory;
    const ExecChoice *execution = nullptr;
    std::string buildTop; ///< the directory as the builder sees it
    BuilderEnvironment environment;
    PseudoTerminal terminal;
    std::optional<Activity> activity;
    std::optional<BuildLog> log;
    std::optional<StartedSandbox> started; ///< until it becomes the process
    std::optional<BuilderProcess> process;
    std::optional<BuilderWatch> watch;
    bool memoryFull = false; ///< of a build directory in memory
    CheckReport report;      ///< under check, once compared

    Impl(BuildWorker &buildWorker, const BuildPlan &buildPlan, const SlotLease &buildSlot,
         BuildResult &buildResult)
        : worker(buildWorker),
          store(buildWorker.store),
          settings(buildWorker.context.settings),
          plan(buildPlan),
          slot(buildSlot),
          result(buildResult) {}

    // ---- prepare
    Task<> leaseUser();
    void prepare();
    bool decideSandbox() const;
    uid_t builderUid = geteuid();
    void chooseScratchPaths();
    void tellOfRewrites();
    void removeStaleOutputs();
    BuilderEnvironmentInput environmentInput();
    BuilderEnvironment makeEnvironment();
    void makeDirectory();
    void writeFiles();

    // ---- enter
    void enter();
    void openLog();
    SandboxSpec describeSandbox();
    UniqueFd describeBuildDir(SandboxSpec &spec);
    void showStart();

    // ---- register
    void checkResult(const BuilderResult &ended);
    [[noreturn]] void failSetUp(const BuilderResult &ended);
    [[noreturn]] void fail(Status status, const std::string &reason);
    std::string explainLackOfSpace() const;
    std::string explainMissingInput() const;
    RegistrationRequest registration() const;
    OutputCheckOptions checkOptions() const;
    template<typename Work>
    auto inTime(Work work);
    Task<PathLocks> lockComputed(const StorePathSet &paths);
    Task<OutputInfos> registerAll();
    Task<OutputInfos> registerOrDiffer();
    bool leaveToHooks();
    bool wantsDiffHook() const { return settings.runDiffHook && !settings.diffHook.empty(); }
    Task<> runDiffHooks();

    // ---- leave
    enum class End { success, failure, interrupted };
    void leave(End end);
    /// Whether every process of the build has.
    bool hasEnded() { return process && process->poll(); }
    Task<> awaitTearDown();
    void leaveToRemoval(BackgroundRemoval &removal);
    void releaseUser();
    void finishLog();
    void endStragglers();
    void removeDirectory();
    void keepFailed();
};

// ---- prepare

/// All may be leased to builds of other connections, which end without anything of ours.
Task<> DerivationBuilder::Impl::leaseUser() {
    if (geteuid() != 0 || settings.buildUsersGroup.empty()) {
        co_return;
    }
    BuildUserPool pool(store.locations().stateDir, settings.buildUsersGroup, sandboxInitProgram());
    for (PollTimes polls;;) {
        if (std::optional<BuildUser> leased = pool.acquire()) {
            user.emplace(std::move(*leased));
            builderUid = user->uid();
            co_return;
        }
        Clock::time_point next = polls.next();
        co_await worker.loop.sleepUntil(next);
    }
}

void DerivationBuilder::Impl::prepare() {
    sandboxed = decideSandbox();
    requireDescriptors(descriptorsOfBuild);
    started.emplace(worker.takeSandbox());
    std::optional<gid_t> group = user ? std::optional(user->gid()) : std::nullopt;
    leftovers.emplace(store);
    chooseScratchPaths();
    removeStaleOutputs();
    if (sandboxed) {
        scratchStore = std::make_unique<ScratchStore>(store.storeFd(), plan.drvPath, group);
    }
    makeDirectory();
    buildTop = sandboxed ? settings.sandboxBuildDir : directory->path().string();
    environment = makeEnvironment();
    if (execution->mechanism != ExecMechanism::tmpfs) {
        writeFiles();
    }
    if (user) {
        directory->giveTo(user->uid(), user->gid());
    }
}

void DerivationBuilder::Impl::makeDirectory() {
    BuildDirectories &directories = worker.directories();
    directory.emplace(user && !sandboxed ? directories.makeReachable() : directories.make());
    execution = &worker.execChoiceFor(*directory);
    if (execution->mechanism == ExecMechanism::overlay) {
        directory->makeOverlay();
    }
}

bool DerivationBuilder::Impl::decideSandbox() const {
    switch (settings.sandbox) {
    case SandboxMode::disabled:
        return false;
    case SandboxMode::relaxed:
        return !plan.derivation.mayUseNetwork() && !plan.options.noChroot;
    case SandboxMode::enabled:
        break;
    }
    if (plan.options.noChroot) {
        throw Error(ErrorKind::refused,
                    "derivation '{}' has '__noChroot' set, but that's not allowed when 'sandbox' is 'true'",
                    store.dir().print(plan.drvPath));
    }
    return true;
}

/// In a sandbox a final path that is known can always be used: its store directory is its own.
void DerivationBuilder::Impl::chooseScratchPaths() {
    for (const auto &[name, output] : plan.outputs) {
        bool usable = output.promised && (sandboxed || (!output.valid && !store.isValidPath(*output.path)));
        StorePath scratch = usable ? *output.path : fallbackPath(store.dir(), plan, name);
        scratchPaths.emplace(name, scratch);
        if (!sandboxed) {
            store.addTempRoot(scratch);
            leftovers->add(scratch);
        }
    }
}

/// Whoever wonders later why a file was changed finds the reason here.
void DerivationBuilder::Impl::tellOfRewrites() {
    std::string taken;
    for (const auto &[name, output] : plan.outputs) {
        if (output.promised && scratchPaths.at(name) != *output.path) {
            taken += fmt::format("{}'{}'", taken.empty() ? "" : ", ", store.dir().print(*output.path));
        }
    }
    if (!taken.empty()) {
        NotingLogger(worker.context.logger, *log)
            .log(Verbosity::notice,
                 fmt::format(
                     "note: '{}' is built without a sandbox, and of its outputs {} is in the store already: "
                     "what is there is built at another path, which is rewritten to the real one in all "
                     "outputs",
                     store.dir().print(plan.drvPath), taken));
    }
}

/// What lies at the path of an output that is not valid comes from an earlier build and is worth nothing.
void DerivationBuilder::Impl::removeStaleOutputs() {
    for (const auto &[name, scratch] : scratchPaths) {
        if (!store.isValidPath(scratch)) {
            removeTree(store.storeFd(), scratch.baseName());
        }
    }
}

BuilderEnvironmentInput DerivationBuilder::Impl::environmentInput() {
    BuilderEnvironmentInput input{.store = store.dir(),
                                  .derivation = plan.derivation,
                                  .scratchPaths = scratchPaths,
                                  .buildTop = buildTop,
                                  .cores = coresFor(settings),
                                  .passAsFile = plan.options.passAsFile,
                                  .impureEnvVars = plan.options.impureEnvVars,
                                  .structured = {},
                                  .files = {},
                                  .hostVariable = [](const std::string &name) -> std::optional<std::string> {
                                      const char *value = getenv(name.c_str());
                                      return value ? std::optional<std::string>(value) : std::nullopt;
                                  }};
    if (!plan.options.structured) {
        input.files = exportedReferenceFiles(store, plan.options, plan.inputClosure);
        return input;
    }
    StringMap outputs;
    for (const auto &[name, scratch] : scratchPaths) {
        outputs[name] = store.dir().print(scratch);
    }
    StructuredAttributeFiles files =
        makeStructuredAttributeFiles(plan.derivation.env.at("__json"), outputs,
                                     exportedReferenceJson(store, plan.options, plan.inputClosure));
    input.structured = {files.json, files.shell};
    return input;
}

BuilderEnvironment DerivationBuilder::Impl::makeEnvironment() {
    BuilderEnvironmentInput input = environmentInput();
    if (!plan.derivation.isBuiltin()) {
        return makeBuilderEnvironment(input);
    }
    const BuiltinProgram &program = findBuiltinProgram(builtinBuilderProgram());
    return makeBuiltinEnvironment(std::move(input), settings, program.command(sandboxed),
                                  worker.context.logger);
}

void DerivationBuilder::Impl::writeFiles() {
    for (const auto &[name, content] : environment.files) {
        UniqueFd file(openat(directory->contentsFd(), name.c_str(),
                             O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0644));
        if (!file) {
            throwErrno("creating '{}' in build directory '{}'", escapeForDisplay(name),
                       directory->path().string());
        }
        writeFull(file.get(), content);
        if (user && fchown(file.get(), user->uid(), user->gid()) != 0) {
            throwErrno("giving '{}' in '{}' to user {}", escapeForDisplay(name), directory->path().string(),
                       user->uid());
        }
    }
}

// ---- enter

void DerivationBuilder::Impl::enter() {
    showStart();
    openLog();
    tellOfRewrites();
    terminal = PseudoTerminal::open(builderUid);
    SandboxSpec spec = describeSandbox();
    UniqueFd mount = describeBuildDir(spec);
    result.startTime = time(nullptr);
    process.emplace(spawnSandbox(std::move(*started), spec));
    started.reset();
    slot.setBuilder(process->pid());
    worker.startSandboxAhead();
    watch.emplace(worker.loop, *process, terminal, *log, settings, store.dir().print(plan.drvPath), result);
}

void DerivationBuilder::Impl::showStart() {
    std::string drv = store.dir().print(plan.drvPath);
    const char *verb = plan.mode == BuildMode::check    ? "checking outputs of"
                       : plan.mode == BuildMode::repair ? "repairing outputs of"
                                                        : "building";
    LogFields fields{drv, std::string(), uint64_t{1}, uint64_t{1}};
    activity.emplace(worker.context.logger, Verbosity::info, ActivityType::build,
                     fmt::format("{} '{}'", verb, drv), fields);
}

void DerivationBuilder::Impl::openLog() {
    std::optional<LogFile> file;
    if (settings.useBuildersLog) {
        file.emplace(store.buildLogPath(plan.drvPath));
    }
    log.emplace(worker.context.logger, *activity, std::move(file), logTailLength(worker.context));
}

SandboxSpec DerivationBuilder::Impl::describeSandbox() {
    SandboxSpec spec;
    spec.sandboxed = sandboxed;
    spec.storeDir = store.dir().str();
    spec.buildDirInside = buildTop;
    spec.workingDirectory = buildTop;
    spec.builder = environment.builder;
    spec.args = environment.args;
    spec.env = environment.list();
    spec.outputFd = terminal.slave.get();
    if (user) {
        spec.uidOutside = user->uid();
        spec.gidOutside = user->gid();
        spec.groups = user->groups();
    }
    spec.linux32 = plan.derivation.platform == "i686-linux" && settings.system == "x86_64-linux";
    spec.impersonateLinux26 = settings.impersonateLinux26;
    spec.filterSyscalls = settings.filterSyscalls;
    spec.allowNewPrivileges = settings.allowNewPrivileges;
    if (sandboxed) {
        spec.scratchStore = scratchStore->fd();
        spec.network = plan.derivation.mayUseNetwork() ? Network::host : Network::isolated;
        spec.kvm = settings.systemFeatures.contains("kvm") && access("/dev/kvm", F_OK) == 0;
        spec.devShmSize = settings.sandboxDevShmSize;
        showToBuilder({store, settings, plan}, spec);
    }
    return spec;
}

/// Returns the mount, if it takes one: it lives as long as somebody has it, and from here on that is the
/// build.
UniqueFd DerivationBuilder::Impl::describeBuildDir(SandboxSpec &spec) {
    spec.buildDir = directory->fd();
    switch (execution->mechanism) {
    case ExecMechanism::direct:
    case ExecMechanism::stateDirectory:
        return {};
    case ExecMechanism::classicBindMount:
        spec.buildDirKind = BuildDirKind::classicExecutable;
        return {};
    case ExecMechanism::overlay:
        spec.buildDirKind = BuildDirKind::overlay;
        return {};
    case ExecMechanism::tmpfs:
        spec.buildDirKind = BuildDirKind::tmpfs;
        spec.buildDirSize = settings.noexecTmpfsSize;
        for (const auto &[name, content] : environment.files) {
            spec.buildDirFiles.push_back({name, content});
        }
        return {};
    case ExecMechanism::bindMount:
        break;
    }
    UniqueFd mount = executableMount(directory->fd(), *execution);
    spec.buildDir = mount.get();
    spec.buildDirKind = BuildDirKind::mount;
    return mount;
}

// ---- register

void DerivationBuilder::Impl::checkResult(const BuilderResult &ended) {
    result.stopTime = time(nullptr);
    result.cpuUser = ended.userMicroseconds;
    result.cpuSystem = ended.systemMicroseconds;
    memoryFull = ended.memoryFull;
    switch (ended.kind) {
    case BuilderResult::Kind::exited:
        if (ended.exitCode != 0) {
            fail(Status::permanentFailure, fmt::format("builder failed with exit code {}", ended.exitCode));
        }
        return;
    case BuilderResult::Kind::signaled:
        fail(Status::permanentFailure,
             fmt::format("builder failed due to signal {} ({})", ended.signal, strsignal(ended.signal)));
    case BuilderResult::Kind::execFailed:
        fail(Status::permanentFailure, "builder " + ended.describe());
    case BuilderResult::Kind::setupFailed:
        failSetUp(ended);
    case BuilderResult::Kind::lost:
        fail(Status::transientFailure, "builder " + ended.describe());
    }
}

/// What has worked when it was tried may fail later, and then its remedies are the same.
void DerivationBuilder::Impl::failSetUp(const BuilderResult &ended) {
    std::string what =
        fmt::format("the {} {}", sandboxed ? "sandbox" : "build environment", ended.describe());
    using sandbox::Step;
    bool ofDirectory =
        ended.step == Step::makeExecutable || ended.step == Step::mountOverlay ||
        ((ended.step == Step::attachMount || ended.step == Step::mountTmpfs) && ended.path == buildTop);
    if (ofDirectory && execution->probeError != 0) {
        what += ": " + explainNoExecution(*execution, directory->fd(), "what is done about it failed");
    }
    fail(Status::miscFailure, what);
}

std::string DerivationBuilder::Impl::explainLackOfSpace() const {
    if (memoryFull) {
        return fmt::format(
            "\nnote: build failure may have been caused by lack of space in its build directory "
            "in memory: 'noexec-tmpfs-size' is {}",
            settings.noexecTmpfsSize);
    }
    bool diskFull = isScarce(store.storeFd()) || isScarce(directory->fd());
    return diskFull ? "\nnote: build failure may have been caused by lack of free disk space" : "";
}

/// Only where a build has failed: to look beforehand would cost every build a call for each input.
std::string DerivationBuilder::Impl::explainMissingInput() const {
    for (const StorePath &input : plan.inputClosure) {
        struct stat st;
        if (fstatat(store.storeFd(), input.baseName().c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0 &&
            errno == ENOENT) {
            return fmt::format("\nnote: its input '{}' is valid in the store's database, but is not on disk: "
                               "somebody has removed it behind the store's back",
                               store.dir().print(input));
        }
    }
    return "";
}

void DerivationBuilder::Impl::fail(Status status, const std::string &reason) {
    std::string lack = explainLackOfSpace() + explainMissingInput();
    // What depends on the network, on space or on what is missing may work another time.
    if (status == Status::permanentFailure && (!lack.empty() || plan.derivation.mayUseNetwork())) {
        status = Status::transientFailure;
    }
    std::vector<StorePath> outputs = plan.outputPaths();
    std::string message = builderFailureMessage(worker.context, {plan.drvPath, outputs}, reason, log->tail());
    throw BuildFailure(status, message + lack);
}

RegistrationRequest DerivationBuilder::Impl::registration() const {
    RegistrationRequest request{.derivation = &plan.derivation,
                                .drvPath = plan.drvPath,
                                .outputs = {},
                                .scratchDir = sandboxed ? scratchStore->fd() : store.storeFd(),
                                .possibleReferences = plan.inputClosure,
                                .builderUid = builderUid,
                                .copyFixedOutputs = !sandboxed || plan.derivation.mayUseNetwork(),
                                .copyAllOutputs = !sandboxed && user.has_value(),
                                .mode = plan.mode,
                                .judge = nullptr,
                                .url = {}};
    for (const auto &[name, output] : plan.outputs) {
        ScratchOutput scratch{scratchPaths.at(name), std::nullopt};
        // What a check has made is compared as it would be at the path where the other one is.
        bool stays = plan.mode == BuildMode::check || output.valid;
        (output.promised || stays ? scratch.finalPath : scratch.recordedPath) = output.path;
        scratch.good = output.valid;
        request.outputs.emplace(name, scratch);
    }
    for (const char *attribute : {"url", "urls"}) {
        auto found = plan.derivation.env.find(attribute);
        if (request.url.empty() && found != plan.derivation.env.end()) {
            request.url = found->second;
        }
    }
    return request;
}

/// Reading what the builder left may take as long as it likes to make it, by a file with large holes.
template<typename Work>
auto DerivationBuilder::Impl::inTime(Work work) {
    try {
        WorkDeadline deadline(watch->deadline());
        return work();
    } catch (const DeadlinePassed &) {
        watch->failTimedOut();
    }
}

OutputCheckOptions DerivationBuilder::Impl::checkOptions() const {
    OutputCheckOptions options{settings.keepFailed,
                               wantsDiffHook(),
                               {},
                               derivationKind(plan.derivation) == DerivationKind::fixed,
                               {}};
    if (settings.useBuildersLog) {
        options.reportFile = checkReportPath(store, plan.drvPath);
    }
    return options;
}

/// Whoever has them makes the same paths, in a build of ours perhaps: the loop must go on meanwhile. They are
/// held by nobody who waits for a slot, so that this may be done on one, but perhaps by somebody who waits
/// for a build user: that is given back.
Task<PathLocks> DerivationBuilder::Impl::lockComputed(const StorePathSet &paths) {
    std::set<std::string> names = lockNames(paths);
    std::unique_ptr<Activity> waiting;
    for (PollTimes polls;;) {
        if (std::optional<PathLocks> locks = PathLocks::tryLock(store.storeFd(), names)) {
            locks->setDeletion(true);
            co_return std::move(*locks);
        }
        if (!waiting) {
            waiting = worker.showLockWait(plan.drvPath);
            directory->takeBack();
            releaseUser();
        }
        if (Clock::now() >= watch->deadline()) {
            watch->failTimedOut();
        }
        Clock::time_point next = std::min(polls.next(), watch->deadline());
        co_await worker.loop.sleepUntil(next);
    }
}

Task<OutputInfos> DerivationBuilder::Impl::registerAll() {
    RegistrationRequest request = registration();
    MachoJail jail(machoJailProgram());
    NotingLogger logger(worker.context.logger, *log);
    MachoPageHashFixup fixup(store, logger, request, settings.machoSignatures, jail);
    OutputCheckOptions options = checkOptions();
    options.madeRight = [&](const std::string &name, uint32_t node) { return fixup.madeRight(name, node); };
    OutputCheck check(store, logger, plan.drvPath, jail, options, report);
    request.judge = &check;
    OutputRegistration outputs(store, worker.context.logger, request, fixup);
    inTime([&] { outputs.prepare(); });
    StorePathSet computed = outputs.pathsToLock();
    PathLocks locks = co_await lockComputed(computed);
    OutputInfos infos = inTime([&] { return outputs.finish(); });
    for (const auto &[name, info] : infos) {
        leftovers->forget(info.path);
    }
    co_return infos;
}

/// Where a check differs, hooks are told before it fails.
Task<OutputInfos> DerivationBuilder::Impl::registerOrDiffer() {
    OutputInfos infos;
    std::exception_ptr difference;
    try {
        infos = co_await registerAll();
    } catch (const BuildFailure &failure) {
        if (report.deterministic() && !report.damaged()) {
            throw;
        }
        log->note(failure.message());
        difference = std::current_exception();
    }
    if (difference) {
        if (leaveToHooks()) {
            co_await runDiffHooks();
        }
        std::rethrow_exception(difference);
    }
    co_return infos;
}

/// They run as the build's user, who gets to see what the build has left. What was kept for hooks alone goes
/// when they are through. What goes wrong here does not take the place of what was found.
bool DerivationBuilder::Impl::leaveToHooks() {
    for (const OutputReport &output : report.outputs) {
        if (!output.kept.empty() && !settings.keepFailed) {
            leftovers->add(keptCheckPath(output.path));
        }
    }
    try {
        if (user && wantsDiffHook()) {
            directory->makeReachable(user->uid(), user->gid());
        }
        return true;
    } catch (const Error &error) {
        worker.context.logger.warn("no diff-hook is run: " + error.message());
        return false;
    }
}

/// One after the other, for every output that differs.
Task<> DerivationBuilder::Impl::runDiffHooks() {
    DiffHookContext context{worker.loop, worker.context.logger,   *log, settings,
                            store.dir(), user ? &*user : nullptr, slot};
    for (const OutputReport &output : report.outputs) {
        if (wantsDiffHook() && !output.kept.empty()) {
            DiffHookCall call{store.dir().print(output.path), output.kept, store.dir().print(plan.drvPath),
                              directory->path().string()};
            co_await runDiffHook(context, call);
        }
    }
}

// ---- leave

/// How long the kernel takes over a sandbox's mounts is up to those that lie below: other builds go on
/// meanwhile, and so does looking after the client.
Task<> DerivationBuilder::Impl::awaitTearDown() {
    if (process && !process->isGone()) {
        DescriptorWatch watch(worker.loop);
        watch.add(process->statusFd());
        do {
            co_await watch.wait(Clock::time_point::max());
        } while (!process->isGone());
    }
}

/// The processes are gone when this returns, then the files; destructors take care of the rest, on every way
/// out.
void DerivationBuilder::Impl::leave(End end) {
    watch.reset();
    started.reset();
    process.reset();
    finishLog();
    if (end == End::failure && settings.keepFailed) {
        keepFailed();
    }
    removeDirectory();
    if (end == End::success && worker.context.removal) {
        leaveToRemoval(*worker.context.removal);
    }
    scratchStore.reset();
    leftovers.reset();
    log.reset();
    activity.reset();
    releaseUser();
}

/// What a build has made again that was valid already. Nobody need wait until that is removed.
void DerivationBuilder::Impl::leaveToRemoval(BackgroundRemoval &removal) {
    try {
        if (!scratchStore && leftovers && leftovers->any()) {
            scratchStore = std::make_unique<ScratchStore>(store.storeFd(), plan.drvPath, std::nullopt);
            leftovers->moveTo(scratchStore->fd());
        }
        if (scratchStore && !scratchStore->removeIfEmpty()) {
            removal.remove(std::move(scratchStore));
        }
    } catch (const Error &error) {
        worker.context.logger.warn("removing what a build has left in the store: " + error.message());
    }
}

void DerivationBuilder::Impl::releaseUser() {
    if (user) {
        user->release();
        user.reset();
    }
}

void DerivationBuilder::Impl::removeDirectory() {
    try {
        if (directory) {
            directory->remove();
        }
    } catch (const Error &error) {
        worker.context.logger.warn(
            fmt::format("the build directory '{}' stays until the next daemon's start: {}",
                        directory->path().string(), error.message()));
    }
    directory.reset();
}

/// A cancelled build's log as far as it came. Where this fails there is mostly an error already that matters
/// more.
void DerivationBuilder::Impl::finishLog() {
    try {
        if (log) {
            log->finish();
        }
    } catch (const Error &error) {
        worker.context.logger.warn(fmt::format("the log of '{}' is incomplete: {}",
                                               store.dir().print(plan.drvPath), error.message()));
    }
}

/// Without a pid namespace, processes of the build may outlive its builder. None may change what is looked at
/// from here on.
void DerivationBuilder::Impl::endStragglers() {
    if (!sandboxed && user) {
        killUserProcesses(sandboxInitProgram(), user->uid());
    }
}

/// The failure itself is what must be told, whatever goes wrong here.
void DerivationBuilder::Impl::keepFailed() {
    if (report.damaged() && report.deterministic() && report.refused.empty()) {
        return; // it is not the build that failed
    }
    try {
        endStragglers();
        BuildToKeep build{store,        worker.context,
                          plan,         builderUid,
                          scratchPaths, scratchStore ? std::optional(scratchStore->fd()) : std::nullopt,
                          execution};
        auto isKept = [](const OutputReport &output) { return !output.kept.empty(); };
        if (leftovers && std::ranges::none_of(report.outputs, isKept)) {
            keepFailedOutputs(build, *leftovers);
        }
        if (directory) {
            keepBuildDirectory(build, *directory);
        }
    } catch (const Error &error) {
        worker.context.logger.warn(
            fmt::format("cannot keep what the failed build left: {}", error.message()));
    }
}

// ---- all of it

DerivationBuilder::DerivationBuilder(BuildWorker &worker, const BuildPlan &plan, const SlotLease &slot,
                                     BuildResult &result)
    : impl_(std::make_unique<Impl>(worker, plan, slot, result)) {}

DerivationBuilder::~DerivationBuilder() = default;

Task<OutputInfos> DerivationBuilder::run() {
    OutputInfos infos;
    std::exception_ptr failure;
    Impl::End end = Impl::End::success;
    auto note = [&](const Error &error) {
        failure = std::current_exception();
        end = error.kind() == ErrorKind::interrupted ? Impl::End::interrupted : Impl::End::failure;
    };
    try {
        co_await impl_->leaseUser();
        impl_->prepare();
        impl_->enter();
        BuilderResult ended = co_await impl_->watch->run();
        impl_->checkResult(ended);
        impl_->endStragglers();
        // From here on nothing of the build runs.
        infos = co_await impl_->registerOrDiffer();
    } catch (const Error &error) {
        note(error);
    }
    // A builder that was not ended yet is killed by leave().
    try {
        if (end != Impl::End::interrupted && impl_->hasEnded()) {
            co_await impl_->awaitTearDown();
        }
    } catch (const Error &error) {
        note(error);
    }
    impl_->leave(end);
    if (failure) {
        std::rethrow_exception(failure);
    }
    co_return infos;
}

} // namespace firn
