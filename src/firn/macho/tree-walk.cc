#include "firn/macho/tree-walk.hh"

#include "libutil/directory-stack.hh"
#include "libutil/error.hh"
#include "libutil/interrupt.hh"

namespace firn {

namespace {

class Walk {
  public:
    Walk(int root, const std::string &path, TreeVisitor &visitor)
        : way_(root), path_(path), visitor_(visitor) {}

    void run() {
        if (!begin()) {
            return;
        }
        while (!levels_.empty()) {
            throwIfInterrupted();
            Level &level = levels_.back();
            if (level.next < level.entries.size()) {
                visit(level.entries[level.next++]);
            } else {
                end();
            }
        }
    }

  private:
    struct Level {
        std::vector<DirectoryEntry> entries;
        size_t next = 0;
        size_t pathLength; ///< of the directory's own path
    };

    /// Starts with the current directory; false if it is not gone through.
    bool begin() {
        try {
            if (!visitor_.enter(way_.current(), path_)) {
                return false;
            }
            levels_.push_back({listEntries(way_.current()), 0, path_.size()});
            return true;
        } catch (const SysError &error) {
            visitor_.problem(path_, error.message());
            return false;
        }
    }

    void end() {
        Level level = std::move(levels_.back());
        levels_.pop_back();
        visitor_.leave(way_.current(), level.entries, path_);
        if (!levels_.empty()) {
            goBack();
        }
    }

    void goBack() {
        way_.leave();
        path_.resize(levels_.back().pathLength);
    }

    // A copy: the level it belongs to may move.
    void visit(DirectoryEntry entry) {
        size_t length = path_.size();
        path_ += (path_.ends_with('/') ? "" : "/") + entry.name;
        if (entry.type == FileType::directory) {
            return visitDirectory(entry.name);
        }
        if (entry.type == FileType::regular) {
            visitor_.file(way_.current(), entry.name, path_);
        } else if (entry.type == FileType::symlink) {
            visitor_.symlink(way_.current(), entry.name, path_);
        }
        path_.resize(length);
    }

    void visitDirectory(const std::string &name) {
        try {
            way_.enter(name);
        } catch (const Error &error) {
            visitor_.problem(path_, error.message());
            path_.resize(levels_.back().pathLength);
            return;
        }
        if (!begin()) {
            goBack();
        }
    }

    DirectoryStack way_;
    std::string path_;
    TreeVisitor &visitor_;
    std::vector<Level> levels_;
};

} // namespace

void walkTree(int root, const std::string &path, TreeVisitor &visitor) {
    Walk(root, path, visitor).run();
}

} // namespace firn
