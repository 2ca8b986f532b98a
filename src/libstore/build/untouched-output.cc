#include "libstore/build/untouched-output.hh"

#include <system_error>

#include <unistd.h>

#include "libutil/directory-stack.hh"
#include "libutil/files.hh"
#include "libutil/interrupt.hh"

namespace firn {

namespace {

using Type = OutputNode::Type;

class UntouchedWalk {
  public:
    UntouchedWalk(int dir, const OutputTree &tree) : tree_(tree), way_(dir, maxOpen) {}

    bool run(const std::string &entry, const std::atomic<bool> &givenUp) {
        struct stat st;
        if (!statAt(way_.current(), entry, st) || !matches(entry, fileType(st.st_mode), 0)) {
            return false;
        }
        while (!remainders_.empty()) {
            throwIfInterrupted();
            if (givenUp || !step()) {
                return false;
            }
        }
        return true;
    }

  private:
    /// What is left to look at in a directory on the way.
    struct Remainder {
        std::vector<DirectoryEntry> entries; ///< as many as the node has children, and in the same order
        uint32_t directory;
        size_t next = 0;
    };

    bool step() {
        Remainder &top = remainders_.back();
        if (top.next == top.entries.size()) {
            remainders_.pop_back();
            way_.leave();
            return true;
        }
        DirectoryEntry entry = std::move(top.entries[top.next]);
        uint32_t node = tree_.nodes[top.directory].children[top.next++];
        return entry.name == tree_.nodes[node].name && matches(entry.name, entry.type, node);
    }

    bool matches(const std::string &name, FileType type, uint32_t node) {
        const OutputNode &expected = tree_.nodes[node];
        switch (expected.type) {
        case Type::regular:
            return type == FileType::regular && fileMatches(name, expected);
        case Type::symlink:
            return type == FileType::symlink && readLinkAt(way_.current(), name) == expected.target;
        case Type::directory:
            return type == FileType::directory && enter(name, node);
        }
        return false;
    }

    bool fileMatches(const std::string &name, const OutputNode &expected) const {
        struct stat st;
        return statAt(way_.current(), name, st) && S_ISREG(st.st_mode) &&
               static_cast<uint64_t>(st.st_size) == expected.size && st.st_mtime == 1 &&
               st.st_uid == owner_ && (st.st_mode & 07777) == (expected.executable ? 0555 : 0444);
    }

    bool enter(const std::string &name, uint32_t node) {
        way_.enter(name);
        remainders_.push_back({listEntries(way_.current()), node});
        return remainders_.back().entries.size() == tree_.nodes[node].children.size();
    }

    static constexpr size_t maxOpen = 16; ///< directories: the scan has its own open meanwhile

    const OutputTree &tree_;
    const uid_t owner_ = geteuid();
    DirectoryStack way_;
    std::vector<Remainder> remainders_; ///< one for each directory on the way
};

} // namespace

bool looksUntouched(int dir, const std::string &entry, const OutputTree &tree) {
    return UntouchedWalk(dir, tree).run(entry, false);
}

UntouchedLook::UntouchedLook(int dir, std::string entry, const OutputTree &tree) {
    try {
        answer_ = std::async(std::launch::async, [this, dir, name = std::move(entry), &tree] {
                      return UntouchedWalk(dir, tree).run(name, givenUp_);
                  }).share();
    } catch (const std::system_error &) {
        // No thread to be had: whoever wants to know it looks then.
    }
}

UntouchedLook::~UntouchedLook() {
    givenUp_ = true;
    finish();
}

std::shared_future<bool> UntouchedLook::finish() {
    if (answer_.valid()) {
        answer_.wait();
    }
    return answer_;
}

} // namespace firn
