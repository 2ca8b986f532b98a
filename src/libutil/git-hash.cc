#include "libutil/git-hash.hh"

#include <algorithm>
#include <cerrno>
#include <memory>
#include <vector>

#include <sys/stat.h>

#include "libutil/directory-stack.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/interrupt.hh"

namespace firn {

namespace {

/// An entry of a tree, or the root.
struct GitEntry {
    std::string_view mode;
    std::string name;
    Hash hash;

    /// Trees are sorted as if directories had a slash behind their names.
    std::string sortKey() const { return mode == directoryMode ? name + "/" : name; }

    static constexpr std::string_view directoryMode = "40000", fileMode = "100644", executableMode = "100755",
                                      symlinkMode = "120000";
};

class GitHasher {
  public:
    GitHasher(int dir, HashAlgorithm algorithm) : way_(dir), algorithm_(algorithm) {}

    Hash hash(const std::string &name) {
        struct stat st;
        if (!statAt(way_.current(), name, st)) {
            throw SysError(ENOENT, "hashing " + way_.describe(name));
        }
        open_.emplace_back(); // whose one entry is the root
        add({name, fileType(st.st_mode)});
        while (way_.depth() > 0) {
            addNext();
        }
        return open_.back().done.front().hash;
    }

  private:
    /// A directory whose entries are being hashed.
    struct Tree {
        std::vector<DirectoryEntry> pending;
        std::vector<GitEntry> done;
    };

    /// One step: another entry of the innermost directory, or its end.
    void addNext() {
        throwIfInterrupted();
        std::vector<DirectoryEntry> &pending = open_.back().pending;
        if (pending.empty()) {
            Hash hash = hashTree(open_.back().done);
            open_.pop_back();
            std::string name = way_.leave();
            open_.back().done.push_back({GitEntry::directoryMode, std::move(name), hash});
            return;
        }
        DirectoryEntry entry = std::move(pending.back());
        pending.pop_back();
        add(entry);
    }

    void add(const DirectoryEntry &entry) {
        switch (entry.type) {
        case FileType::directory:
            way_.enter(entry.name);
            open_.push_back({listEntries(way_.current()), {}});
            return;
        case FileType::regular:
            open_.back().done.push_back(hashFile(entry.name));
            return;
        case FileType::symlink: {
            std::string target = readLinkAt(way_.current(), entry.name);
            open_.back().done.push_back({GitEntry::symlinkMode, entry.name, hashObject("blob", target)});
            return;
        }
        default:
            throw Error(
                ErrorKind::badInput,
                "{} has a type that has no git hash: only regular files, directories and symlinks can "
                "be in the store",
                way_.describe(entry.name));
        }
    }

    GitEntry hashFile(const std::string &name) {
        UniqueFd fd = openFileAt(way_.current(), name);
        struct stat st;
        if (fstat(fd.get(), &st) != 0) {
            throwErrno("looking at file {}", way_.describe(name));
        }
        HashSink sink(algorithm_);
        sink.write(header("blob", st.st_size));
        uint64_t ahead = sink.byteCount();
        passContents(fd.get(), sink);
        if (sink.byteCount() - ahead != static_cast<uint64_t>(st.st_size)) {
            throw Error(ErrorKind::failure, "file {} changed its size while it was read",
                        way_.describe(name));
        }
        bool executable = (st.st_mode & S_IXUSR) != 0;
        return {executable ? GitEntry::executableMode : GitEntry::fileMode, name, sink.current()};
    }

    void passContents(int fd, Sink &sink) {
        FdSource source(fd);
        if (!block_) {
            block_ = std::make_unique_for_overwrite<char[]>(blockSize);
        }
        while (size_t count = source.read(block_.get(), blockSize)) {
            throwIfInterrupted();
            sink.write({block_.get(), count});
        }
    }

    Hash hashTree(std::vector<GitEntry> &entries) const {
        std::ranges::sort(entries, {}, &GitEntry::sortKey);
        std::string text;
        for (const GitEntry &entry : entries) {
            text += fmt::format("{} {}", entry.mode, entry.name);
            text += '\0';
            text += entry.hash.digest();
        }
        return hashObject("tree", text);
    }

    Hash hashObject(std::string_view kind, std::string_view contents) const {
        HashSink sink(algorithm_);
        sink.write(header(kind, contents.size()));
        sink.write(contents);
        return sink.current();
    }

    static std::string header(std::string_view kind, uint64_t size) {
        return fmt::format("{} {}", kind, size) + '\0';
    }

    static constexpr size_t blockSize = 256 * 1024;
    DirectoryStack way_;
    std::unique_ptr<char[]> block_;
    HashAlgorithm algorithm_;
    std::vector<Tree> open_; ///< one for each directory on the way, and one around the root
};

} // namespace

bool isGitAlgorithm(HashAlgorithm algorithm) {
    return algorithm == HashAlgorithm::sha1 || algorithm == HashAlgorithm::sha256;
}

Hash hashGitObject(int dir, const std::string &name, HashAlgorithm algorithm) {
    if (!isGitAlgorithm(algorithm)) {
        throw Error(ErrorKind::badInput, "git hashes are made with sha1 or sha256, not with {}",
                    hashAlgorithmName(algorithm));
    }
    return GitHasher(dir, algorithm).hash(name);
}

} // namespace firn
