// Runs as a builder inside a sandbox, linked statically, and prints for each system call that the filter is
// about what the kernel answers: "name errno-name". Raw calls throughout, as an attacker would make them; on
// x86-64 also through the 32-bit entry and with x32 numbers.

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

namespace {

void show(const char *name, long result) {
    printf("%s %s\n", name, result < 0 ? strerrorname_np(errno) : "ok");
    fflush(stdout);
}

void probeModes() {
    constexpr int creating = O_CREAT | O_WRONLY;
    int fd = open("f", creating, 0644);
    show("chmod", syscall(SYS_chmod, "f", 04755));
    show("fchmod", syscall(SYS_fchmod, fd, 02755));
    show("fchmodat", syscall(SYS_fchmodat, AT_FDCWD, "f", 06755));
    show("fchmodat2", syscall(452, AT_FDCWD, "f", 04755, 0));
    show("chmod-high-bits", syscall(SYS_chmod, "f", 04755 | 1L << 40));
    show("open", syscall(SYS_open, "g", creating, 04755));
    show("open-tmpfile", syscall(SYS_open, ".", O_TMPFILE | O_WRONLY, 04755));
    show("openat", syscall(SYS_openat, AT_FDCWD, "g", creating, 02755));
    show("creat", syscall(SYS_creat, "g", 04755));
    show("mknod", syscall(SYS_mknod, "g", S_IFREG | 04755, 0));
    show("mknodat", syscall(SYS_mknodat, AT_FDCWD, "g", S_IFREG | 04755, 0));
    show("openat2", syscall(SYS_openat2, AT_FDCWD, "g", nullptr, 0));
    show("open-garbage-mode", syscall(SYS_open, "f", O_RDONLY, 07777));
    show("chmod-harmless", syscall(SYS_chmod, "f", 01777));
    show("fchmodat2-harmless", syscall(452, AT_FDCWD, "f", 0644, 0));
}

void probeAttributes() {
    int fd = open("f", O_RDONLY);
    show("setxattr", syscall(SYS_setxattr, "f", "user.a", "v", 1, 0));
    show("lsetxattr", syscall(SYS_lsetxattr, "f", "user.a", "v", 1, 0));
    show("fsetxattr", syscall(SYS_fsetxattr, fd, "user.a", "v", 1, 0));
    show("setxattrat", syscall(463, AT_FDCWD, "f", 0, "user.a", nullptr, 0));
    show("file_setattr", syscall(469, AT_FDCWD, "f", nullptr, 0, 0));
    int directory = open(".", O_RDONLY | O_DIRECTORY);
    show("subvolume", syscall(SYS_ioctl, directory, 0x5000940e, nullptr));
    show("subvolume-2", syscall(SYS_ioctl, directory, 0x50009418, nullptr));
    show("snapshot", syscall(SYS_ioctl, directory, 0x50009401, nullptr));
    show("snapshot-2", syscall(SYS_ioctl, directory, 0x50009417 | 1L << 40, nullptr));
    show("ioctl-harmless", syscall(SYS_ioctl, directory, 0x5451)); // FIOCLEX
    show("io_uring_setup", syscall(SYS_io_uring_setup, 4, nullptr));
    show("io_uring_enter", syscall(SYS_io_uring_enter, -1, 0, 0, 0, nullptr, 0));
    show("io_uring_register", syscall(SYS_io_uring_register, -1, 0, nullptr, 0));
}

void probeSockets() {
    int pair[2];
    show("socket-unix", syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0));
    show("socket-unix-high-bits", syscall(SYS_socket, AF_UNIX | 1L << 32, SOCK_STREAM, 0));
    show("pair-stream", syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
    show("pair-seqpacket", syscall(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET, 0, pair));
    show("pair-datagram", syscall(SYS_socketpair, AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair));
    show("pair-raw", syscall(SYS_socketpair, AF_UNIX, SOCK_RAW, 0, pair));
    show("socket-inet", syscall(SYS_socket, AF_INET, SOCK_STREAM, 0));
}

#ifdef __x86_64__
long call32(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0) {
    long result;
    asm volatile("int $0x80"
                 : "=a"(result)
                 : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
                 : "memory", "r8", "r9", "r10", "r11");
    result = static_cast<int>(result);
    errno = result < 0 ? static_cast<int>(-result) : 0;
    return result;
}

/// 32-bit calls see only the lower addresses.
char *lowMemory() {
    return static_cast<char *>(
        mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0));
}

void probeOtherAbis() {
    char *low = lowMemory();
    strcpy(low, "f");
    auto name = reinterpret_cast<long>(low);
    auto buffer = reinterpret_cast<long>(low + 256);
    show("i386-chmod", call32(15, name, 04755));
    show("i386-open", call32(5, name, O_CREAT | O_WRONLY, 04755));
    show("i386-setxattr", call32(226, name, name, name, 1, 0));
    show("i386-fchmodat2", call32(452, AT_FDCWD, name, 04755, 0));
    show("i386-io_uring_setup", call32(425, 4, 0));
    show("i386-socket-unix", call32(359, AF_UNIX, SOCK_STREAM, 0));
    show("i386-pair-datagram", call32(360, AF_UNIX, SOCK_DGRAM, 0, buffer));
    auto *arguments = reinterpret_cast<uint32_t *>(low + 512);
    arguments[0] = AF_UNIX;
    arguments[1] = SOCK_STREAM;
    arguments[2] = 0;
    show("i386-socketcall", call32(102, 1, reinterpret_cast<long>(arguments)));
    show("i386-getpid", call32(20));
    show("x32-getpid", syscall(0x40000000 | SYS_getpid));
    show("x32-chmod", syscall(0x40000000 | SYS_chmod, "f", 04755));
}
#else
void probeOtherAbis() {}
#endif

void probeTerminal() {
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    char name[64] = "";
    bool works = master >= 0 && unlockpt(master) == 0 && ptsname_r(master, name, sizeof name) == 0 &&
                 open(name, O_RDWR) >= 0;
    printf("terminal %s\n", works ? name : strerrorname_np(errno));
}

socklen_t abstractAddress(const char *name, sockaddr_un &address) {
    address = {};
    address.sun_family = AF_UNIX;
    strcpy(address.sun_path + 1, name);
    return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + strlen(name));
}

/// From inside out: to a listening stream socket, and from a datagram pair that has a peer already.
void reachOut(const char *name) {
    sockaddr_un address;
    socklen_t length = abstractAddress(name, address);
    auto *to = reinterpret_cast<sockaddr *>(&address);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    show("connect", fd < 0 ? -1 : connect(fd, to, length));
    int pair[2];
    address.sun_path[1]++; // the datagram socket's name
    int made = socketpair(AF_UNIX, SOCK_DGRAM, 0, pair);
    show("send", made < 0 ? -1 : sendto(pair[0], "x", 1, 0, to, length));
}

/// From outside in: listens, says so, and waits for a caller for a while.
void listenFor(const char *name) {
    sockaddr_un address;
    socklen_t length = abstractAddress(name, address);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    bool listening =
        fd >= 0 && bind(fd, reinterpret_cast<sockaddr *>(&address), length) == 0 && listen(fd, 1) == 0;
    show("listen", listening ? 0 : -1);
    sleep(listening ? 2 : 0);
}

} // namespace

int main(int argc, char **argv) {
    if (argc == 3) {
        (strcmp(argv[1], "reach") == 0 ? reachOut : listenFor)(argv[2]);
        return 0;
    }
    probeModes();
    probeAttributes();
    probeSockets();
    probeOtherAbis();
    probeTerminal();
}
