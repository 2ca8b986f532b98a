#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "libstore/build/macho-jail.hh"
#include "libstore/build/register-outputs.hh"

// The repair of what rewriting does to Mach-O files. Nothing here parses one: whether a file can be Mach-O is
// told by its first four bytes, the rest is seen by the jail, whose answers are checked and applied.

namespace firn {

/// Makes the code signatures of rewritten Mach-O files right again. One for the outputs of one build.
class MachoPageHashFixup : public OutputRepair {
  public:
    /// All must outlive it.
    MachoPageHashFixup(const LocalStore &store, Logger &logger, const RegistrationRequest &request,
                       MachoSignatures policy, MachoJail &jail);

    /// Has the jail started where it can be Mach-O: it gets ready while the output is read.
    uint64_t foresee(const FileHead &head, uint64_t size) override;

    /// Throws BuildFailure, and warns, as repair() does, which has the rest to say.
    std::vector<Patch> repairFile(const OutputRewrite &output, int file) override;

    /// Says in the log which files are hashed by Nix's own rule though they hold the output's path, and why.
    /// Nothing where signatures are not to be touched (macho-signatures = warn). Throws BuildFailure where
    /// the jail does not answer.
    AddressForms formsForAddress(const OutputRewrite &output, const StorePath &scratchPath) override;

    /// Throws BuildFailure where a signature that was right cannot be made right again, or may not
    /// (macho-signatures), or where the jail does not answer: with file, reason and remedy. Says in the log
    /// what is repaired, and warns of what was wrong before or is left wrong.
    std::vector<FilePatches> repair(const OutputRewrite &output) override;

    /// Has the jail look at the new files. Throws BuildFailure where a slot that was to be repaired is wrong,
    /// or where a file is not in its final form.
    void verify(const OutputRewrite &output) override;

    /// Whether the file came with wrong page hashes that are right now.
    bool madeRight(const std::string &outputName, uint32_t node) const;

  private:
    /// What has to be right once the patches are on disk.
    struct Expectation {
        std::vector<ByteRange> touched; ///< by rewrites; empty if `everywhere`
        std::vector<ByteRange> repaired;
        std::set<uint64_t> leftWrong; ///< slices with something that was not repaired
        bool everywhere = false;
        std::set<uint64_t>
            staleBefore; ///< with `everywhere`: places of the slots that were wrong in the old file
    };
    using Expectations = std::map<uint32_t, Expectation>; ///< by number of the node

    struct Repaired {
        std::string path;                      ///< in the output
        std::map<std::string, uint64_t> slots; ///< by architecture
    };

    /// A file with a normal form.
    struct FormedFile {
        std::vector<Patch> settled; ///< what others' paths have changed in its signatures
        bool hasUuid = false;
    };
    using Formed = std::map<uint32_t, FormedFile>; ///< by number of the node

    struct FixupAnswer {
        PageHashFixup fixup;
        std::set<uint64_t> staleBefore; ///< see Expectation
    };
    /// What is known of a file before repair(), and judged.
    struct EarlyAnswer {
        uint32_t node;
        FixupAnswer answer;
    };

    class Batch;

    void formOne(const OutputRewrite &output, const NodePatches &change, std::string_view selfPart, int file,
                 AddressForms &forms);
    std::vector<Patch> settle(const OutputRewrite &output, const NodePatches &change,
                              std::string_view selfPart, int file);
    jail::Form askForForm(jail::Kind kind, const OutputRewrite &output, const NodePatches &change,
                          std::vector<Patch> further, std::string_view selfPart, int file);
    std::vector<Patch> finalForm(const OutputRewrite &output, const NodePatches &change,
                                 const std::vector<Patch> &settled, int file);
    void verifyFinalForm(const OutputRewrite &output, const NodePatches &change, int file);
    const std::vector<Patch> *settledOf(const OutputRewrite &output, uint32_t node) const;
    std::string_view finalPart(const OutputRewrite &output) const;
    void logForms(const OutputRewrite &output);
    void warnOfSymbols(const OutputRewrite &output, const Formed &formed);
    jail::Request fixupRequest(const OutputRewrite &output, const NodePatches &change, int file) const;

    std::set<uint64_t> staleSlots(const OutputRewrite &output, const NodePatches &change, int file);
    MachoSignatures policyFor(const OutputRewrite &output) const;
    FixupAnswer askForFixup(const OutputRewrite &output, const NodePatches &change, int file);
    std::vector<Patch> takeFixup(const OutputRewrite &output, const NodePatches &change, FixupAnswer answer);
    void remember(const OutputRewrite &output, const NodePatches &change, const PageHashFixup &fixup,
                  std::set<uint64_t> staleBefore);
    jail::Request verifyRequest(const OutputRewrite &output, const NodePatches &change, int file) const;
    void requireRight(const OutputRewrite &output, const NodePatches &change,
                      const std::vector<jail::StaleSlot> &stale);
    void judge(const OutputRewrite &output, const NodePatches &change,
               const std::vector<MachoFinding> &findings, MachoSignatures policy);
    void warn(const OutputRewrite &output, uint32_t node, const MachoFinding &finding,
              MachoSignatures policy);
    jail::Answer ask(const OutputRewrite &output, const NodePatches &change, const jail::Request &request,
                     int file);
    [[noreturn]] void rethrowWithReason(const OutputRewrite &output, const NodePatches &change) const;
    void warnOfSeals(const OutputRewrite &output);
    void logRepairs(const OutputRewrite &output);
    [[noreturn]] void fail(const OutputRewrite &output, const NodePatches &change, const std::string &why,
                           const std::string &choice = "");

    std::string describe(const OutputRewrite &output, uint32_t node) const;
    StorePathSet rewrittenPaths(const OutputRewrite &output, const NodePatches &change) const;
    std::string remedy() const;

    const LocalStore &store_;
    Logger &logger_;
    const RegistrationRequest &request_;
    MachoSignatures policy_;
    MachoJail &jail_;
    std::map<std::string, Expectations> expectations_;      ///< by output name
    std::map<std::string, Formed> formed_;                  ///< by output name
    std::map<std::string, std::vector<EarlyAnswer>> early_; ///< by output name, in the archive's order
    std::set<std::pair<std::string, uint32_t>> madeRight_;  ///< output name and node
    std::vector<Repaired> repaired_;                        ///< in the output at hand
    StorePathSet repairedFor_;                              ///< paths that were rewritten in these
};

} // namespace firn
