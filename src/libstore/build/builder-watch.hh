#pragma once

#include <string>

#include "libstore/build/build-log.hh"
#include "libstore/build/build-result.hh"
#include "libstore/build/event-loop.hh"
#include "libstore/build/launch.hh"
#include "libstore/build/pseudo-terminal.hh"
#include "libstore/store/settings.hh"

namespace firn {

/// Attends to a builder from its start to its end: what it says goes into the log, and it is killed where it
/// takes longer, is silent longer or says more than the settings allow. What is passed must outlive this.
class BuilderWatch {
  public:
    /// The time for the build begins now. `derivation` is the path of the derivation, for messages; `result`
    /// gets the CPU time of a builder that is killed.
    BuilderWatch(EventLoop &loop, BuilderProcess &process, PseudoTerminal &terminal, BuildLog &log,
                 const Settings &settings, std::string derivation, BuildResult &result);

    /// Till the builder has ended, by itself or killed by others, and all that it said is in the log. Throws
    /// BuildFailure (timedOut, logLimitExceeded) where it was killed here.
    Task<BuilderResult> run();

    /// When the time for the build, of which reading its outputs is a part, is over.
    Clock::time_point deadline() const;
    [[noreturn]] void failTimedOut() const;

  private:
    bool readLog();
    void drainLog();
    Clock::time_point nextDeadline() const;
    void checkLimits();
    [[noreturn]] void endEarly(const BuildFailure &failure);
    BuildFailure timeoutFailure() const;

    EventLoop &loop_;
    BuilderProcess &process_;
    PseudoTerminal &terminal_;
    BuildLog &log_;
    const Settings &settings_;
    std::string derivation_;
    BuildResult &result_;
    Clock::time_point started_ = Clock::now();
    Clock::time_point lastOutput_ = started_;
};

} // namespace firn
