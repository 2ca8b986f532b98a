// What the executable mount of a build directory costs over a classic bind mount of it: 1,000 of each, in
// turns, each attached to a directory and taken away again. Needs root and a mount namespace of its own.
// Prints the medians in microseconds: "classic C executable E".
//
// usage: exec-mount DIRECTORY MOUNT_POINT

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include "libstore/linux/exec-bind-mount.hh"

namespace {

constexpr int rounds = 1000;
using Clock = std::chrono::steady_clock;

[[noreturn]] void fail(const char *what) {
    perror(what);
    _exit(1);
}

void attachClassic(const char *directory, const char *point) {
    if (mount(directory, point, nullptr, MS_BIND, nullptr) != 0) {
        fail("mount");
    }
}

void attachExecutable(int directory, const char *point) {
    firn::ExecBindMount made = firn::makeExecBindMount(directory);
    if (made.fd < 0 || move_mount(made.fd, "", AT_FDCWD, point, MOVE_MOUNT_F_EMPTY_PATH) != 0) {
        fail("an executable mount");
    }
    close(made.fd);
}

template<typename Attach>
double microseconds(const char *point, Attach attach) {
    Clock::time_point begin = Clock::now();
    attach();
    double taken = std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
    if (umount2(point, MNT_DETACH) != 0) {
        fail("umount");
    }
    return taken;
}

double median(std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + rounds / 2, values.end());
    return values[rounds / 2];
}

} // namespace

int main(int argc, char **argv) {
    if (argc != 3) {
        fputs("usage: exec-mount DIRECTORY MOUNT_POINT\n", stderr);
        return 2;
    }
    int directory = open(argv[1], O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) {
        fail(argv[1]);
    }
    std::vector<double> classic, executable;
    for (int i = 0; i < rounds; i++) {
        classic.push_back(microseconds(argv[2], [&] { attachClassic(argv[1], argv[2]); }));
        executable.push_back(microseconds(argv[2], [&] { attachExecutable(directory, argv[2]); }));
    }
    printf("classic %.2f executable %.2f\n", median(classic), median(executable));
}
