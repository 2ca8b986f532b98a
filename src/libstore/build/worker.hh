#pragma once

#include <map>
#include <memory>
#include <optional>

#include "libstore/build/build-directory-exec.hh"
#include "libstore/build/build-paths.hh"
#include "libstore/build/build-slots.hh"
#include "libstore/build/event-loop.hh"
#include "libstore/build/sandbox.hh"
#include "libstore/build/wait-graph.hh"

namespace firn {

class DerivationGoal;

/// Leave to run one build: one of the connection's jobs and one of the machine's slots.
struct BuildPermit {
    Semaphore::Permit job;
    SlotLease slot;
};

/// Outputs of a derivation to be made valid.
struct BuildRequest {
    StorePath drvPath;
    std::set<std::string> outputs{}; ///< empty: all
    BuildMode mode = BuildMode::normal;
    bool isDependency = false; ///< a failure is logged at once, as nobody is told of it otherwise
    std::map<std::string, StorePath> recorded{}; ///< where outputs are known to lie, for a check
    std::optional<WaitGraph::Node> waiter{};     ///< the goal that needs them
};

/// Everything that the goals of one request share: the event loop, the goals themselves (one per derivation
/// and mode, however many wait for it), permits to build, directories, and the figures in the client's
/// progress display. Lives for one call of buildPaths(). One thread.
class BuildWorker {
  public:
    explicit BuildWorker(BuildContext &buildContext);
    ~BuildWorker();
    BuildWorker(const BuildWorker &) = delete;
    BuildWorker &operator=(const BuildWorker &) = delete;

    BuildContext &context;
    LocalStore &store;
    EventLoop loop;

    /// Makes outputs of a derivation valid. Waits for a goal that is already at it.
    Task<BuildResult> build(BuildRequest request);

    /// Follows BuiltPath::through: makes one derivation after the other and returns the last one's path, the
    /// given one for an empty chain. Throws BuildFailure(dependencyFailed) where one cannot be built or what
    /// it made is no derivation.
    Task<StorePath> makeDerivation(StorePath drvPath, std::vector<std::string> through,
                                   std::optional<WaitGraph::Node> waiter);

    /// Puts in a goal for a derivation that is not in the store.
    void addGoal(std::shared_ptr<DerivationGoal> goal);

    /// Runs until all coroutines are done, or the client hangs up: then Error(interrupted).
    void run();
    /// Ends whatever is still going on after a failure, unless keep-going is set.
    void endUnlessKeepGoing(const BuildResult &result);

    Task<BuildPermit> acquirePermit();
    /// Made when first needed, where programs can be executed. Throws what chooseExecMechanism() does.
    BuildDirectories &directories();

    /// Tells the client, as long as it lives, that a derivation's outputs are locked by others.
    std::unique_ptr<Activity> showLockWait(const StorePath &drvPath) const;
    /// How a build gets an executable view of its directory; one of directories().
    const ExecChoice &execChoiceFor(const BuildDirectory &directory);

    /// For one build.
    StartedSandbox takeSandbox();
    /// Where another build may follow, what it would take is started now, while a builder runs.
    void startSandboxAhead();

    /// Fills in builtOutputs where the goal did not, and leaves those that are wanted (empty: all).
    void addRealisations(const Derivation &drv, const std::set<std::string> &wanted, BuildResult &result);
    /// Hash per output, as realisations are named by.
    std::map<std::string, Hash> outputIds(const Derivation &drv);
    /// Notes in the store what an output turned out to be, and returns what is known by now: the first
    /// realisation counts.
    Realisation record(const DrvOutput &id, const StorePath &path);
    DerivationHasher &hasher() { return hasher_; }

    /// Counts of derivations for the progress display; call showProgress() after a change.
    struct Counts {
        uint64_t expected = 0, running = 0, done = 0, failed = 0;
    } counts;
    void showProgress();

  private:
    using GoalKey = WaitGraph::Node;
    void start(const GoalKey &key, std::shared_ptr<DerivationGoal> goal);
    Task<> runGoal(GoalKey key, std::shared_ptr<DerivationGoal> goal);
    void endIfStuck();
    static Task<> fail(std::string message);
    Task<> awaitGoal(std::shared_ptr<DerivationGoal> goal, std::optional<WaitGraph::Node> waiter);
    StorePath madeDerivation(const StorePath &drvPath, const std::string &name, const BuildResult &result);

    BuildSlots slots_;
    Semaphore jobs_;
    DerivationHasher hasher_;
    Activity realiseActivity_, buildsActivity_;
    std::map<GoalKey, std::shared_ptr<DerivationGoal>> goals_;
    WaitGraph waits_;
    std::unique_ptr<BuildDirectories> directories_;
    ExecChoice execChoice_;
    bool hungUp_ = false;
    uint64_t unfinishedGoals_ = 0;
    std::optional<StartedSandbox> nextSandbox_;
};

} // namespace firn
