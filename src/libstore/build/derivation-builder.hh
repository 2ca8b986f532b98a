#pragma once

#include <memory>

#include "libstore/build/build-plan.hh"
#include "libstore/build/build-slots.hh"
#include "libstore/build/event-loop.hh"
#include "libstore/model/path-info.hh"

namespace firn {

class BuildWorker;

using OutputInfos = std::map<std::string, PathInfo>; ///< by output name

/// The life of one build, for a caller that holds the outputs' locks and a slot: prepare, enter, run,
/// register, leave.
class DerivationBuilder {
  public:
    /// All must outlive the builder. Times and processor time are written to `result` as they become known.
    DerivationBuilder(BuildWorker &worker, const BuildPlan &plan, const SlotLease &slot, BuildResult &result);
    ~DerivationBuilder();

    /// On return all outputs are valid: what is known of each, by name. Throws BuildFailure with what the
    /// client is to be told, or what else went wrong; then the store is as it was. Nothing of the build is
    /// left running in either case.
    Task<OutputInfos> run();

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

} // namespace firn
