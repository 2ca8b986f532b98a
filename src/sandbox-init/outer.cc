#include "sandbox-init/outer.hh"

#include <algorithm>
#include <csignal>
#include <cstring>

#include <fcntl.h>
#include <grp.h>
#include <linux/sched.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sandbox-init/descriptors.hh"
#include "sandbox-init/fail.hh"
#include "sandbox-init/inner.hh"

namespace firn::sandbox {

namespace {

/// The parent may have died before the prctl: then we have another parent by now.
void dieWithDaemon(const Description &description) {
    check(prctl(PR_SET_PDEATHSIG, SIGKILL), Step::watchParent);
    if (getppid() != description.parentPid) {
        fail(Step::watchParent, "", ESRCH);
    }
}

/// Only the host's own rights can change them: inside the user namespace setgroups is denied. Where we are in
/// one ourselves, a builder with our own user id keeps our groups, as an ordinary user's does.
void setGroups(const Description &description) {
    if (!description.privileged) {
        return;
    }
    std::vector<gid_t> groups(description.groups.begin(), description.groups.end());
    bool asOurselves = groups.empty() && description.outsideUid == geteuid();
    if (setgroups(groups.size(), groups.data()) < 0 && !(errno == EPERM && asOurselves)) {
        fail(Step::setGroups, "");
    }
}

/// fork() with namespaces. clone3 has room for all flags; no memory is shared.
pid_t forkInto(uint64_t namespaces) {
    struct clone_args args = {};
    args.flags = namespaces;
    args.exit_signal = SIGCHLD;
    return static_cast<pid_t>(syscall(SYS_clone3, &args, sizeof args));
}

uint64_t namespacesOf(const Description &description) {
    uint64_t flags = CLONE_NEWPID | CLONE_NEWNS | description.namespaces;
    flags |= description.userNamespace ? CLONE_NEWUSER : 0;
    flags |= description.privateNetwork ? CLONE_NEWNET : 0;
    return flags;
}

void writeProcFile(int process, const char *name, const std::string &text) {
    int fd = check(openat(process, name, O_WRONLY | O_CLOEXEC), Step::mapUsers, name);
    check(static_cast<int>(write(fd, text.data(), text.size())), Step::mapUsers, name);
    close(fd);
}

std::string mapLine(uint32_t inside, uint32_t outside) {
    return std::to_string(inside) + " " + std::to_string(outside) + " 1\n";
}

/// One user and one group. Nothing in the sandbox may change its groups: dropping one could open what
/// "others" may read but its members may not.
void mapUsers(pid_t inner, const Description &description) {
    std::string directory = "/proc/" + std::to_string(inner);
    int process = check(open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC), Step::mapUsers, directory);
    writeProcFile(process, "setgroups", "deny");
    writeProcFile(process, "uid_map", mapLine(description.insideUid, description.outsideUid));
    writeProcFile(process, "gid_map", mapLine(description.insideGid, description.outsideGid));
    close(process);
}

/// Waits until the pid namespace is gone: the kernel lets its first process be reaped only when it was the
/// last.
[[noreturn]] void awaitInner(pid_t inner, const sigset_t &awaited) {
    for (;;) {
        int signal = sigwaitinfo(&awaited, nullptr);
        if (signal == SIGTERM) {
            kill(inner, SIGKILL);
        }
        int status;
        if (waitpid(inner, &status, WNOHANG) == inner) {
            // Only counts when the inner process had no chance to report.
            Report end;
            end.kind = ReportKind::signaled;
            end.value = WIFSIGNALED(status) ? WTERMSIG(status) : SIGABRT;
            report(end);
            _exit(0);
        }
    }
}

} // namespace

void runOuter(Description description) {
    dieWithDaemon(description);
    setGroups(description);
    Sources sources = openEarlySources(description, allowManyDescriptors());
    // Looking files up as another user has cleared both.
    check(prctl(PR_SET_DUMPABLE, 1), Step::watchParent, "dumpable");
    dieWithDaemon(description);

    sigset_t awaited;
    sigemptyset(&awaited);
    sigaddset(&awaited, SIGCHLD);
    sigaddset(&awaited, SIGTERM);
    sigprocmask(SIG_BLOCK, &awaited, nullptr);

    int gate[2];
    check(pipe2(gate, O_CLOEXEC), Step::enterNamespaces, "pipe");
    pid_t inner = check(forkInto(namespacesOf(description)), Step::enterNamespaces);
    if (inner == 0) {
        close(gate[1]);
        runInner(description, sources, gate[0]);
    }
    if (description.userNamespace) {
        mapUsers(inner, description);
    }
    check(static_cast<int>(write(gate[1], "", 1)), Step::enterNamespaces, "gate");
    // The log and the mounts are not ours to keep open.
    closeAllBut(0, {std::min(statusFd(), gate[1]), std::max(statusFd(), gate[1])});
    awaitInner(inner, awaited);
}

} // namespace firn::sandbox
