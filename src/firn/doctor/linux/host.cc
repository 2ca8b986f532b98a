#include "firn/doctor/host.hh"

#include <cerrno>
#include <charconv>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/seccomp.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "libstore/build/helper-program.hh"
#include "libstore/build/sandbox.hh"
#include "libstore/linux/mount-calls.hh"
#include "libutil/config-file.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"

namespace firn::doctor {

namespace {

// ---- the kernel

/// With arguments that no kernel accepts: only whether the call exists shows.
bool exists(long number) {
    return syscall(number, nullptr, 0L, 0L, 0L, 0L) >= 0 || errno != ENOSYS;
}

bool filtersCalls() {
    uint32_t action = SECCOMP_RET_ERRNO;
    return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

bool isAtLeast(const std::string &release, int major, int minor) {
    int ours = 0, oursMinor = 0;
    const char *end = release.data() + release.size();
    const char *dot = std::from_chars(release.data(), end, ours).ptr;
    if (dot != end) {
        std::from_chars(dot + 1, end, oursMinor);
    }
    return ours > major || (ours == major && oursMinor >= minor);
}

/// A module that is not loaded yet is in the list of none.
bool knowsOverlays() {
    try {
        for (const std::string &word : splitWords(readFile("/proc/filesystems", 1024 * 1024))) {
            if (word == "overlay") {
                return true;
            }
        }
    } catch (const Error &) {
        return false; // no /proc: the trial of a sandbox says more about that
    }
    return false;
}

bool hasControlGroups() {
    struct statfs info;
    return statfs("/sys/fs/cgroup", &info) == 0 && info.f_type == CGROUP2_SUPER_MAGIC;
}

KernelFeature lookAtMountSetattr() {
    KernelFeature feature{"mount_setattr", haveMountSetattr(), "executable mounts are made the older way",
                          "use Linux 5.12 or later, or a container whose system call filter lets it through"};
    const char *classic = getenv("FIRN_CLASSIC_MOUNTS");
    if (classic && strcmp(classic, "1") == 0) {
        feature.declined = "FIRN_CLASSIC_MOUNTS=1";
        feature.remedy = "unset FIRN_CLASSIC_MOUNTS, which is there for tests";
    }
    return feature;
}

// ---- the sandbox

SandboxPathFacts lookAtPath(const std::string &word) {
    SandboxPathFacts facts{.word = word, .problem = "", .target = "", .source = ""};
    try {
        SandboxPath path = parseSandboxPath(word);
        facts.target = path.target;
        facts.source = path.source;
        facts.optional = path.optional;
        struct stat st;
        facts.error = stat(path.source.c_str(), &st) == 0 ? 0 : errno;
    } catch (const Error &error) {
        facts.problem = error.message();
    }
    return facts;
}

Finding judgeTrial(bool sandboxed, const std::string &initProgram) {
    std::string kind = sandboxed ? "sandbox" : "process namespace for a build";
    BuilderResult result = trySandbox(initProgram, sandboxed);
    std::map<std::string, std::string> details{{"sandboxed", sandboxed ? "true" : "false"}};
    if (result.succeeded()) {
        std::string contents = sandboxed ? " (user, mount, pid, network, IPC and UTS namespaces)" : "";
        return {Level::ok, "sandbox", fmt::format("a {} can be made{} (tried)", kind, contents), "", details};
    }
    std::string advice = explainSetupFailure(result), text = result.describe();
    if (!advice.empty() && text.ends_with(advice)) {
        text.resize(text.size() - advice.size() - 2); // ". "
    }
    if (advice.empty()) {
        advice = "run the daemon as root, or outside of the container that confines it";
    }
    if (sandboxed && geteuid() == 0) {
        advice += "; builds without a sandbox ('sandbox = false') need less";
    }
    return {Level::error, "sandbox", fmt::format("a {} {}", kind, text), advice, details};
}

Finding tryToStart(bool sandboxed, const std::string &initProgram) {
    try {
        return judgeTrial(sandboxed, initProgram);
    } catch (const Error &error) {
        return {Level::error, "sandbox", "no build can be tried: " + error.message(), "", {}};
    }
}

} // namespace

std::string findHelperProgram(Findings &findings) {
    std::string program = sandboxInitProgram();
    std::map<std::string, std::string> details{{"path", program}};
    if (access(program.c_str(), X_OK) != 0) {
        findings.push_back(
            {Level::error, "sandbox-init",
             fmt::format("no build can run without '{}': {}", program, strerror(errno)),
             "install Firn as a whole (meson install), or name the program in FIRN_SANDBOX_INIT", details});
        return "";
    }
    findings.push_back(
        {Level::ok, "sandbox-init", fmt::format("builds are started by '{}'", program), "", details});
    return program;
}

KernelFacts lookAtKernel() {
    struct utsname name;
    std::string release = uname(&name) == 0 ? name.release : "of an unknown version";
    KernelFacts facts{"Linux " + release, {}};
    facts.features = {
        lookAtMountSetattr(),
        {"clone3", exists(SYS_clone3), "it is what sandboxes are started with",
         "use Linux 5.9 or later, or a container whose system call filter lets it through"},
        {"seccomp filters", filtersCalls(), "builders' system calls cannot be filtered",
         "use a kernel with CONFIG_SECCOMP_FILTER; 'filter-syscalls = false' goes without"},
        {"overlays in user namespaces", isAtLeast(release, 5, 11) && knowsOverlays(),
         "a daemon without root's rights needs them for a noexec build directory",
         "modprobe overlay (Linux 5.11 or later)", Level::note},
        {"cgroup v2", hasControlGroups(), "Firn does not use it yet", "", Level::note},
    };
    return facts;
}

Findings judgeSandbox(const Settings &settings, const std::string &initProgram) {
    Findings findings;
    if (!initProgram.empty()) {
        findings.push_back(tryToStart(settings.sandbox != SandboxMode::disabled, initProgram));
    }
    Findings more = judgeSandboxSettings(settings);
    findings.insert(findings.end(), more.begin(), more.end());
    if (settings.sandbox != SandboxMode::disabled) {
        std::vector<SandboxPathFacts> paths;
        for (const std::string &word : settings.sandboxPaths) {
            paths.push_back(lookAtPath(word));
        }
        more = judgeSandboxPaths(paths);
        findings.insert(findings.end(), more.begin(), more.end());
    }
    return findings;
}

bool hasMountRights() {
    return mayMount();
}

std::string programOf(pid_t pid) {
    std::error_code forbidden; // to all but root and the process's own user
    std::string link = fmt::format("/proc/{}/exe", pid);
    std::filesystem::path program = std::filesystem::read_symlink(link, forbidden);
    if (!forbidden) {
        return program.string();
    }
    try {
        std::string name = readFile(fmt::format("/proc/{}/comm", pid), 4096);
        return name.substr(0, name.find('\n'));
    } catch (const Error &) {
        return ""; // it has ended, or is in another pid namespace
    }
}

UniqueFd openForLooking(const std::string &path) {
    return UniqueFd(open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
}

} // namespace firn::doctor
