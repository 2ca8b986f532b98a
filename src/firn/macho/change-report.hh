#pragma once

#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <vector>

#include "firn/macho/json-list.hh"
#include "libstore/darwin/macho-page-hashes.hh"

namespace firn {

/// For handlers of errors that are about one file: throws on what is about all.
void rethrowIfInterrupted(const std::exception &error);

/// What `firn macho rewrite` or `repair` did to one entry of a tree, or why it did not.
struct Change {
    enum class Status {
        unchanged, ///< nothing to do
        changed,   ///< also where it would have been, with --dry-run
        refused,   ///< as it was before: it could not be read, repaired or written
    };
    Status status = Status::unchanged;
    std::string path;          ///< as it was found
    std::string newName;       ///< last component; empty if it kept its own
    std::string target;        ///< new target of a symlink
    uint64_t replacements = 0; ///< places in contents, target and name
    uint64_t brokenLinks = 0;  ///< other names of the file, which have the old contents
    std::vector<MachoFinding> findings;
    std::string problem, remedy; ///< when refused

    bool any(MachoFinding::Kind kind) const;
    uint64_t slots(MachoFinding::Kind kind) const;
};

/// Prints what was done: results to standard output, refusals and warnings to standard error.
class ChangeReport {
  public:
    /// What a malformed signature means for the exit status.
    enum class OnMalformed { warn, fail };
    /// `verb`: what was done to a changed entry, for people: "rewritten", "repaired", "would be repaired".
    ChangeReport(bool json, std::string verb, OnMalformed onMalformed);

    void countFile() { ++files_; }
    /// `always`: also if nothing was to do.
    void add(const Change &change, bool always);
    /// Returns the exit status; `ifChanged` is the one for changes and nothing refused.
    int finish(int ifChanged);

  private:
    void print(const Change &change) const;

    std::optional<JsonList> list_;
    std::string verb_;
    OnMalformed onMalformed_;
    bool trouble_ = false;
    uint64_t files_ = 0, changed_ = 0, refused_ = 0, replacements_ = 0, renamed_ = 0, slots_ = 0;
};

} // namespace firn
