#include "libstore/build/launch.hh"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

#include <fcntl.h>
#include <grp.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libutil/descriptor-limit.hh"
#include "libutil/error.hh"

// The process is forked from a threaded one: until exec, the children call nothing but what may be called in
// a signal handler, and everything that needs memory is made ready before.

namespace firn {

namespace {

using sandbox::Report;
using sandbox::ReportKind;
using sandbox::Step;

struct Prepared {
    const LaunchSpec &spec;
    std::vector<char *> args, env;
    int statusFd;
    int maxFd;
    rlim_t usualDescriptors; ///< the builder's soft limit
};

std::vector<char *> pointers(const std::vector<std::string> &strings) {
    std::vector<char *> result;
    for (const std::string &string : strings) {
        result.push_back(const_cast<char *>(string.c_str()));
    }
    result.push_back(nullptr);
    return result;
}

void send(const Prepared &p, const Report &head, const std::string *path) {
    char message[sizeof(Report) + sandbox::maxReportPath];
    Report report = head;
    report.pathLength = path ? static_cast<uint32_t>(std::min(path->size(), sandbox::maxReportPath)) : 0;
    memcpy(message, &report, sizeof report);
    if (path) {
        memcpy(message + sizeof report, path->data(), report.pathLength);
    }
    ssize_t written = write(p.statusFd, message, sizeof report + report.pathLength);
    static_cast<void>(written);
}

[[noreturn]] void failChild(const Prepared &p, Step step, const std::string *path = nullptr) {
    Report failure;
    failure.kind = step == Step::executeBuilder ? ReportKind::execFailed : ReportKind::setupFailed;
    failure.step = step;
    failure.value = errno;
    send(p, failure, path);
    _exit(1);
}

void becomeUser(const Prepared &p) {
    const LaunchSpec &spec = p.spec;
    if (setgroups(spec.groups.size(), spec.groups.data()) < 0) {
        failChild(p, Step::setGroups);
    }
    if (setregid(spec.gid, spec.gid) < 0 || setreuid(spec.uid, spec.uid) < 0) {
        failChild(p, Step::becomeUser);
    }
}

void closeAllBut(const Prepared &p, int alsoKept) {
    for (int fd = 3; fd < p.maxFd; fd++) {
        if (fd != p.statusFd && fd != alsoKept) {
            close(fd);
        }
    }
}

void connectOutput(const Prepared &p) {
    int null = open("/dev/null", O_RDONLY);
    if (null < 0 || dup2(null, 0) < 0 || dup2(p.spec.outputFd, 1) < 0 || dup2(p.spec.outputFd, 2) < 0) {
        failChild(p, Step::connectOutput);
    }
    closeAllBut(p, -1);
}

[[noreturn]] void runBuilder(const Prepared &p, const sigset_t &none) {
    connectOutput(p);
    if (p.spec.changeUser) {
        becomeUser(p);
    }
    struct rlimit core;
    if (getrlimit(RLIMIT_CORE, &core) == 0) {
        core.rlim_cur = 0;
        setrlimit(RLIMIT_CORE, &core);
    }
    struct rlimit descriptors;
    if (getrlimit(RLIMIT_NOFILE, &descriptors) == 0) {
        descriptors.rlim_cur = p.usualDescriptors;
        setrlimit(RLIMIT_NOFILE, &descriptors);
    }
    umask(022);
    if (chdir(p.spec.workingDirectory.c_str()) < 0) {
        failChild(p, Step::changeDirectory, &p.spec.workingDirectory);
    }
    for (int signal = 1; signal < NSIG; signal++) {
        ::signal(signal, SIG_DFL);
    }
    sigprocmask(SIG_SETMASK, &none, nullptr);
    execve(p.spec.builder.c_str(), p.args.data(), p.env.data());
    failChild(p, Step::executeBuilder, &p.spec.builder);
}

/// Waits for the builder and reports; SIGTERM from the daemon kills the builder's process group first.
[[noreturn]] void supervise(const Prepared &p, pid_t builder, const sigset_t &awaited) {
    for (;;) {
        int signal = 0;
        sigwait(&awaited, &signal);
        if (signal == SIGTERM) {
            kill(-builder, SIGKILL);
            kill(builder, SIGKILL);
        }
        int status;
        struct rusage usage = {};
        if (wait4(builder, &status, WNOHANG, &usage) == builder) {
            kill(-builder, SIGKILL);
            Report end;
            end.kind = WIFSIGNALED(status) ? ReportKind::signaled : ReportKind::exited;
            end.value = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
            end.userMicroseconds = static_cast<uint64_t>(usage.ru_utime.tv_sec) * 1000000 +
                                   static_cast<uint64_t>(usage.ru_utime.tv_usec);
            end.systemMicroseconds = static_cast<uint64_t>(usage.ru_stime.tv_sec) * 1000000 +
                                     static_cast<uint64_t>(usage.ru_stime.tv_usec);
            send(p, end, nullptr);
            _exit(0);
        }
    }
}

[[noreturn]] void runSupervisor(const Prepared &p) {
    sigset_t awaited, none;
    sigemptyset(&none);
    sigemptyset(&awaited);
    sigaddset(&awaited, SIGTERM);
    sigaddset(&awaited, SIGCHLD);
    // An ignored SIGCHLD would not be sent at all.
    ::signal(SIGCHLD, SIG_DFL);
    sigprocmask(SIG_SETMASK, &awaited, nullptr);
    setpgid(0, 0);
    // Locks belong to open descriptors: a copy here would hold them after the daemon has let go.
    closeAllBut(p, p.spec.outputFd);
    pid_t builder = fork();
    if (builder < 0) {
        failChild(p, Step::forkBuilder);
    }
    if (builder == 0) {
        setsid();
        runBuilder(p, none);
    }
    close(p.spec.outputFd);
    supervise(p, builder, awaited);
}

/// Beyond this no descriptor of ours is expected; macOS has no close_range.
int descriptorLimit() {
    struct rlimit limit;
    constexpr rlim_t most = 65536;
    bool known = getrlimit(RLIMIT_NOFILE, &limit) == 0;
    return static_cast<int>(known && limit.rlim_cur < most ? limit.rlim_cur : most);
}

} // namespace

BuilderProcess launchUnconfined(const LaunchSpec &spec) {
    Pipe status = makePipe();
    Prepared prepared{spec,
                      pointers(spec.args),
                      pointers(spec.env),
                      status.writeEnd.get(),
                      descriptorLimit(),
                      usualDescriptorLimit()};
    // SIGTERM is blocked over the fork, so that an early kill() waits for the supervisor.
    sigset_t term, old;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &term, &old);
    pid_t pid = fork();
    if (pid == 0) {
        runSupervisor(prepared);
    }
    int error = errno;
    pthread_sigmask(SIG_SETMASK, &old, nullptr);
    if (pid < 0) {
        throw SysError(error, fmt::format("forking a supervisor for builder '{}'", spec.builder));
    }
    return BuilderProcess(pid, std::move(status.readEnd));
}

} // namespace firn
