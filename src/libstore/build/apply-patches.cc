#include "libstore/build/apply-patches.hh"

#include <optional>
#include <set>
#include <utility>

#include <unistd.h>

#include "libstore/build/patched-nar.hh"
#include "libstore/build/pipelined-sink.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"

namespace firn {

namespace {

/// Does on disk, behind the writing of the archive, what the archive says.
class Applier : public PatchedNarWriter {
  public:
    Applier(OutputTree &tree, const std::vector<NodePatches> &changes, const NewNames &names,
            const Rewrites &rewrites, Sink &archive)
        : PatchedNarWriter(tree, changes, names, rewrites, archive), changing_(tree) {}

    void leaveDirectory(int self, uint32_t node) override;
    void symlink(int dir, uint32_t node) override;

  protected:
    UniqueFd openContents(int dir, uint32_t node) override;
    void passPatched(int fd, const NodePatches &change, Sink &archive) override;
    void closeContents(int dir, uint32_t node, UniqueFd file) override;
    void abandonContents() noexcept override { replacement_.reset(); }

  private:
    using Renames = std::map<uint32_t, std::string>; ///< of a directory's members

    void unlockParent(int dir, uint32_t node) {
        if (node != 0) {
            unlocked_.unlock(dir, tree_.nodes[node].parent);
        }
    }
    Renames renamesIn(uint32_t directory) const;
    void checkCollisions(uint32_t directory);
    void rename(int self, const Renames &renames);

    OutputTree &changing_; ///< the writer's
    UnlockedDirectories unlocked_;
    std::optional<ReplacementFile> replacement_;
};

UniqueFd Applier::openContents(int dir, uint32_t node) {
    const NodePatches *change = changeOf(node);
    if (change != nullptr && change->changesContents() && !change->isOnDisk) {
        unlockParent(dir, node);
        replacement_.emplace(dir, tree_, node);
    }
    return PatchedNarWriter::openContents(dir, node);
}

void Applier::passPatched(int fd, const NodePatches &change, Sink &archive) {
    if (!replacement_) {
        PatchedNarWriter::passPatched(fd, change, archive);
        return;
    }
    if (change.everywhere || !replacement_->cloneFrom(fd)) {
        TeeSink both(*replacement_, archive);
        PatchedNarWriter::passPatched(fd, change, both);
        return;
    }
    for (const Patch &patch : change.contents) {
        replacement_->writeAt(patch.bytes, patch.offset);
    }
    PatchedNarWriter::passPatched(fd, change, archive);
}

void Applier::closeContents(int, uint32_t, UniqueFd file) {
    if (replacement_) {
        replacement_->commit(std::move(file));
        replacement_.reset();
    }
}

void Applier::symlink(int dir, uint32_t node) {
    PatchedNarWriter::symlink(dir, node);
    const NodePatches *change = changeOf(node);
    if (change != nullptr && !change->target.empty()) {
        unlockParent(dir, node);
        replaceSymlink(dir, changing_, node, archivedTarget(node));
    }
}

void Applier::leaveDirectory(int self, uint32_t node) {
    PatchedNarWriter::leaveDirectory(self, node);
    if (Renames renames = renamesIn(node); !renames.empty()) {
        checkCollisions(node);
        unlocked_.unlock(self, node);
        rename(self, renames);
    }
    unlocked_.lock(self, node);
}

Applier::Renames Applier::renamesIn(uint32_t directory) const {
    Renames renames;
    if (names_.empty()) {
        return renames;
    }
    for (uint32_t child : tree_.nodes[directory].children) {
        if (auto found = names_.find(child); found != names_.end()) {
            renames.insert(*found);
        }
    }
    return renames;
}

void Applier::checkCollisions(uint32_t directory) {
    std::set<std::string> names;
    for (uint32_t child : tree_.nodes[directory].children) {
        std::string name = archivedName(child);
        if (!names.insert(name).second) {
            throw Error(ErrorKind::refused,
                        "after rewriting store paths, two entries of '{}' are called '{}'",
                        escapeForDisplay(tree_.pathOf(directory)), escapeForDisplay(name));
        }
    }
}

/// By way of names that nothing has, since one's new name may be another's old one.
void Applier::rename(int self, const Renames &renames) {
    auto move = [&](const std::string &from, const std::string &to) {
        if (renameat(self, from.c_str(), self, to.c_str()) != 0) {
            throwErrno("renaming '{}' to '{}'", escapeForDisplay(from), escapeForDisplay(to));
        }
    };
    std::map<uint32_t, std::string> temporaries;
    for (const auto &[node, name] : renames) {
        std::string temporary = makeTemporary(escapeForDisplay(name), [&](const std::string &candidate) {
            errno = EEXIST;
            return !existsAt(self, candidate);
        });
        move(tree_.nodes[node].name, temporary);
        temporaries.emplace(node, temporary);
    }
    for (const auto &[node, name] : renames) {
        move(temporaries.at(node), name);
        changing_.nodes[node].name = name;
    }
}

} // namespace

HashAndSize applyPatches(int dir, OutputTree &tree, const std::vector<NodePatches> &changes,
                         const Rewrites &rewrites) {
    NewNames names = newNames(tree, changes);
    orderByNewNames(tree, names);
    HashSink hash(HashAlgorithm::sha256);
    PipelinedSink archive(hash);
    Applier(tree, changes, names, rewrites, archive).writeFrom(dir);
    archive.finish();
    return {hash.current(), hash.byteCount()};
}

} // namespace firn
