#pragma once

#include <functional>
#include <map>
#include <optional>

#include "libstore/build/check-report.hh"
#include "libstore/build/macho-jail.hh"
#include "libstore/build/register-outputs.hh"

namespace firn {

struct OutputCheckOptions {
    bool keepForUser = false;         ///< keep-failed: differing trees stay as "<path>.check"
    bool keepForHook = false;         ///< they are moved there, too; the caller removes them
    std::filesystem::path reportFile; ///< where the JSON goes; empty: nowhere
    /// Of a fixed output: what differs has another hash than the derivation says, which is refused, and the
    /// status of that is the failure's.
    bool hashIsPromised = false;
    /// Whether the builder left this file of this output with a stale signature that is right now. May be
    /// empty.
    std::function<bool(const std::string &outputName, uint32_t node)> madeRight{};
};

/// Compares what was built for a check with what is registered, and says what differs.
class OutputCheck : public OutputJudge {
  public:
    /// All must outlive it. `report` is filled by judge(), whether that throws or not.
    OutputCheck(LocalStore &store, Logger &logger, const StorePath &drvPath, MachoJail &jail,
                OutputCheckOptions options, CheckReport &report)
        : store_(store),
          logger_(logger),
          drvPath_(drvPath),
          jail_(jail),
          options_(std::move(options)),
          report_(report) {}

    void judge(const std::vector<CheckedOutput> &outputs, const BuildFailure *refusal) override;

  private:
    OutputReport compare(const CheckedOutput &output);
    bool looksAsRegistered(const CheckedOutput &output);
    CompareOptions compareOptions(const CheckedOutput &output,
                                  const std::map<std::string, uint32_t> &rewritten);
    void compareTreesOf(const CheckedOutput &output, OutputReport &report);
    void lookForStale(const CheckedOutput &output, OutputReport &report);
    void lookForDamage(OutputReport &report);
    std::optional<jail::Answer> askJail(const jail::Request &request, int file, int second = -1);
    MachoComparison compareMacho(int oldFile, uint64_t oldSize, int newFile, uint64_t newSize);
    bool isStale(int file, uint64_t size);
    void removeKept(const StorePath &path);
    void keep(const CheckedOutput &output, OutputReport &report);
    void writeReport();
    [[noreturn]] void fail(const BuildFailure *refusal);

    LocalStore &store_;
    Logger &logger_;
    const StorePath &drvPath_;
    MachoJail &jail_;
    OutputCheckOptions options_;
    CheckReport &report_;
    unsigned jailFailures_ = 0;
};

/// Name in the store under which a differing tree is kept. Throws badInput where that is too long.
StorePath keptCheckPath(const StorePath &path);

} // namespace firn
