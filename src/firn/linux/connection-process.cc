#include "firn/connection-process.hh"

#include <csignal>
#include <cstdio>
#include <exception>

#include <sys/types.h>
#include <unistd.h>

#include "libutil/error.hh"

namespace firn {

namespace {

void setDefaultSignals(const sigset_t &mask) {
    for (int number : {SIGTERM, SIGINT, SIGHUP, SIGCHLD}) {
        signal(number, SIG_DFL);
    }
    signal(SIGPIPE, SIG_IGN);
    sigprocmask(SIG_SETMASK, &mask, nullptr);
}

[[noreturn]] void serveAndExit(int connection, const std::function<void(int)> &serve) {
    int status = 0;
    try {
        serve(connection);
    } catch (const std::exception &error) {
        fmt::print(stderr, "error: connection of process {}: {}\n", getpid(), error.what());
        status = 1;
    }
    std::fflush(stderr);
    _exit(status);
}

} // namespace

void startConnectionProcess(int connection, const std::vector<int> &toClose,
                            const std::function<void(int socket)> &serve, const std::vector<std::string> &) {
    // No handler of ours may run in the child.
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    pid_t pid = fork();
    if (pid == 0) {
        for (int fd : toClose) {
            close(fd);
        }
        setsid();
        setDefaultSignals(before);
        serveAndExit(connection, serve);
    }
    int number = errno;
    sigprocmask(SIG_SETMASK, &before, nullptr);
    if (pid < 0) {
        throw SysError(number, "starting a process for a connection");
    }
}

std::string selfPath() {
    return "/proc/self/exe";
}

} // namespace firn
