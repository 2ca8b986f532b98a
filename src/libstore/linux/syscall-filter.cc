#include "libstore/linux/syscall-filter.hh"

#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libutil/error.hh"
#include "libutil/file-descriptor.hh"

namespace firn {

namespace {

using Context = std::unique_ptr<void, void (*)(scmp_filter_ctx)>;

void checkRule(int result, const char *what) {
    if (result < 0) {
        throw Error(ErrorKind::unsupported, "making the system call filter: {}: {}", what, strerror(-result));
    }
}

/// The kernel looks at the lower half of a register where an argument is an int; comparing all 64 bits would
/// let AF_UNIX + 2^32 through.
scmp_arg_cmp hasBits(unsigned arg, uint32_t mask, uint32_t value) {
    return {arg, SCMP_CMP_MASKED_EQ, mask, value};
}

class Rules {
  public:
    Rules() : context_(seccomp_init(SCMP_ACT_ALLOW), seccomp_release) {
        if (!context_) {
            throw Error(ErrorKind::unsupported, "making the system call filter: libseccomp gives no context");
        }
        if (seccomp_arch_native() == SCMP_ARCH_X86_64) {
            checkRule(seccomp_arch_add(context_.get(), SCMP_ARCH_X86), "architecture i386");
        } else if (seccomp_arch_native() == SCMP_ARCH_AARCH64) {
            checkRule(seccomp_arch_add(context_.get(), SCMP_ARCH_ARM), "architecture arm");
        }
    }

    /// `call` by name, on every architecture that has it.
    void refuse(const char *call, int error, const std::vector<scmp_arg_cmp> &conditions = {}) {
        int number = seccomp_syscall_resolve_name(call);
        if (number == __NR_SCMP_ERROR) {
            throw Error(ErrorKind::unsupported, "making the system call filter: libseccomp does not know {}",
                        call);
        }
        auto count = static_cast<unsigned>(conditions.size());
        uint32_t action = SCMP_ACT_ERRNO(static_cast<uint32_t>(error));
        checkRule(seccomp_rule_add_array(context_.get(), action, number, count, conditions.data()), call);
    }

    std::string compile() const {
        UniqueFd memory(memfd_create("syscall-filter", MFD_CLOEXEC));
        if (!memory) {
            throwErrno("making the system call filter: memfd_create");
        }
        checkRule(seccomp_export_bpf(context_.get(), memory.get()), "export");
        off_t size = lseek(memory.get(), 0, SEEK_END);
        std::string program(static_cast<size_t>(size), '\0');
        if (pread(memory.get(), program.data(), program.size(), 0) != size) {
            throwErrno("making the system call filter: reading it back");
        }
        return program;
    }

  private:
    Context context_;
};

constexpr uint32_t forbiddenBits[] = {S_ISUID, S_ISGID};

void refuseSetidBits(Rules &rules) {
    for (uint32_t bit : forbiddenBits) {
        rules.refuse("chmod", EPERM, {hasBits(1, bit, bit)});
        rules.refuse("fchmod", EPERM, {hasBits(1, bit, bit)});
        rules.refuse("fchmodat", EPERM, {hasBits(2, bit, bit)});
        rules.refuse("creat", EPERM, {hasBits(1, bit, bit)});
        rules.refuse("mknod", EPERM, {hasBits(1, bit, bit)});
        rules.refuse("mknodat", EPERM, {hasBits(2, bit, bit)});
        // The mode counts only where a file is made; otherwise the register holds whatever it held. O_TMPFILE
        // contains O_DIRECTORY, so its own bit alone is looked at.
        for (uint32_t creates : {uint32_t{O_CREAT}, uint32_t{O_TMPFILE & ~O_DIRECTORY}}) {
            rules.refuse("open", EPERM, {hasBits(1, creates, creates), hasBits(2, bit, bit)});
            rules.refuse("openat", EPERM, {hasBits(2, creates, creates), hasBits(3, bit, bit)});
        }
    }
}

void refuseAttributes(Rules &rules) {
    rules.refuse("setxattr", ENOTSUP);
    rules.refuse("lsetxattr", ENOTSUP);
    rules.refuse("fsetxattr", ENOTSUP);
}

void refuseOpaqueCalls(Rules &rules) {
    rules.refuse("openat2", ENOSYS);
    rules.refuse("io_uring_setup", ENOSYS);
    rules.refuse("io_uring_enter", ENOSYS);
    rules.refuse("io_uring_register", ENOSYS);
}

/// Subvolumes and snapshots of a btrfs, which anybody may make: a read-only one could be removed by root
/// alone. The numbers are those of linux/btrfs.h.
void refuseSubvolumes(Rules &rules) {
    constexpr uint32_t all = 0xffffffff;
    for (uint32_t request : {0x50009401u, 0x5000940eu, 0x50009417u, 0x50009418u}) {
        rules.refuse("ioctl", EPERM, {hasBits(1, all, request)});
    }
}

void refuseSockets(Rules &rules) {
    constexpr uint32_t all = 0xffffffff;
    constexpr uint32_t typeBits = 0xf; // the rest are flags
    rules.refuse("socketcall", ENOSYS);
    rules.refuse("socket", EAFNOSUPPORT, {hasBits(0, all, AF_UNIX)});
    // The kernel makes a Unix SOCK_RAW a datagram socket.
    for (uint32_t type : {uint32_t{SOCK_DGRAM}, uint32_t{SOCK_RAW}}) {
        rules.refuse("socketpair", EAFNOSUPPORT, {hasBits(0, all, AF_UNIX), hasBits(1, typeBits, type)});
    }
}

/// The number of the last call that this file has considered (mseal, Linux 6.10).
constexpr uint32_t lastKnownCall = 462;
/// Linux 6.6; libseccomp 2.5.4 does not know its name.
constexpr uint32_t fchmodat2 = 452;

/// Runs before libseccomp's program, which it falls through to. 32-bit ARM has calls of its own far above the
/// others.
std::string prefix() {
    constexpr uint32_t refuse = SECCOMP_RET_ERRNO;
    constexpr uint32_t number = offsetof(struct seccomp_data, nr), arch = offsetof(struct seccomp_data, arch);
    constexpr uint32_t mode =
        offsetof(struct seccomp_data, args) + 2 * sizeof(uint64_t); // little-endian: its lower half
    const struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, arch),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_ARM, 7, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, number),
        BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, lastKnownCall, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, refuse | ENOSYS),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, fchmodat2, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, mode),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, S_ISUID | S_ISGID, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, refuse | EPERM),
    };
    return std::string(reinterpret_cast<const char *>(program), sizeof program);
}

std::string makeFilter(bool refuseUnixSockets) {
    Rules rules;
    refuseSetidBits(rules);
    refuseAttributes(rules);
    refuseOpaqueCalls(rules);
    refuseSubvolumes(rules);
    if (refuseUnixSockets) {
        refuseSockets(rules);
    }
    return prefix() + rules.compile();
}

} // namespace

const std::string &syscallFilter(bool refuseUnixSockets) {
    if (refuseUnixSockets) {
        static const std::string strict = makeFilter(true);
        return strict;
    }
    static const std::string usual = makeFilter(false);
    return usual;
}

} // namespace firn
