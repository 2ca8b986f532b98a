#include "libstore/build/patched-nar.hh"

#include <algorithm>
#include <map>

#include "libstore/build/output-nar.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"

namespace firn {

NewNames newNames(const OutputTree &tree, const std::vector<NodePatches> &changes) {
    NewNames names;
    for (const NodePatches &change : changes) {
        if (!change.name.empty()) {
            names.emplace(change.node, overlaid(tree.nodes[change.node].name, change.name));
        }
    }
    return names;
}

namespace {

const std::string &nameOf(const OutputTree &tree, const NewNames &names, uint32_t node) {
    auto found = names.find(node);
    return found == names.end() ? tree.nodes[node].name : found->second;
}

void sortChildren(OutputTree &tree, const NewNames &names, uint32_t directory) {
    auto &children = tree.nodes[directory].children;
    std::sort(children.begin(), children.end(),
              [&](uint32_t a, uint32_t b) { return nameOf(tree, names, a) < nameOf(tree, names, b); });
}

OutputTree ordered(OutputTree tree, const NewNames &names) {
    orderByNewNames(tree, names);
    return tree;
}

} // namespace

void orderByNewNames(OutputTree &tree, const NewNames &names) {
    for (const auto &[node, name] : names) {
        sortChildren(tree, names, tree.nodes[node].parent);
    }
}

PatchedNarWriter::PatchedNarWriter(const OutputTree &tree, const std::vector<NodePatches> &changes,
                                   const NewNames &names, const Rewrites &rewrites, Sink &sink)
    : OutputNarWriter(tree, sink), rewrites_(rewrites), names_(names) {
    for (const NodePatches &change : changes) {
        changes_.emplace(change.node, &change);
    }
}

const NodePatches *PatchedNarWriter::changeOf(uint32_t node) const {
    auto found = changes_.find(node);
    return found == changes_.end() ? nullptr : found->second;
}

std::string PatchedNarWriter::archivedName(uint32_t node) {
    return nameOf(tree_, names_, node);
}

std::string PatchedNarWriter::archivedTarget(uint32_t node) {
    const NodePatches *change = changeOf(node);
    const std::string &target = tree_.nodes[node].target;
    return change == nullptr ? target : overlaid(target, change->target);
}

namespace {

/// What is read goes on into the archive.
class Contents : public Sink {
  public:
    using Put = std::function<void(std::string_view)>;
    explicit Contents(Put put) : put_(std::move(put)) {}
    void write(std::string_view bytes) override { put_(bytes); }

  private:
    Put put_;
};

} // namespace

void PatchedNarWriter::passPatched(int fd, const NodePatches &change, Sink &archive) {
    readPatched(fd, change, rewrites_, archive);
}

void PatchedNarWriter::passContents(int fd, uint32_t node) {
    const NodePatches *change = changeOf(node);
    if (change == nullptr || change->isOnDisk) {
        OutputNarWriter::passContents(fd, node);
        return;
    }
    Contents contents([this](std::string_view bytes) { putContents(bytes); });
    passPatched(fd, *change, contents);
}

void writePatchedNar(int dir, const OutputTree &tree, const std::vector<NodePatches> &changes,
                     const Rewrites &rewrites, Sink &sink) {
    NewNames names = newNames(tree, changes);
    if (names.empty()) {
        PatchedNarWriter(tree, changes, names, rewrites, sink).writeFrom(dir);
    } else {
        OutputTree inOrder = ordered(tree, names);
        PatchedNarWriter(inOrder, changes, names, rewrites, sink).writeFrom(dir);
    }
}

void writePatchedFile(int dir, const OutputTree &tree, const std::vector<NodePatches> &changes,
                      const Rewrites &rewrites, Sink &sink) {
    UniqueFd file = openFileAt(dir, tree.root().name);
    NodePatches none{0, {}, {}, {}};
    readPatched(file.get(), changes.empty() ? none : changes.front(), rewrites, sink);
}

bool sameEntryOrder(const OutputTree &tree, const std::vector<NodePatches> &one,
                    const std::vector<NodePatches> &other) {
    NewNames first = newNames(tree, one), second = newNames(tree, other);
    if (first.empty() && second.empty()) {
        return true;
    }
    OutputTree inFirst = ordered(tree, first), inSecond = ordered(tree, second);
    for (size_t node = 0; node < tree.nodes.size(); ++node) {
        if (inFirst.nodes[node].children != inSecond.nodes[node].children) {
            return false;
        }
    }
    return true;
}

} // namespace firn
