#pragma once

#include <cstdint>
#include <ctime>
#include <map>
#include <optional>
#include <string>

#include "libstore/model/derived-path.hh"
#include "libstore/model/realisation.hh"
#include "libutil/error.hh"

namespace firn {

enum class BuildMode : uint64_t { normal = 0, repair = 1, check = 2 };

/// Outcome of building one derivation or making one path valid. Numbers are the worker protocol's.
struct BuildResult {
    enum class Status : uint64_t {
        built = 0,
        substituted = 1,
        alreadyValid = 2,
        permanentFailure = 3,
        inputRejected = 4,
        outputRejected = 5,
        transientFailure = 6,
        cachedFailure = 7,
        timedOut = 8,
        miscFailure = 9,
        dependencyFailed = 10,
        logLimitExceeded = 11,
        notDeterministic = 12,
        resolvesToAlreadyValid = 13,
        noSubstituters = 14,
    };
    Status status = Status::miscFailure;
    std::string errorMessage;
    uint64_t timesBuilt = 0;
    bool isNonDeterministic = false;
    bool lackedDescriptors =
        false; ///< failed for want of descriptors, here or below: not the derivation's fault
    time_t startTime = 0, stopTime = 0;
    std::optional<uint64_t> cpuUser, cpuSystem;      ///< microseconds
    std::map<std::string, Realisation> builtOutputs; ///< by output name

    bool success() const {
        return status == Status::built || status == Status::substituted || status == Status::alreadyValid ||
               status == Status::resolvesToAlreadyValid;
    }
};

/// A failure with the status a client is to see.
class BuildFailure : public Error {
  public:
    BuildFailure(BuildResult::Status status, const std::string &message, bool lackedDescriptors = false)
        : Error(ErrorKind::failure, message), status_(status), lackedDescriptors_(lackedDescriptors) {}
    BuildResult::Status status() const { return status_; }
    bool lackedDescriptors() const { return lackedDescriptors_; } ///< see BuildResult

  private:
    BuildResult::Status status_;
    bool lackedDescriptors_;
};

} // namespace firn
