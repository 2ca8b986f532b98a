#include "firn/doctor/host.hh"

#include <fcntl.h>
#include <libproc.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "libstore/build/helper-program.hh"
#include "libutil/error.hh"

namespace firn::doctor {

/// Builders are started without one.
std::string findHelperProgram(Findings &) {
    return sandboxInitProgram();
}

KernelFacts lookAtKernel() {
    struct utsname name;
    return {fmt::format("Darwin {}", uname(&name) == 0 ? name.release : "of an unknown version"), {}};
}

Findings judgeSandbox(const Settings &settings, const std::string &) {
    if (settings.sandbox == SandboxMode::disabled) {
        return {{Level::limit,
                 "sandbox-setting",
                 "builds see the host's files, network and programs",
                 "sandboxes for macOS are not there yet",
                 {{"sandbox", "false"}}}};
    }
    return {{Level::error,
             "sandbox",
             "there are no sandboxes for macOS yet, so that every build is refused",
             "set 'sandbox = false'",
             {{"sandboxed", "true"}}}};
}

bool hasMountRights() {
    return false; // nothing lifts the flag for one process, whoever asks
}

std::string programOf(pid_t pid) {
    char path[PROC_PIDPATHINFO_MAXSIZE];
    int length = proc_pidpath(pid, path, sizeof path);
    return length > 0 ? std::string(path, static_cast<size_t>(length)) : "";
}

UniqueFd openForLooking(const std::string &path) {
    return UniqueFd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_CLOEXEC));
}

} // namespace firn::doctor
