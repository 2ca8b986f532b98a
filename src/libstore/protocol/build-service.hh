#pragma once

#include "libstore/build/build-paths.hh"

namespace firn {

/// What a connection lets others build. The default builds for real; tests and the fuzzer put something tame
/// in its place.
class BuildService {
  public:
    virtual ~BuildService() = default;
    virtual std::vector<BuildResult> build(BuildContext &context, const std::vector<DerivedPath> &paths,
                                           BuildMode mode) {
        return buildPaths(context, paths, mode);
    }
    virtual BuildResult buildOne(BuildContext &context, const StorePath &drvPath, const BasicDerivation &drv,
                                 BuildMode mode) {
        return buildDerivation(context, drvPath, drv, mode);
    }
};

} // namespace firn
