#include "firn/listening-socket.hh"

#include <cstdlib>
#include <cstring>
#include <string>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/platform.hh"

namespace firn {

namespace {

constexpr int firstInheritedFd = 3;
constexpr int backlog = 128;

/// A socket address holds some hundred bytes only. So the address is the base name alone, and the socket's
/// directory is the working directory while one of these exists.
class WorkingDirectory {
  public:
    explicit WorkingDirectory(const std::filesystem::path &dir) : before_(openWorkingDirectory()) {
        if (chdir(dir.c_str()) != 0) {
            throwErrno("changing to the socket's directory '{}'", dir.string());
        }
    }
    ~WorkingDirectory() {
        if ((before_ ? fchdir(before_.get()) : chdir("/")) != 0) {
            _exit(1); // everything relative would be wrong from here on
        }
    }

  private:
    UniqueFd before_;
};

sockaddr_un makeAddress(const std::filesystem::path &path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::string name = path.filename().string();
    if (name.empty() || name.size() >= sizeof address.sun_path) {
        throw Error(ErrorKind::badInput, "The last part of the socket's path '{}' must have 1 to {} bytes.",
                    path.string(), sizeof address.sun_path - 1);
    }
    std::memcpy(address.sun_path, name.data(), name.size());
    return address;
}

UniqueFd makeSocket() {
    UniqueFd fd(socket(AF_UNIX, SOCK_STREAM, 0));
    if (!fd || fcntl(fd.get(), F_SETFD, FD_CLOEXEC) != 0) {
        throwErrno("making a Unix socket");
    }
    return fd;
}

bool isAnswered(const sockaddr_un &address) {
    UniqueFd probe = makeSocket();
    return connect(probe.get(), reinterpret_cast<const sockaddr *>(&address), sizeof address) == 0;
}

/// In the socket's directory.
void removeStaleSocket(const std::filesystem::path &path, const sockaddr_un &address) {
    struct stat st {};
    if (!statAt(AT_FDCWD, address.sun_path, st)) {
        return;
    }
    if (!S_ISSOCK(st.st_mode)) {
        throw Error(ErrorKind::refused,
                    "'{}' is in the way: it is not a socket. Remove it, or choose another "
                    "path with --socket or NIX_DAEMON_SOCKET_PATH.",
                    path.string());
    }
    if (isAnswered(address)) {
        throw Error(ErrorKind::refused, "A daemon already answers on '{}'. Stop it first.", path.string());
    }
    if (unlink(address.sun_path) != 0 && errno != ENOENT) {
        throwErrno("removing the stale socket '{}'", path.string());
    }
}

/// In the socket's directory.
UniqueFd bindSocket(const std::filesystem::path &path, const sockaddr_un &address) {
    UniqueFd fd = makeSocket();
    mode_t before = umask(0111);
    int result = bind(fd.get(), reinterpret_cast<const sockaddr *>(&address), sizeof address);
    int number = errno;
    umask(before);
    if (result != 0) {
        throw SysError(number, fmt::format("binding the socket '{}'", path.string()));
    }
    if (listen(fd.get(), backlog) != 0) {
        throwErrno("listening on the socket '{}'", path.string());
    }
    return fd;
}

/// systemd's protocol for handing over sockets; nothing if it did not start us with one.
UniqueFd inheritedSocket() {
    const char *count = std::getenv("LISTEN_FDS"), *pid = std::getenv("LISTEN_PID");
    if (!count || !pid || std::string(pid) != std::to_string(getpid())) {
        return {};
    }
    if (std::string(count) != "1") {
        throw Error(ErrorKind::badInput, "systemd handed over {} sockets; exactly one is expected.", count);
    }
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_PID");
    UniqueFd fd(firstInheritedFd);
    if (fcntl(fd.get(), F_SETFD, FD_CLOEXEC) != 0) {
        throwErrno("taking over systemd's socket");
    }
    return fd;
}

} // namespace

UniqueFd openListeningSocket(const std::filesystem::path &path) {
    if (UniqueFd inherited = inheritedSocket()) {
        return inherited;
    }
    std::filesystem::path dir = std::filesystem::absolute(path).parent_path();
    makeDirectories(dir);
    sockaddr_un address = makeAddress(path);
    WorkingDirectory here(dir);
    removeStaleSocket(path, address);
    return bindSocket(path, address);
}

UniqueFd connectToSocket(const std::filesystem::path &path) {
    sockaddr_un address = makeAddress(path);
    WorkingDirectory here(std::filesystem::absolute(path).parent_path());
    UniqueFd fd = makeSocket();
    if (connect(fd.get(), reinterpret_cast<const sockaddr *>(&address), sizeof address) != 0) {
        throwErrno("connecting to the daemon at '{}'", path.string());
    }
    return fd;
}

} // namespace firn
