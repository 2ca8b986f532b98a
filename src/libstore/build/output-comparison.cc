#include "libstore/build/output-comparison.hh"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>

#include <fcntl.h>
#include <unistd.h>

#include "libutil/directory-stack.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/interrupt.hh"
#include "libutil/positioned-io.hh"

namespace firn {

namespace {

using Kind = TreeDifference::Kind;

constexpr size_t machoHead = 4; ///< bytes that tell whether a file can be Mach-O

ObjectType typeOf(const struct stat &st, const std::string &name) {
    if (S_ISREG(st.st_mode)) {
        return ObjectType::regular;
    }
    if (S_ISDIR(st.st_mode)) {
        return ObjectType::directory;
    }
    if (S_ISLNK(st.st_mode)) {
        return ObjectType::symlink;
    }
    throw Error(ErrorKind::corrupt, "'{}' is neither a regular file nor a directory nor a symlink",
                escapeForDisplay(name));
}

/// Reads files from their beginning, block by block, two at a time.
class FilePair {
  public:
    FilePair(int oldFile, int newFile) : oldFile_(oldFile), newFile_(newFile) {}

    /// Fills firstOffset and differingBytes.
    void compare(TreeDifference &difference) {
        uint64_t common = std::min(difference.oldSize, difference.newSize);
        bool found = false;
        for (uint64_t at = 0; at < common;) {
            throwIfInterrupted();
            auto size = static_cast<size_t>(std::min<uint64_t>(blockSize, common - at));
            readFullAt(oldFile_, at, old_.get(), size);
            readFullAt(newFile_, at, new_.get(), size);
            if (memcmp(old_.get(), new_.get(), size) != 0) {
                countIn(at, size, found, difference);
            }
            at += size;
        }
        if (difference.oldSize != difference.newSize) {
            difference.firstOffset = found ? difference.firstOffset : common;
            difference.differingBytes += std::max(difference.oldSize, difference.newSize) - common;
        }
    }

    bool canBothBeMacho(const TreeDifference &difference) {
        if (std::min(difference.oldSize, difference.newSize) < machoHead) {
            return false;
        }
        readFullAt(oldFile_, 0, old_.get(), machoHead);
        readFullAt(newFile_, 0, new_.get(), machoHead);
        return canBeMacho({old_.get(), machoHead}) && canBeMacho({new_.get(), machoHead});
    }

  private:
    static constexpr size_t blockSize = 256 * 1024;

    void countIn(uint64_t begin, size_t size, bool &found, TreeDifference &difference) const {
        for (size_t i = 0; i < size; ++i) {
            if (old_[i] != new_[i]) {
                difference.firstOffset = found ? difference.firstOffset : begin + i;
                found = true;
                ++difference.differingBytes;
            }
        }
    }

    int oldFile_, newFile_;
    std::unique_ptr<char[]> old_{new char[blockSize]}, new_{new char[blockSize]};
};

/// Names of two directories side by side.
struct Level {
    std::vector<std::string> oldNames, newNames;
    size_t oldNext = 0, newNext = 0;
    size_t pathLength = 0; ///< of the directory's own path
};

/// The next name of a directory, and where it is.
struct NextName {
    std::string name;
    bool inOld, inNew;
};

std::optional<NextName> takeNext(Level &level) {
    bool oldLeft = level.oldNext < level.oldNames.size(), newLeft = level.newNext < level.newNames.size();
    if (!oldLeft && !newLeft) {
        return std::nullopt;
    }
    int order = !oldLeft   ? 1
                : !newLeft ? -1
                           : level.oldNames[level.oldNext].compare(level.newNames[level.newNext]);
    NextName next{order <= 0 ? level.oldNames[level.oldNext] : level.newNames[level.newNext], order <= 0,
                  order >= 0};
    level.oldNext += next.inOld ? 1 : 0;
    level.newNext += next.inNew ? 1 : 0;
    return next;
}

class TreeComparer {
  public:
    TreeComparer(const TreePlace &oldTree, const TreePlace &newTree, const CompareOptions &options)
        : oldTree_(oldTree),
          newTree_(newTree),
          options_(options),
          oldStack_(oldTree.dir),
          newStack_(newTree.dir) {}

    TreeComparison run() {
        compareNames(oldTree_.name, newTree_.name, true, true);
        while (!levels_.empty()) {
            throwIfInterrupted();
            path_.resize(levels_.back().pathLength);
            if (std::optional<NextName> next = takeNext(levels_.back())) {
                path_ += (path_.empty() ? "" : "/") + next->name;
                compareNames(next->name, next->name, next->inOld, next->inNew);
            } else {
                oldStack_.leave();
                newStack_.leave();
                levels_.pop_back();
            }
        }
        return std::move(result_);
    }

  private:
    TreeDifference difference(Kind kind) const {
        TreeDifference difference;
        difference.kind = kind;
        difference.path = path_;
        return difference;
    }

