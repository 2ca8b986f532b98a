#include "firn/stdio-forward.hh"

#include <string_view>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "libutil/error.hh"
#include "libutil/files.hh"

namespace firn {

namespace {

/// Passes on one block; false at the end.
bool copyBlock(int from, int to) {
    char buffer[64 << 10];
    ssize_t got = read(from, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) {
        return true;
    }
    if (got < 0) {
        throwErrno("reading from a connection that is passed on");
    }
    writeFull(to, std::string_view(buffer, static_cast<size_t>(got)));
    return got > 0;
}

} // namespace

void forwardConnection(int inFd, int outFd, int daemonSocket) {
    pollfd fds[] = {{daemonSocket, POLLIN, 0}, {inFd, POLLIN, 0}};
    while (true) {
        if (poll(fds, 2, -1) < 0 && errno != EINTR) {
            throwErrno("waiting for a connection that is passed on");
        }
        if (fds[0].revents != 0 && !copyBlock(daemonSocket, outFd)) {
            return;
        }
        if (fds[1].revents != 0 && !copyBlock(inFd, daemonSocket)) {
            shutdown(daemonSocket, SHUT_WR);
            fds[1].fd = -1; // the daemon finishes what it has
            fds[1].revents = 0;
        }
    }
}

} // namespace firn
