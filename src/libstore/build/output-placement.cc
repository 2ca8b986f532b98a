#include "libstore/build/output-placement.hh"

#include <cstdio>

#include <fcntl.h>
#include <sys/stat.h>

#include "libstore/store/local-store.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/platform.hh"

namespace firn {

bool isSameDirectory(int a, int b) {
    struct stat first, second;
    if (fstat(a, &first) != 0 || fstat(b, &second) != 0) {
        throwErrno("looking at the directory of scratch outputs");
    }
    return first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

void moveOutput(int fromDir, const std::string &from, int toDir, const std::string &to) {
    if (renameat(fromDir, from.c_str(), toDir, to.c_str()) == 0) {
        return;
    }
    if (errno != EACCES) {
        throwErrno("moving the output '{}' to '{}'", from, to);
    }
    // A directory that changes its parent has its ".." rewritten: its owner must be allowed to write it.
    UniqueFd root = openDirectoryAt(fromDir, from);
    if (fchmod(root.get(), 0755) != 0 || renameat(fromDir, from.c_str(), toDir, to.c_str()) != 0 ||
        fchmod(root.get(), 0555) != 0) {
        throwErrno("moving the output '{}' to '{}'", from, to);
    }
}

namespace {

/// A directory, while its owner may write it; anything else is left alone.
class WritableRoot {
  public:
    WritableRoot(int dir, const std::string &name) {
        struct stat st;
        if (!statAt(dir, name, st) || !S_ISDIR(st.st_mode)) {
            return;
        }
        fd_ = openDirectoryAt(dir, name);
        mode_ = st.st_mode & 07777;
        if (fchmod(fd_.get(), 0755) != 0) {
            throwErrno("making '{}' writable to move it", name);
        }
    }
    WritableRoot(const WritableRoot &) = delete;
    WritableRoot &operator=(const WritableRoot &) = delete;
    ~WritableRoot() {
        if (fd_) {
            fchmod(fd_.get(), mode_); // as allowed as the first one was
        }
    }

  private:
    UniqueFd fd_;
    mode_t mode_ = 0;
};

/// exchangeEntries(), also where a directory must be writable to change its parent.
bool exchangeOutputs(int dirA, const std::string &a, int dirB, const std::string &b) {
    try {
        return exchangeEntries(dirA, a, dirB, b);
    } catch (const SysError &error) {
        if (error.number() != EACCES) {
            throw;
        }
    }
    WritableRoot first(dirA, a), second(dirB, b);
    return exchangeEntries(dirA, a, dirB, b);
}

} // namespace

OutputPlacement::~OutputPlacement() {
    for (auto move = moves_.rbegin(); move != moves_.rend(); ++move) {
        try {
            undo(*move);
        } catch (const Error &e) {
            store_.logger().warn(
                fmt::format("undoing the registration of '{}': {}", move->final, e.message()));
        }
    }
}

void OutputPlacement::undo(const Move &move) {
    if (move.exchanged) {
        if (!exchangeOutputs(store_.storeFd(), move.final, move.dir, move.name)) {
            throw Error(ErrorKind::failure, "the file system no longer exchanges entries");
        }
        return;
    }
    if (existsAt(store_.storeFd(), move.final)) {
        moveOutput(store_.storeFd(), move.final, move.dir, move.name);
    }
    if (!move.aside.empty()) {
        moveOutput(store_.storeFd(), move.aside, store_.storeFd(), move.final);
    }
}

void OutputPlacement::place(int dir, const std::string &name, const StorePath &path) {
    if (name == path.baseName() && isSameDirectory(dir, store_.storeFd())) {
        return;
    }
    Move move{dir, name, path.baseName(), {}, false};
    // What is valid is never without its files, not even for a moment.
    if (store_.isValidPath(path) && existsAt(store_.storeFd(), path.baseName()) &&
        exchangeOutputs(dir, name, store_.storeFd(), path.baseName())) {
        move.exchanged = true;
        moves_.push_back(move);
        return;
    }
    clear(path, move);
    try {
        moveOutput(dir, name, store_.storeFd(), path.baseName());
    } catch (...) {
        if (!move.aside.empty()) {
            moves_.push_back(move);
        }
        throw;
    }
    moves_.push_back(move);
}

/// Makes room at the final path.
void OutputPlacement::clear(const StorePath &path, Move &move) {
    if (!store_.isValidPath(path)) {
        removeTree(store_.storeFd(), path.baseName());
        return;
    }
    if (!existsAt(store_.storeFd(), path.baseName())) {
        return;
    }
    // With the hash part of a temporary root, so that no collection takes it.
    StorePath aside(std::string(path.hashPart()) + "-firn-replaced");
    removeTree(store_.storeFd(), aside.baseName());
    moveOutput(store_.storeFd(), path.baseName(), store_.storeFd(), aside.baseName());
    move.aside = aside.baseName();
}

void OutputPlacement::commit() {
    std::vector<Move> moves = std::move(moves_);
    moves_.clear();
    for (const Move &move : moves) {
        try {
            if (move.exchanged) {
                removeTree(move.dir, move.name);
            } else if (!move.aside.empty()) {
                removeTree(store_.storeFd(), move.aside);
            }
        } catch (const Error &e) {
            // What matters is registered; a collection removes the rest.
            store_.logger().warn(fmt::format("removing what '{}' replaced: {}", move.final, e.message()));
        }
    }
}

} // namespace firn
