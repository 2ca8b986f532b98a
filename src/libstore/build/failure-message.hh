#pragma once

#include <deque>
#include <set>
#include <string>
#include <vector>

#include "libstore/build/build-paths.hh"

// The words for failed builds. Scripts and test suites look for them, and they differ between the generations
// of Nix: a client of protocol 1.34 and before gets those of 2.8, a newer one those of 2.34.

namespace firn {

struct FailedBuild {
    const StorePath &drvPath;
    const std::vector<StorePath> &outputs;
};

/// `reason` without full stop: "builder failed with exit code 1".
std::string builderFailureMessage(const BuildContext &context, const FailedBuild &build,
                                  const std::string &reason, const std::deque<std::string> &logTail);

/// How many of the log's last lines a failure message shows: `log-lines`, whose default was 10 in the older
/// generation.
size_t logTailLength(const BuildContext &context);

std::string dependencyFailureMessage(const BuildContext &context, const FailedBuild &build, size_t failed);

std::string platformMessage(const BuildContext &context, const StorePath &drvPath,
                            const std::string &platform, const std::set<std::string> &features);

} // namespace firn
