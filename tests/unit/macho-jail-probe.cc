// Gives up its rights as firn-macho-jail does, then tries what its argument names: "name ok" or "name ERRNO"
// as its exit code, if the kernel lets it live. Raw calls throughout, as an attacker would make them.
// Descriptor 0 is a file.

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "macho-jail/confine.hh"

namespace {

char buffer[4096];

const std::map<std::string, std::function<long()>> probes{
    {"nothing", [] { return 0L; }},
    // What it may do.
    {"read", [] { return syscall(SYS_pread64, 0, buffer, 1, 0); }},
    {"memory",
     [] {
         void *memory = malloc(64 << 20);
         memory = memory ? realloc(memory, 200 << 20) : nullptr;
         free(memory);
         return memory ? 0L : -1L;
     }},
    {"too-much-memory", [] { return malloc(size_t{2} << 30) == nullptr && errno == ENOMEM ? 0L : -1L; }},
    // What it may not.
    {"openat", [] { return syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDONLY); }},
    {"openat2", [] { return syscall(SYS_openat2, AT_FDCWD, "/dev/null", nullptr, 0); }},
    {"stat", [] { return syscall(SYS_newfstatat, AT_FDCWD, "/", buffer, 0); }},
    {"readlink", [] { return syscall(SYS_readlinkat, AT_FDCWD, "/proc/self/exe", buffer, 10); }},
    {"unlink", [] { return syscall(SYS_unlinkat, AT_FDCWD, "/nonexistent", 0); }},
    {"socket", [] { return syscall(SYS_socket, AF_INET, SOCK_STREAM, 0); }},
    {"socket-unix", [] { return syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0); }},
    {"connect", [] { return syscall(SYS_connect, 0, buffer, 16); }},
    {"sendmsg", [] { return syscall(SYS_sendmsg, 0, buffer, 0); }}, // so no descriptor can be handed out
    {"execve", [] { return syscall(SYS_execve, "/bin/true", nullptr, nullptr); }},
    {"clone", [] { return syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); }},
    {"kill", [] { return syscall(SYS_kill, getppid(), 0); }},
    {"ptrace", [] { return syscall(SYS_ptrace, 16, 1, 0, 0); }},
    {"code-mapped",
     [] { return syscall(SYS_mmap, 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }},
    {"code-unlocked", [] { return syscall(SYS_mprotect, buffer, 4096, PROT_EXEC); }},
    {"file-mapped", [] { return syscall(SYS_mmap, 0, 4096, PROT_READ, MAP_PRIVATE, 0, 0); }},
    {"io_uring", [] { return syscall(SYS_io_uring_setup, 4, nullptr); }},
    {"setuid", [] { return syscall(SYS_setuid, 0); }},
    {"limits", [] { return syscall(SYS_prlimit64, 0, 0, nullptr, buffer); }},
    {"dup", [] { return syscall(SYS_dup, 0); }},
#ifdef __x86_64__
    {"open", [] { return syscall(SYS_open, "/dev/null", O_RDONLY); }},
    {"fork", [] { return syscall(SYS_fork); }},
    {"x32-open", [] { return syscall(0x40000000 | SYS_open, "/dev/null", O_RDONLY); }},
    {"i386-open",
     [] {
         long result;
         asm volatile("int $0x80" : "=a"(result) : "a"(5), "b"(0L), "c"(0L), "d"(0L) : "memory");
         return result;
     }},
#endif
};

} // namespace

int main(int argc, char **argv) {
    auto probe = probes.find(argc == 2 ? argv[1] : "");
    if (probe == probes.end()) {
        return 200;
    }
    // Seen from outside, since nothing is left to look with.
    bool showsItself = probe->first == "nothing";
    firn::jail::confine();
    if (showsItself) {
        for (;;) {
            // A read of the test's pipe ends with the test.
            if (syscall(SYS_read, 0, buffer, 1) <= 0) {
                _exit(0);
            }
        }
    }
    _exit(probe->second() < 0 ? 1 : 0);
}
