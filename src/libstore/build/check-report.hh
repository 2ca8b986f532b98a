#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
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
    Hash oldHash, newHash; ///< of the archives, as registered and as built
    uint64_t oldSize = 0, newSize = 0;
    /// Of what lies at the path with what was built. With `same` it tells what is damaged: what was built is
    /// what was registered.
    TreeComparison comparison{};
    /// What lies at the path is not what was registered, as far as was looked (doc/check.md).
    bool damaged = false;
    std::optional<Hash> diskHash{}; ///< of what lies there, if anything differs and there is something
    std::string unreadable{};       ///< why what lies there could not be compared, which is damage too
    std::string kept{};             ///< absolute path of the new tree where it was kept, else empty
};

struct CheckReport {
    std::vector<OutputReport> outputs; ///< all that were compared
    std::string refused{};             ///< why what was built may not be an output at all, if so

    bool deterministic() const;
    bool damaged() const; ///< any output
};

/// For the failure: the first line is stock Nix's, or says that an output is damaged; then for each output
/// that is not the same or damaged what differs, a bounded number of lines each. `keptForUser`: the first
/// line names OutputReport::kept.
std::string describeCheck(const StoreDir &store, const StorePath &drvPath, const CheckReport &report,
                          bool keptForUser);

/// The lines about one output, without a newline at the end; empty for one of which there is nothing to say.
std::string describeOutput(const StoreDir &store, const OutputReport &output);

std::string checkReportJson(const StoreDir &store, const StorePath &drvPath, const CheckReport &report,
                            bool keptForUser);

/// Beside the derivation's build log: its name without ".bz2", and ".check.json".
std::filesystem::path checkReportPath(const LocalStore &store, const StorePath &drvPath);

/// Writes the file, or replaces it in one step.
void writeCheckReport(const std::filesystem::path &path, const std::string &json);

} // namespace firn
