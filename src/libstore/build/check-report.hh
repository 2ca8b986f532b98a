#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "libstore/build/output-comparison.hh"
#include "libstore/model/store-path.hh"
#include "libutil/hash.hh"

// What a check found, as a value, as words for people, and as JSON (doc/check.md).

namespace firn {

class LocalStore;

struct OutputReport {
    enum class Verdict : uint8_t {
        same,    ///< the archives' hashes are
        equal,   ///< what differs is explained, see TreeDifference::explained
        differs, ///< also where only the hashes do, see `comparison`
    };
    std::string name;
    StorePath path; ///< the registered one
    Verdict verdict = Verdict::same;
    Hash oldHash, newHash; ///< of the archives
    uint64_t oldSize = 0, newSize = 0;
    /// Empty for `same`. Empty and `differs`: what is on disk is not what was registered.
    TreeComparison comparison;
    std::string kept; ///< absolute path of the new tree where it was kept, else empty
};

struct CheckReport {
    std::vector<OutputReport> outputs; ///< all that were compared

    bool deterministic() const;
};

/// For the failure: the first line is stock Nix's, then for each output that is not the same what differs, a
/// bounded number of lines each. `keptForUser`: the first line names OutputReport::kept.
std::string describeCheck(const StoreDir &store, const StorePath &drvPath, const CheckReport &report,
                          bool keptForUser);

/// The lines about one output, without a newline at the end; empty for one that is the same.
std::string describeOutput(const StoreDir &store, const OutputReport &output);

std::string checkReportJson(const StoreDir &store, const StorePath &drvPath, const CheckReport &report,
                            bool keptForUser);

/// Beside the derivation's build log: its name without ".bz2", and ".check.json".
std::filesystem::path checkReportPath(const LocalStore &store, const StorePath &drvPath);

/// Writes the file, or replaces it in one step.
void writeCheckReport(const std::filesystem::path &path, const std::string &json);

} // namespace firn
