#include "sandbox-init/inner.hh"

#include <algorithm>
#include <csignal>
#include <cstring>

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <poll.h>
#include <sched.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sandbox-init/descriptors.hh"
#include "sandbox-init/fail.hh"
#include "sandbox-init/filesystem.hh"

namespace firn::sandbox {

namespace {

void awaitMapping(int gate) {
    char byte;
    if (read(gate, &byte, 1) != 1) {
        _exit(1);
    }
}

/// As raw system calls: the libc's ones are for threaded programs. From an unmapped user id to one that is
/// not root in the namespace, so capabilities stay until they are dropped. In an unprivileged namespace these
/// are no changes.
void becomeUser(const Description &d) {
    check(static_cast<int>(syscall(SYS_setresgid, d.insideGid, d.insideGid, d.insideGid)), Step::becomeUser,
          "group");
    check(static_cast<int>(syscall(SYS_setresuid, d.insideUid, d.insideUid, d.insideUid)), Step::becomeUser,
          "user");
}

/// The builder has our user id: it must not trace us or open our descriptors. A change of user may undo this.
void hideFromBuilder() {
    check(prctl(PR_SET_DUMPABLE, 0), Step::becomeUser, "dumpable");
}

/// A change of user clears the death signal, so this comes after it. When the outer process died before, the
/// gate's write end is closed.
void dieWithOuter(int gate) {
    check(prctl(PR_SET_PDEATHSIG, SIGKILL), Step::watchParent);
    struct pollfd state = {gate, POLLIN, 0};
    if (poll(&state, 1, 0) != 0) {
        _exit(1);
    }
}

void setNames(const Description &d) {
    if (!d.hostName.empty()) {
        check(sethostname(d.hostName.data(), d.hostName.size()), Step::setHostName, d.hostName);
    }
    if (!d.domainName.empty()) {
        check(setdomainname(d.domainName.data(), d.domainName.size()), Step::setHostName, d.domainName);
    }
}

/// The outer process makes it meanwhile, or has said why it cannot.
void joinNetwork(int socket) {
    std::vector<int> network = receiveDescriptors(socket, Step::enterNamespaces);
    if (network.empty()) {
        _exit(1);
    }
    check(setns(network.front(), CLONE_NEWNET), Step::enterNamespaces, "network");
    close(network.front());
    close(socket);
}

/// Also the ways back: the bounding set for file capabilities, securebits for uid 0, and keeping them over a
/// change of user. A user namespace made by the builder starts with fresh ones, over itself alone.
void dropBounds() {
    constexpr int bits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                         SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
                         SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
    check(prctl(PR_SET_SECUREBITS, bits), Step::dropCapabilities, "securebits");
    for (int capability = 0; capability < 64; capability++) {
        if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0) {
            if (errno == EINVAL && capability > 0) {
                break; // past the last one that this kernel knows
            }
            fail(Step::dropCapabilities, "bounding set");
        }
    }
}

void dropCapabilities() {
    check(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), Step::dropCapabilities, "ambient set");
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {};
    check(static_cast<int>(syscall(SYS_capset, &header, none)), Step::dropCapabilities, "capset");
}

/// Keys in the daemon's session keyring are none of the build's business. A kernel without keyrings has none
/// to hide.
void leaveKeyring() {
    syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, nullptr);
}

void forbidPrivileges(const Description &d) {
    if (d.noNewPrivileges) {
        check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), Step::forbidPrivileges);
    }
}

/// Without no_new_privs the kernel wants CAP_SYS_ADMIN for this, so it is done before capabilities go in that
/// case.
void loadFilter(const Description &d) {
    if (d.filter.empty()) {
        return;
    }
    // Copied: the bytes have no alignment of their own.
    std::vector<struct sock_filter> instructions(d.filter.size() / sizeof(struct sock_filter));
    memcpy(instructions.data(), d.filter.data(), d.filter.size());
    struct sock_fprog program = {static_cast<unsigned short>(instructions.size()), instructions.data()};
    long result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
    check(static_cast<int>(result), Step::loadFilter);
}

void becomeUnprivileged(const Description &d) {
    leaveKeyring();
    dropBounds();
    if (!d.userNamespace && d.privileged) {
        becomeUser(d);
    }
    if (!d.noNewPrivileges) {
        loadFilter(d);
    }
    dropCapabilities();
    forbidPrivileges(d);
}

void connectOutput(const Description &d) {
    int null = check(open("/dev/null", O_RDONLY), Step::connectOutput, "/dev/null");
    check(dup2(null, STDIN_FILENO), Step::connectOutput, "stdin");
    check(dup2(d.outputFd, STDOUT_FILENO), Step::connectOutput, "stdout");
    check(dup2(d.outputFd, STDERR_FILENO), Step::connectOutput, "stderr");
}

/// The builder gets the three alone: the status pipe closes itself when the builder is executed.
void closeOthers() {
    check(fcntl(statusFd(), F_SETFD, FD_CLOEXEC), Step::connectOutput, "status pipe");
    closeAllBut(3, {statusFd()});
}

