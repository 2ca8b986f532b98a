#pragma once

#include <map>
#include <string>
#include <vector>

#include "libstore/build/output-copy.hh"
#include "libstore/build/output-nar.hh"
#include "libstore/build/output-tree.hh"
#include "libutil/stream.hh"

namespace firn {

using NewNames = std::map<uint32_t, std::string>; ///< of the nodes that get another

NewNames newNames(const OutputTree &tree, const std::vector<NodePatches> &changes);

/// Puts the entries of every directory into the order of their new names. The names themselves stay those on
/// disk.
void orderByNewNames(OutputTree &tree, const NewNames &names);

/// Writes the archive that an output would have with the patches of all `changes` applied.
class PatchedNarWriter : public OutputNarWriter {
  public:
    /// All must outlive the writer. `tree` is in the order of `names`.
    PatchedNarWriter(const OutputTree &tree, const std::vector<NodePatches> &changes, const NewNames &names,
                     const Rewrites &rewrites, Sink &sink);

  protected:
    std::string archivedName(uint32_t node) override;
    std::string archivedTarget(uint32_t node) override;
    void passContents(int fd, uint32_t node) override;
    /// The contents of a file with changes.
    virtual void passPatched(int fd, const NodePatches &change, Sink &archive);

    const NodePatches *changeOf(uint32_t node) const;

    const Rewrites &rewrites_;
    const NewNames &names_;

  private:
    std::map<uint32_t, const NodePatches *> changes_;
};

/// Writes the archive that an output would have with the patches of all `changes` applied; on disk nothing
/// changes. What the patches are of is as for applyPatches().
void writePatchedNar(int dir, const OutputTree &tree, const std::vector<NodePatches> &changes,
                     const Rewrites &rewrites, Sink &sink);

/// The same for the plain contents of an output that is a single file.
void writePatchedFile(int dir, const OutputTree &tree, const std::vector<NodePatches> &changes,
                      const Rewrites &rewrites, Sink &sink);

/// Whether the entries of every directory come in the same order under both sets of patches.
bool sameEntryOrder(const OutputTree &tree, const std::vector<NodePatches> &one,
                    const std::vector<NodePatches> &other);

} // namespace firn
