#include "firn/listener.hh"

#include <atomic>
#include <cerrno>
#include <csignal>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "firn/connection-process.hh"
#include "libutil/error.hh"

namespace firn {

namespace {

constexpr int retryMilliseconds = 1000;

std::atomic<bool> stopRequested = false;
/// Written to by signal handlers, so that poll() returns.
int wakeUpFd = -1;

extern "C" void onSignal(int number) {
    int saved = errno;
    if (number != SIGCHLD) {
        stopRequested = true;
    }
    [[maybe_unused]] ssize_t ignored = write(wakeUpFd, "", 1); // a full pipe wakes up as well
    errno = saved;
}

void handleSignals(int fd) {
    wakeUpFd = fd;
    struct sigaction action {};
    action.sa_handler = onSignal;
    sigemptyset(&action.sa_mask);
    for (int number : {SIGTERM, SIGINT, SIGCHLD}) {
        sigaction(number, &action, nullptr);
    }
}

void setNonBlocking(int fd) {
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
        throwErrno("making a descriptor non-blocking");
    }
}

void emptyPipe(int fd) {
    char bytes[64];
    while (read(fd, bytes, sizeof bytes) > 0) {
    }
}

bool isShortage(int number) {
    return number == EMFILE || number == ENFILE || number == ENOBUFS || number == ENOMEM;
}

bool isTransient(int number) {
    return number == EINTR || number == EAGAIN || number == EWOULDBLOCK || number == ECONNABORTED ||
           number == EPROTO;
}

} // namespace

Listener::Listener(UniqueFd socket, Serve serve, std::vector<std::string> selfCommand, Logger &logger)
    : socket_(std::move(socket)),
      serve_(std::move(serve)),
      selfCommand_(std::move(selfCommand)),
      logger_(logger) {}

void Listener::run() {
    Pipe wakeUp = makePipe();
    setNonBlocking(wakeUp.readEnd.get());
    setNonBlocking(wakeUp.writeEnd.get());
    setNonBlocking(socket_.get());
    handleSignals(wakeUp.writeEnd.get());
    reapChildren(); // who ended before
    while (!stopRequested) {
        pollfd fds[] = {{wakeUp.readEnd.get(), POLLIN, 0}, {socket_.get(), POLLIN, 0}};
        // After a shortage the socket is left alone for a while: it would be ready at once, again and again.
        int ready = poll(fds, exhausted_ ? 1 : 2, exhausted_ ? retryMilliseconds : -1);
        if (ready < 0 && errno != EINTR) {
            throwErrno("waiting for connections");
        }
        exhausted_ = false;
        emptyPipe(wakeUp.readEnd.get());
        reapChildren();
        if (!stopRequested) {
            acceptOne();
        }
    }
}

void Listener::acceptOne() {
    UniqueFd connection(accept(socket_.get(), nullptr, nullptr));
    if (!connection) {
        if (isShortage(errno)) {
            logger_.warn(SysError(errno, "accepting a connection (trying again)").message());
            exhausted_ = true;
        } else if (!isTransient(errno)) {
            throwErrno("accepting a connection");
        }
        return;
    }
    try {
        fcntl(connection.get(), F_SETFD, FD_CLOEXEC);
        fcntl(connection.get(), F_SETFL, fcntl(connection.get(), F_GETFL) & ~O_NONBLOCK);
        startConnectionProcess(connection.get(), {wakeUpFd, socket_.get()}, serve_, selfCommand_);
    } catch (const Error &error) {
        logger_.warn(error.message());
        exhausted_ = true;
    }
}

void Listener::reapChildren() {
    int status = 0;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        if (WIFSIGNALED(status)) {
            logger_.warn(fmt::format("the process {} was killed by signal {}", pid, WTERMSIG(status)));
        }
    }
}

} // namespace firn