void setLimits(const Description &d) {
    // No core dumps into the build directory unless the builder asks for them.
    struct rlimit core;
    check(getrlimit(RLIMIT_CORE, &core), Step::setLimits, "core");
    core.rlim_cur = 0;
    check(setrlimit(RLIMIT_CORE, &core), Step::setLimits, "core");
    struct rlimit descriptors;
    check(getrlimit(RLIMIT_NOFILE, &descriptors), Step::setLimits, "descriptors");
    descriptors.rlim_cur = std::min<rlim_t>(d.descriptorLimit, descriptors.rlim_max);
    check(setrlimit(RLIMIT_NOFILE, &descriptors), Step::setLimits, "descriptors");
}

std::vector<char *> pointers(const std::vector<std::string> &strings) {
    std::vector<char *> result;
    for (const std::string &string : strings) {
        result.push_back(const_cast<char *>(string.c_str()));
    }
    result.push_back(nullptr);
    return result;
}

/// By the path that the builder will use, with the builder's rights. Where others might have put something
/// else there, it must still be what the set-up has found.
void enterWorkingDirectory(const Description &d, const std::optional<FileIdentity> &expected) {
    check(chdir(d.workingDirectory.c_str()), Step::changeDirectory, d.workingDirectory);
    struct stat st;
    if (expected) {
        check(stat(".", &st), Step::changeDirectory, d.workingDirectory);
        if (FileIdentity{st.st_dev, st.st_ino} != *expected) {
            fail(Step::changeDirectory, d.workingDirectory, ESTALE);
        }
    }
}

[[noreturn]] void runBuilder(const Description &d, const std::optional<FileIdentity> &workingDirectory) {
    setsid();
    connectOutput(d);
    closeOthers();
    setLimits(d);
    if (personality(d.personality) < 0) {
        fail(Step::setPersonality, "");
    }
    enterWorkingDirectory(d, workingDirectory);
    std::vector<char *> args = pointers(d.args), env = pointers(d.env);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    // Last: nothing but the exec itself runs under the filter, so it cannot stand in our own way.
    if (d.noNewPrivileges) {
        loadFilter(d);
    }
    execve(d.builder.c_str(), args.data(), env.data());
    fail(Step::executeBuilder, d.builder);
}

uint64_t microseconds(const struct timeval &time) {
    return static_cast<uint64_t>(time.tv_sec) * 1000000 + static_cast<uint64_t>(time.tv_usec);
}

/// Whether next to nothing is left: what stays free of a full file system depends on what was written last.
bool isFull(int watched) {
    struct statvfs space;
    if (watched < 0 || fstatvfs(watched, &space) < 0) {
        return false;
    }
    constexpr uint64_t scarce = 8 * 1024 * 1024;
    uint64_t whole = uint64_t{space.f_blocks} * space.f_frsize;
    bool noInodes = space.f_files > 0 && space.f_ffree == 0;
    return noInodes || uint64_t{space.f_bavail} * space.f_frsize < std::min(scarce, whole / 16);
}

/// Whether no process of the build is left. They all descend from us: before a process can be reaped, its
/// children have gone to us, or to an ancestor of theirs that is still there.
bool allEnded() {
    pid_t ended;
    do {
        ended = waitpid(-1, nullptr, WNOHANG | __WALL);
    } while (ended > 0 || (ended < 0 && errno == EINTR));
    return ended < 0 && errno == ECHILD;
}

/// Where nothing is left to be killed, the daemon need not wait for the kernel to take the sandbox down.
[[noreturn]] void reportEnd(int status, const struct rusage &usage, int watched) {
    Report end;
    end.allEnded = allEnded() ? 1 : 0;
    end.isFull = isFull(watched) ? 1 : 0;
    end.kind = WIFSIGNALED(status) ? ReportKind::signaled : ReportKind::exited;
    end.value = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
    end.userMicroseconds = microseconds(usage.ru_utime);
    end.systemMicroseconds = microseconds(usage.ru_stime);
    report(end);
    _exit(0);
}

/// Orphans of the build are our children: they are reaped until the builder itself has ended.
[[noreturn]] void reap(pid_t builder, int watched) {
    for (;;) {
        int status;
        struct rusage usage;
        pid_t ended = wait4(-1, &status, 0, &usage);
        if (ended == builder) {
            reportEnd(status, usage, watched);
        }
        if (ended < 0 && errno != EINTR) {
            fail(Step::forkBuilder, "waiting for the builder");
        }
    }
}

} // namespace

void runInner(const Description &description, Sources &sources, int gate, int network) {
    awaitMapping(gate);
    if (description.userNamespace) {
        becomeUser(description);
    }
    hideFromBuilder();
    dieWithOuter(gate);
    FileSystemResult files = setUpFileSystem(description, sources);
    setNames(description);
    if (description.privateNetwork) {
        joinNetwork(network);
    }
    becomeUnprivileged(description);
    hideFromBuilder();
    dieWithOuter(gate);

    pid_t builder = check(fork(), Step::forkBuilder);
    if (builder == 0) {
        runBuilder(description, files.workingDirectory);
    }
    // A copy of the log kept here would hide that the builder has closed it.
    int watched = files.watched < 0 ? statusFd() : files.watched;
    closeAllBut(0, {std::min(statusFd(), watched), std::max(statusFd(), watched)});
    reap(builder, files.watched);
}

} // namespace firn::sandbox
