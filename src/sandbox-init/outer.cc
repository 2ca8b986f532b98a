#include "sandbox-init/outer.hh"

#include <algorithm>
#include <csignal>
#include <cstring>

#include <fcntl.h>
#include <grp.h>
#include <linux/sched.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
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

int openProcess(pid_t process) {
    std::string directory = "/proc/" + std::to_string(process);
    return check(open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC), Step::mapUsers, directory);
}

/// One user and one group. Nothing in the sandbox may change its groups: dropping one could open what
/// "others" may read but its members may not.
void mapUsers(int inner, const Description &description) {
    writeProcFile(inner, "setgroups", "deny");
    writeProcFile(inner, "uid_map", mapLine(description.insideUid, description.outsideUid));
    writeProcFile(inner, "gid_map", mapLine(description.insideGid, description.outsideGid));
}

void raiseLoopback() {
    int fd = check(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), Step::raiseLoopback, "socket");
    struct ifreq request = {};
    strcpy(request.ifr_name, "lo");
    request.ifr_flags = IFF_UP | IFF_LOOPBACK | IFF_RUNNING;
    check(ioctl(fd, SIOCSIFFLAGS, &request), Step::raiseLoopback, "lo");
    close(fd);
}

/// To make a network takes the kernel longer than all the other namespaces together, so this is done while
/// the inner process is busy with its mounts. It shall belong to the sandbox's user namespace, and so must
/// its maker: from here on our rights are over that alone, which is as many as it takes to end it.
void makeNetwork(int users, int socket, const Description &description) {
    check(setns(users, CLONE_NEWUSER), Step::enterNamespaces, "user");
    check(unshare(CLONE_NEWNET), Step::enterNamespaces, "network");
    raiseLoopback();
    int network = check(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), Step::enterNamespaces, "network");
    sendDescriptor(socket, network, Step::enterNamespaces);
    dieWithDaemon(description); // which the change of user namespaces has cleared
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
    int network[2];
    check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, network), Step::enterNamespaces, "socket");
    pid_t inner = check(forkInto(namespacesOf(description)), Step::enterNamespaces);
    if (inner == 0) {
        close(gate[1]);
        close(network[0]);
        runInner(description, sources, gate[0], network[1]);
    }
    close(network[1]);
    close(description.outputFd); // or the log's end could come later than the builder's
    int users = -1;
    if (description.userNamespace) {
        int process = openProcess(inner);
        mapUsers(process, description);
        users = check(openat(process, "ns/user", O_RDONLY | O_CLOEXEC), Step::mapUsers, "ns/user");
        close(process);
    }
    check(static_cast<int>(write(gate[1], "", 1)), Step::enterNamespaces, "gate");
    if (description.privateNetwork) {
        makeNetwork(users, network[0], description);
    }
    // The mounts are not ours to keep open.
    closeAllBut(0, {std::min(statusFd(), gate[1]), std::max(statusFd(), gate[1])});
    awaitInner(inner, awaited);
}

} // namespace firn::sandbox
