#include <algorithm>
#include <cerrno>
#include <memory>

#include <fcntl.h>
#include <unistd.h>

#include "libutil/directory-stack.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/interrupt.hh"
#include "libutil/nar.hh"
#include "libutil/platform.hh"

namespace firn {

namespace {

class NarDumper {
  public:
    NarDumper(int dir, Sink &sink) : way_(dir), writer_(sink) {}

    void dump(const std::string &name) {
        struct stat st;
        if (!statAt(way_.current(), name, st)) {
            throw SysError(ENOENT, "making an archive of " + way_.describe(name));
        }
        writer_.begin();
        dumpNode({name, fileType(st.st_mode)});
        while (way_.depth() > 0) {
            dumpNext();
        }
    }

  private:
    struct Remainder {
        std::vector<DirectoryEntry> entries;
        size_t next = 0;
    };

    /// One step: the next entry of the innermost directory, or its end.
    void dumpNext() {
        Remainder &remainder = remainders_.back();
        if (remainder.next == remainder.entries.size()) {
            endDirectory();
            return;
        }
        DirectoryEntry entry = std::move(remainder.entries[remainder.next++]);
        writer_.beginEntry(entry.name);
        if (!dumpNode(entry)) {
            writer_.endEntry();
        }
    }

    void endDirectory() {
        remainders_.pop_back();
        way_.leave();
        writer_.endDirectory();
        if (way_.depth() > 0) {
            writer_.endEntry();
        }
    }

    /// True if a directory was begun.
    bool dumpNode(const DirectoryEntry &entry) {
        switch (entry.type) {
        case FileType::directory:
            way_.enter(entry.name);
            remainders_.push_back({listEntries(way_.current())});
            writer_.beginDirectory();
            return true;
        case FileType::regular:
            dumpFile(entry.name);
            return false;
        case FileType::symlink:
            writer_.symlink(readLinkAt(way_.current(), entry.name));
            return false;
        default:
            throw Error(
                ErrorKind::badInput,
                "{} has a type that archives cannot hold: only regular files, directories and symlinks can "
                "be in the store",
                way_.describe(entry.name));
        }
    }

    void dumpFile(const std::string &name) {
        UniqueFd fd = openFileAt(way_.current(), name);
        struct stat st;
        if (fstat(fd.get(), &st) != 0) {
            throwErrno("looking at file {}", way_.describe(name));
        }
        writer_.beginFile(st.st_mode & S_IXUSR, st.st_size);
        adviseSequential(fd.get(), st.st_size);
        passContents(fd.get(), st.st_size, name);
        writer_.endFile();
    }

    /// One byte more than is left is asked for, so that one read tells a small file's end.
    void passContents(int fd, uint64_t left, const std::string &name) {
        if (!block_) {
            block_ = std::make_unique_for_overwrite<char[]>(blockSize);
        }
        while (true) {
            throwIfInterrupted();
            size_t wanted = std::min<uint64_t>(blockSize, left + 1);
            size_t count = readBlock(fd, wanted, name);
            if (count > left || (count == 0 && left > 0)) {
                throw Error(ErrorKind::failure, "file {} changed its size while it was read",
                            way_.describe(name));
            }
            writer_.contents({block_.get(), count});
            left -= count;
            if (left == 0 && count < wanted) {
                return;
            }
        }
    }

    size_t readBlock(int fd, size_t size, const std::string &name) {
        while (true) {
            ssize_t count = read(fd, block_.get(), size);
            if (count >= 0) {
                return count;
            }
            if (errno != EINTR) {
                throwErrno("reading file {}", way_.describe(name));
            }
        }
    }

    static constexpr size_t blockSize = 256 * 1024;
    DirectoryStack way_;
    std::vector<Remainder> remainders_; ///< one for each directory on the way
    NarWriter writer_;
    std::unique_ptr<char[]> block_;
};

} // namespace

void dumpNar(int dir, const std::string &name, Sink &sink) {
    NarDumper(dir, sink).dump(name);
}

HashAndSize hashNar(int dir, const std::string &name, HashAlgorithm algorithm) {
    HashSink sink(algorithm);
    dumpNar(dir, name, sink);
    return {sink.current(), sink.byteCount()};
}

} // namespace firn
