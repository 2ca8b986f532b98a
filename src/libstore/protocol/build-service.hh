#pragma once

#include "libstore/build/build-paths.hh"

namespace firn {

/// What a connection lets others build. The default builds for real; tests and the fuzzer put something tame
/// in its place.
class BuildService {
  public:
    /// `removal`: see BuildContext; must outlive it.
    explicit BuildService(BackgroundRemoval *removal = nullptr) : removal_(removal) {}
    virtual ~BuildService() = default;
    virtual std::vector<BuildResult> build(BuildContext &context, const std::vector<DerivedPath> &paths,
                                           BuildMode mode) {
        context.removal = removal_;
        return buildPaths(context, paths, mode);
    }
    virtual BuildResult buildOne(BuildContext &context, const StorePath &drvPath, const BasicDerivation &drv,
                                 BuildMode mode) {
        context.removal = removal_;
        return buildDerivation(context, drvPath, drv, mode);
    }

  private:
    BackgroundRemoval *removal_;
};

} // namespace firn
