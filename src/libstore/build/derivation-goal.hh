#pragma once

#include <memory>
#include <optional>
#include <set>
#include <string>

#include "libstore/build/build-result.hh"
#include "libstore/build/build-slots.hh"
#include "libstore/build/event-loop.hh"
#include "libstore/build/wait-graph.hh"
#include "libstore/model/derivation.hh"
#include "libstore/store/path-locks.hh"

namespace firn {

class BuildWorker;
struct BuildPlan;

/// Makes the outputs of one derivation valid: its inputs first, then the locks of its outputs, then the
/// build. Its result is for everybody who waits for done().
class DerivationGoal {
  public:
    /// `recorded`: see BuildWorker::build().
    DerivationGoal(BuildWorker &worker, StorePath drvPath, std::set<std::string> wanted, BuildMode mode,
                   std::map<std::string, StorePath> recorded);
    /// A derivation at hand that is not in the store (all its outputs are wanted).
    DerivationGoal(BuildWorker &worker, StorePath drvPath, const BasicDerivation &drv, BuildMode mode);
    ~DerivationGoal();

    /// Failures become the result; only interruption and faults of ours are thrown. Started once, by the
    /// worker.
    Task<> run();

    const StorePath &drvPath() const { return drvPath_; }
    BuildMode mode() const { return mode_; }
    Event &done() { return done_; }
    const BuildResult &result() const { return result_; }

    /// Adds wanted outputs (empty: all), as long as it is not too late: see covers().
    void want(const std::set<std::string> &outputs, bool asDependency);
    /// Whether success of this goal means that these outputs are valid.
    bool covers(const std::set<std::string> &outputs) const;

  private:
    struct Inputs;

    Task<> tryRun();
    void loadDerivation();
    bool keepsRealisations() const;
    void findOutputs();
    std::optional<StorePath> recordedPath(const std::string &name) const;
    void describe(const std::map<std::string, StorePath> &paths);
    void describeValid();
    void requireRepaired(const std::map<std::string, StorePath> &paths) const;
    bool isSatisfied();
    std::set<std::string> wantedOutputs() const;
    WaitGraph::Node node() const { return {drvPath_, mode_}; }
    static Task<> buildInput(BuildWorker &worker, std::shared_ptr<Inputs> inputs, BuiltPath needed,
                             std::optional<WaitGraph::Node> waiter);
    Task<> buildInputs();
    void refuseImpureInputs() const;
    void refuseImpureInput(const StorePath &path, const Derivation &drv) const;
    bool mayHaveImpureInputs() const;
    void refuseOtherRealisation(const Realisation &known, const StorePath &path) const;
    StorePath inputPath(const StorePath &drvPath, const Derivation &drv, const std::string &name) const;
    bool mustResolve() const;
    Derivation resolve() const;
    Task<> buildResolved();
    void checkSources();
    void checkPlatform() const;
    void checkBuiltin() const;
    Task<> buildLocally();
    Task<> buildWithLocks(const SlotLease &slot);
    bool tryFinishWithoutBuild();
    void finish(BuildResult result);

    BuildWorker &worker_;
    StorePath drvPath_;
    std::optional<std::set<std::string>> wanted_; ///< nullopt: all
    BuildMode mode_;
    bool isDependency_ = false;
    bool decided_ = false;                 ///< wanted_ has been acted upon
    std::optional<Derivation> derivation_; ///< until it is part of the plan
    std::unique_ptr<BuildPlan> plan_;
    DerivationKind kind_ = DerivationKind::inputAddressed;
    std::map<std::string, Hash> ids_; ///< of realisations, by output; empty where none are told of
    bool ambiguousIds_ = false;       ///< other derivations may have them too
    std::map<std::string, StorePath> recorded_;
    std::shared_ptr<Inputs> inputs_;
    Event done_;
    BuildResult result_;
};

} // namespace firn
