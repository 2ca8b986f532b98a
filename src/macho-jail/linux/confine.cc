#include "macho-jail/confine.hh"

#include <cerrno>
#include <csignal>
#include <vector>

#include <grp.h>
#include <linux/capability.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "libstore/build/macho-jail-protocol.hh"

namespace firn::jail {

namespace {

constexpr uid_t nobody = 65534;
constexpr rlim_t mostMemory = rlim_t{1} << 30; ///< bytes of address space
constexpr rlim_t mostProcessorTime = 3600;     ///< seconds; the daemon's deadlines come first
constexpr rlim_t mostDescriptors = 8;

void require(bool worked, ExitCode code) {
    if (!worked) {
        _exit(static_cast<int>(code));
    }
}

/// In a user namespace that has no such ids (EINVAL), or allows no groups (EPERM), root's rights end with the
/// namespace and with the capabilities, which go in the next step.
void leaveRoot() {
    if (geteuid() != 0) {
        return;
    }
    require(setgroups(0, nullptr) == 0 || errno == EPERM, ExitCode::user);
    require(setresgid(nobody, nobody, nobody) == 0 || errno == EINVAL, ExitCode::user);
    require(setresuid(nobody, nobody, nobody) == 0 || errno == EINVAL, ExitCode::user);
}

void dropCapabilities() {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};
    require(syscall(SYS_capset, &header, none) == 0, ExitCode::privileges);
    require(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, ExitCode::privileges);
    require(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0, ExitCode::privileges);
}

void limit(__rlimit_resource resource, rlim_t most) {
    struct rlimit limit;
    require(getrlimit(resource, &limit) == 0, ExitCode::limits);
    limit.rlim_max = limit.rlim_cur = limit.rlim_max < most ? limit.rlim_max : most;
    require(setrlimit(resource, &limit) == 0, ExitCode::limits);
}

void setLimits() {
    limit(RLIMIT_AS, mostMemory);
    limit(RLIMIT_CPU, mostProcessorTime);
    limit(RLIMIT_NOFILE, mostDescriptors);
    limit(RLIMIT_FSIZE, 0);
    limit(RLIMIT_CORE, 0);
}

class Allowed {
  public:
    Allowed() : context_(seccomp_init(SCMP_ACT_KILL_PROCESS)) { require(context_, ExitCode::filter); }
    /// `call` by name; passed over where this architecture has none.
    void add(const char *call, const std::vector<scmp_arg_cmp> &conditions = {}) {
        int number = seccomp_syscall_resolve_name(call);
        auto count = static_cast<unsigned>(conditions.size());
        require(number != __NR_SCMP_ERROR &&
                    seccomp_rule_add_array(context_, SCMP_ACT_ALLOW, number, count, conditions.data()) == 0,
                ExitCode::filter);
    }
    void load() { require(seccomp_load(context_) == 0, ExitCode::filter); }

  private:
    scmp_filter_ctx context_; // as long as the process
};

} // namespace

void refuseSystemCalls() {
    Allowed allowed;
    for (const char *call : {"read", "pread64", "recvmsg", "write", "close"}) {
        allowed.add(call);
    }
    // Memory: no new code, no files.
    for (const char *call : {"mmap", "mmap2"}) {
        allowed.add(call, {{2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0},
                           {3, SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, MAP_ANONYMOUS}});
    }
    for (const char *call : {"brk", "munmap", "mremap"}) {
        allowed.add(call);
    }
    for (const char *call : {"futex", "clock_gettime", "rt_sigreturn", "exit", "exit_group"}) {
        allowed.add(call);
    }
    allowed.load();
}

void confine() {
    require(syscall(SYS_close_range, 1u, ~0u, 0u) == 0, ExitCode::descriptors);
    leaveRoot();
    dropCapabilities();
    // After the change of user, which takes it back. Had the daemon died before, the socket has ended.
    require(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0, ExitCode::privileges);
    signal(SIGPIPE, SIG_IGN);
    setLimits();
    refuseSystemCalls();
}

} // namespace firn::jail
