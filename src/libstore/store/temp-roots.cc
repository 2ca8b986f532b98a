#include "libstore/store/temp-roots.hh"

#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "libstore/store/path-locks.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/platform.hh"
#include "libutil/stream.hh"

namespace firn {

namespace {

constexpr uint64_t tempRootsFileLimit = 1ULL << 30;

/// Connected, or none when nobody listens (the collection ended, or has not got that far).
UniqueFd connectToCollector(const std::filesystem::path &path) {
    struct sockaddr_un address {};
    address.sun_family = AF_UNIX;
    if (path.native().size() >= sizeof address.sun_path) {
        throw Error(ErrorKind::unsupported,
                    "the path of the collector's socket '{}' is too long for a socket; choose a shorter "
                    "state directory",
                    path.string());
    }
    std::memcpy(address.sun_path, path.c_str(), path.native().size() + 1);
    UniqueFd fd = makeUnixSocket();
    if (connect(fd.get(), reinterpret_cast<struct sockaddr *>(&address), sizeof address) == 0) {
        return fd;
    }
    if (errno == ECONNREFUSED || errno == ENOENT || errno == EINTR || errno == EAGAIN) {
        return {};
    }
    throwErrno("connecting to the garbage collector at '{}'", path.string());
}

void pauseShortly() {
    poll(nullptr, 0, 10);
}

/// Without SIGPIPE. False when the other side is gone.
bool sendAll(int fd, std::string_view bytes) {
    while (!bytes.empty()) {
        auto sent = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) {
            continue;
        }
        if (sent < 0) {
            return false;
        }
        bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
}

bool receiveAnswer(int fd) {
    char answer = 0;
    ssize_t size;
    do {
        size = recv(fd, &answer, 1, 0);
    } while (size < 0 && errno == EINTR);
    return size == 1 && answer == '1';
}

} // namespace

UniqueFd openGcLock(const std::filesystem::path &stateDir) {
    auto path = stateDir / "gc.lock";
    UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!fd) {
        throwErrno("opening the garbage collector's lock '{}'", path.string());
    }
    return fd;
}

TempRoots::~TempRoots() {
    if (file_) {
        unlink(filePath_.c_str());
    }
}

bool TempRoots::fileIsGone() const {
    struct stat st;
    return !file_ || fstat(file_.get(), &st) != 0 || st.st_nlink == 0;
}

void TempRoots::openFile() {
    // Only another store object of this very process can hold the lock on a file with our number: then this
    // one is called "<pid>-1" and so on, which other programs read as well. Anything not locked is left from
    // a dead process.
    for (int suffix = 0;;) {
        auto name = std::to_string(getpid()) + (suffix ? "-" + std::to_string(suffix) : "");
        filePath_ = stateDir_ / "temproots" / name;
        UniqueFd fd(open(filePath_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
        if (!fd) {
            throwErrno("creating the temporary roots file '{}'", filePath_.string());
        }
        if (!lockFile(fd.get(), LockMode::exclusive, false)) {
            // A collection holds it for a moment, at most; the next number does as well.
            suffix++;
            continue;
        }
        struct stat st;
        if (fstat(fd.get(), &st) != 0) {
            throwErrno("reading the state of '{}'", filePath_.string());
        }
        // Not empty: stale, or taken for stale by a collection between our two calls (it has marked it).
        if (st.st_size == 0 && st.st_nlink > 0) {
            file_ = std::move(fd);
            return;
        }
        if (st.st_nlink > 0 && unlink(filePath_.c_str()) != 0 && errno != ENOENT) {
            throwErrno("removing the stale temporary roots file '{}'", filePath_.string());
        }
    }
}

void TempRoots::append(const std::string &path) {
    writeFull(file_.get(), std::string_view(path.c_str(), path.size() + 1));
}

/// Whether no collection is running.
bool TempRoots::noCollectorRuns() {
    if (!lockFile(gcLock_.get(), LockMode::shared, false)) {
        return false;
    }
    socket_.reset();
    lockFile(gcLock_.get(), LockMode::none, false);
    return true;
}

bool TempRoots::tellCollector(const std::string &path) {
    if (!socket_) {
        socket_ = connectToCollector(stateDir_ / "gc-socket" / "socket");
    }
    if (!socket_ || !sendAll(socket_.get(), path + "\n") || !receiveAnswer(socket_.get())) {
        socket_.reset();
        return false;
    }
    return true;
}

void TempRoots::add(const std::string &path) {
    bool gone = fileIsGone();
    if (!gone && announced_.contains(path)) {
        return;
    }
    if (gone) {
        // Also when the state directory was made anew under us: what was a root stays one.
        gcLock_ = openGcLock(stateDir_);
        openFile();
        auto known = std::exchange(announced_, {});
        for (auto &root : known) {
            add(root);
        }
    }
    // Into the file first: a collection that starts from here on reads it there. One that was running before
    // is told; were it told first, the next one could start between its answer and our line in the file.
    append(path);
    while (!noCollectorRuns() && !tellCollector(path)) {
        pauseShortly();
    }
    announced_.insert(path);
}

namespace {

void reportRoots(const std::string &pid, std::string_view text,
                 const std::function<void(const std::string &, const std::string &)> &found) {
    for (size_t end; (end = text.find('\0')) != std::string_view::npos; text.remove_prefix(end + 1)) {
        found(pid, std::string(text.substr(0, end)));
    }
}

} // namespace

void readTempRoots(const std::filesystem::path &stateDir, bool removeStale,
                   const std::function<void(const std::string &, const std::string &)> &found) {
    auto dir = openDirectory(stateDir / "temproots");
    for (auto &name : listDirectory(dir.get())) {
        if (name.starts_with(".")) {
            continue;
        }
        UniqueFd fd(openat(dir.get(), name.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
        if (!fd) {
            if (errno == ENOENT || errno == EACCES || errno == ELOOP || errno == EISDIR) {
                continue; // gone meanwhile, or nothing that a process could have made
            }
            throwErrno("opening the temporary roots file '{}'", (stateDir / "temproots" / name).string());
        }
        if (lockFile(fd.get(), LockMode::exclusive, false)) {
            if (removeStale) {
                unlinkat(dir.get(), name.c_str(), 0);
                // For the case that it belongs to a process that has just opened it and not locked it yet.
                writeFull(fd.get(), "d");
            }
            continue;
        }
        FdSource source(fd.get());
        StringSink sink;
        LimitedSource limited(source, tempRootsFileLimit);
        copyAll(limited, sink);
        reportRoots(name, sink.text, found);
    }
}

} // namespace firn
