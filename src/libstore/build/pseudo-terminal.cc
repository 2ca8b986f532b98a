#include "libstore/build/pseudo-terminal.hh"

#include <cstdlib>

#include <fcntl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "libutil/error.hh"

namespace firn {

namespace {

void setRaw(int fd) {
    struct termios mode;
    if (tcgetattr(fd, &mode) != 0) {
        throwErrno("reading the mode of a builder's terminal");
    }
    cfmakeraw(&mode);
    if (tcsetattr(fd, TCSANOW, &mode) != 0) {
        throwErrno("setting the mode of a builder's terminal");
    }
}

void setFlags(int fd, int closeOnExec, int status) {
    if (fcntl(fd, F_SETFD, closeOnExec) != 0 || fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | status) != 0) {
        throwErrno("setting flags of a builder's terminal");
    }
}

} // namespace

PseudoTerminal PseudoTerminal::open(uid_t owner) {
    PseudoTerminal terminal;
    terminal.master.reset(posix_openpt(O_RDWR | O_NOCTTY));
    if (!terminal.master) {
        throwErrno("opening a pseudo terminal for a builder's output");
    }
    setFlags(terminal.master.get(), FD_CLOEXEC, O_NONBLOCK);
    const char *name = nullptr;
    if (grantpt(terminal.master.get()) != 0 || unlockpt(terminal.master.get()) != 0 ||
        (name = ptsname(terminal.master.get())) == nullptr) {
        throwErrno("unlocking a pseudo terminal for a builder's output");
    }
    terminal.slave.reset(::open(name, O_RDWR | O_NOCTTY | O_CLOEXEC));
    if (!terminal.slave) {
        throwErrno("opening pseudo terminal '{}' for a builder's output", name);
    }
    setRaw(terminal.slave.get());
    if (geteuid() == 0 &&
        (fchown(terminal.slave.get(), owner, 0) != 0 || fchmod(terminal.slave.get(), 0600) != 0)) {
        throwErrno("giving pseudo terminal '{}' to user {}", name, owner);
    }
    return terminal;
}

bool PseudoTerminal::read(std::string &bytes, size_t limit) {
    char buffer[16 * 1024];
    for (size_t total = 0; total < limit;) {
        ssize_t count = ::read(master.get(), buffer, sizeof buffer);
        if (count > 0) {
            bytes.append(buffer, static_cast<size_t>(count));
            total += static_cast<size_t>(count);
        } else if (count == 0 || errno == EIO) {
            return false;
        } else if (errno == EAGAIN) {
            return true;
        } else if (errno != EINTR) {
            throwErrno("reading a builder's output");
        }
    }
    return true;
}

} // namespace firn