    void compareNames(const std::string &oldName, const std::string &newName, bool inOld, bool inNew) {
        struct stat oldStat = {}, newStat = {};
        inOld = inOld && statAt(oldStack_.current(), oldName, oldStat);
        inNew = inNew && statAt(newStack_.current(), newName, newStat);
        if (inOld && inNew) {
            compareObjects(oldName, newName, oldStat, newStat);
        } else if (inOld || inNew) {
            TreeDifference alone = difference(inOld ? Kind::missing : Kind::extra);
            alone.type = alone.newType = typeOf(inOld ? oldStat : newStat, path_);
            add(std::move(alone));
        }
    }

    void compareObjects(const std::string &oldName, const std::string &newName, const struct stat &oldStat,
                        const struct stat &newStat) {
        ObjectType oldType = typeOf(oldStat, path_), newType = typeOf(newStat, path_);
        if (oldType != newType) {
            TreeDifference types = difference(Kind::type);
            types.type = oldType;
            types.newType = newType;
            add(std::move(types));
            return;
        }
        switch (oldType) {
        case ObjectType::regular:
            compareFiles(oldName, newName, oldStat, newStat);
            break;
        case ObjectType::symlink:
            compareTargets(oldName, newName);
            break;
        case ObjectType::directory:
            enter(oldName, newName);
            break;
        }
    }

    void enter(const std::string &oldName, const std::string &newName) {
        oldStack_.enter(oldName);
        newStack_.enter(newName);
        levels_.push_back(
            {listDirectory(oldStack_.current()), listDirectory(newStack_.current()), 0, 0, path_.size()});
    }

    void compareTargets(const std::string &oldName, const std::string &newName) {
        TreeDifference targets = difference(Kind::target);
        targets.type = targets.newType = ObjectType::symlink;
        targets.oldTarget = readLinkAt(oldStack_.current(), oldName);
        targets.newTarget = readLinkAt(newStack_.current(), newName);
        if (targets.oldTarget != targets.newTarget) {
            add(std::move(targets));
        }
    }

    void compareFiles(const std::string &oldName, const std::string &newName, const struct stat &oldStat,
                      const struct stat &newStat) {
        if (oldStat.st_dev == newStat.st_dev && oldStat.st_ino == newStat.st_ino) {
            // The store was optimised, or the builder linked what was there.
            if (options_.isStale) {
                lookAtSame(openFileAt(oldStack_.current(), oldName).get(), oldStat);
            }
            return;
        }
        bool executable = oldStat.st_mode & S_IXUSR;
        if (executable != static_cast<bool>(newStat.st_mode & S_IXUSR)) {
            TreeDifference modes = difference(Kind::executable);
            modes.executable = executable;
            add(std::move(modes));
        }
        TreeDifference contents = difference(Kind::contents);
        contents.oldSize = static_cast<uint64_t>(oldStat.st_size);
        contents.newSize = static_cast<uint64_t>(newStat.st_size);
        if (contents.oldSize == 0 && contents.newSize == 0) {
            return;
        }
        UniqueFd oldFile = openFileAt(oldStack_.current(), oldName);
        UniqueFd newFile = openFileAt(newStack_.current(), newName);
        FilePair pair(oldFile.get(), newFile.get());
        pair.compare(contents);
        if (contents.differingBytes > 0) {
            if (options_.compareMacho && pair.canBothBeMacho(contents)) {
                contents.macho =
                    options_.compareMacho(oldFile.get(), contents.oldSize, newFile.get(), contents.newSize);
            }
            contents.explained = options_.explains && options_.explains(contents);
            add(std::move(contents));
        } else if (options_.isStale) {
            lookAtSame(oldFile.get(), oldStat);
        }
    }

    /// The two are the same.
    void lookAtSame(int file, const struct stat &st) {
        auto size = static_cast<uint64_t>(st.st_size);
        std::array<char, machoHead> head{};
        if (size < head.size() || result_.stale.size() >= options_.mostListed) {
            return;
        }
        readFullAt(file, 0, head.data(), head.size());
        if (canBeMacho({head.data(), head.size()}) && options_.isStale(file, size)) {
            result_.stale.push_back(path_);
        }
    }

    void add(TreeDifference found) {
        ++counter(found);
        if (result_.differences.size() < options_.mostListed) {
            result_.differences.push_back(std::move(found));
        } else {
            result_.truncated = true;
        }
    }

    uint64_t &counter(const TreeDifference &found) {
        switch (found.kind) {
        case Kind::contents:
            return found.explained ? result_.explained : result_.contents;
        case Kind::executable:
            return result_.executable;
        case Kind::target:
            return result_.target;
        case Kind::type:
            return result_.type;
        case Kind::missing:
            return result_.missing;
        case Kind::extra:
            break;
        }
        return result_.extra;
    }

    const TreePlace &oldTree_, &newTree_;
    const CompareOptions &options_;
    DirectoryStack oldStack_, newStack_;
    std::vector<Level> levels_;
    std::string path_; ///< of what is looked at
    TreeComparison result_;
};

} // namespace

TreeComparison compareTrees(const TreePlace &oldTree, const TreePlace &newTree,
                            const CompareOptions &options) {
    return TreeComparer(oldTree, newTree, options).run();
}

} // namespace firn
