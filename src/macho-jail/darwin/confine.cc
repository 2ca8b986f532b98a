#include "macho-jail/confine.hh"

#include <cerrno>
#include <csignal>
#include <cstdint>

#include <grp.h>
#include <sys/resource.h>
#include <unistd.h>

#include "libstore/build/macho-jail-protocol.hh"

// Seatbelt has no public interface but the deprecated sandbox.h, which not every copy of the system's headers
// holds. The profile "pure-computation" refuses every file, socket, process and IPC; what is open stays.

extern "C" {
extern const char kSBXProfilePureComputation[];
int sandbox_init(const char *profile, uint64_t flags, char **error);
}

namespace firn::jail {

namespace {

constexpr uint64_t namedProfile = 1; // SANDBOX_NAMED
constexpr int nobody = -2;           // macOS's own id of that name
constexpr rlim_t mostProcessorTime = 3600;
constexpr rlim_t mostDescriptors = 8;

void require(bool worked, ExitCode code) {
    if (!worked) {
        _exit(static_cast<int>(code));
    }
}

void leaveRoot() {
    if (geteuid() == 0) {
        require(setgroups(0, nullptr) == 0 && setgid(static_cast<gid_t>(nobody)) == 0 &&
                    setuid(static_cast<uid_t>(nobody)) == 0,
                ExitCode::user);
    }
}

void limit(int resource, rlim_t most) {
    struct rlimit limit = {most, most};
    require(setrlimit(resource, &limit) == 0, ExitCode::limits);
}

} // namespace

void refuseSystemCalls() {
    char *error = nullptr;
    require(sandbox_init(kSBXProfilePureComputation, namedProfile, &error) == 0, ExitCode::filter);
}

/// There is no limit on address space that macOS keeps; the daemon's deadline bounds what can be done in it.
void confine() {
    for (int fd = 1, end = getdtablesize(); fd < end; ++fd) {
        close(fd);
    }
    leaveRoot();
    signal(SIGPIPE, SIG_IGN);
    limit(RLIMIT_CPU, mostProcessorTime);
    limit(RLIMIT_NOFILE, mostDescriptors);
    limit(RLIMIT_FSIZE, 0);
    limit(RLIMIT_CORE, 0);
    refuseSystemCalls();
}

} // namespace firn::jail
