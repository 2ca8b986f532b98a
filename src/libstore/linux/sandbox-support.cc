// What to tell the user of a host on which a sandbox cannot be made. The only true test is to make one; the
// reasons are then looked for where hosts are known to forbid it.

#include <cerrno>
#include <cstdlib>
#include <string_view>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libstore/build/sandbox.hh"
#include "libutil/error.hh"

namespace firn {

namespace {

using sandbox::Step;

/// "" when there is no such setting, as on most hosts.
std::string readSetting(const char *path) {
    UniqueFd fd(open(path, O_RDONLY | O_CLOEXEC));
    char text[64];
    ssize_t length = fd ? read(fd.get(), text, sizeof text) : 0;
    std::string value(text, length > 0 ? static_cast<size_t>(length) : 0);
    return value.substr(0, value.find('\n'));
}

std::string explainNamespaces(int error) {
    if (readSetting("/proc/sys/kernel/unprivileged_userns_clone") == "0" && geteuid() != 0) {
        return "This host lets only root make user namespaces: set kernel.unprivileged_userns_clone=1 with "
               "sysctl, or "
               "run the daemon as root";
    }
    if (readSetting("/proc/sys/user/max_user_namespaces") == "0") {
        return "This host allows no user namespaces: set user.max_user_namespaces to some thousands with "
               "sysctl";
    }
    if (readSetting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" && geteuid() != 0) {
        return "AppArmor restricts user namespaces on this host: give sandbox-init a profile with 'userns,', "
               "set "
               "kernel.apparmor_restrict_unprivileged_userns=0 with sysctl, or run the daemon as root";
    }
    if (error == ENOSPC) {
        return "A limit of namespaces is reached: see the settings below /proc/sys/user and how deeply this "
               "process "
               "is nested in user namespaces";
    }
    if (error == ENOSYS || error == EINVAL) {
        return "The kernel lacks a kind of namespace: Linux 5.9 or later with CONFIG_USER_NS, PID_NS, "
               "NET_NS, IPC_NS, "
               "UTS_NS and CGROUPS is needed; a container's system call filter may hide clone3";
    }
    return error == EPERM || error == EACCES
               ? "The host forbids new namespaces, as containers and chroot environments do: allow them there"
               : "";
}

std::string explainMounts(Step step, int error) {
    if (error == ENOSYS) {
        return "The kernel lacks the mount calls of Linux 5.9, or a container's system call filter hides "
               "them";
    }
    if (step == Step::mountProc && (error == EPERM || error == EACCES)) {
        return "The host's own /proc is partly covered, as in a container, and then no new one may be "
               "mounted: run the "
               "container with an uncovered /proc (for example --security-opt unmask=/proc/*)";
    }
    bool refused = error == EPERM || error == EACCES;
    return refused ? explainNamespaces(error) : "";
}

/// The preflight's scratch store and build directory.
class TemporaryDirectory {
  public:
    TemporaryDirectory() : path_("/tmp/firn-probe-XXXXXX") {
        if (!mkdtemp(path_.data())) {
            throwErrno("making the directory '{}'", path_);
        }
        fd_.reset(open(path_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    }
    TemporaryDirectory(const TemporaryDirectory &) = delete;
    TemporaryDirectory &operator=(const TemporaryDirectory &) = delete;
    ~TemporaryDirectory() {
        // Only ever holds mount points of our own making.
        unlinkat(fd_.get(), "probe", 0);
        rmdir(path_.c_str());
    }
    int fd() const { return fd_.get(); }

  private:
    std::string path_;
    UniqueFd fd_;
};

} // namespace

std::string explainSetupFailure(const BuilderResult &result) {
    if (result.kind != BuilderResult::Kind::setupFailed) {
        return "";
    }
    switch (result.step) {
    case Step::enterNamespaces:
    case Step::mapUsers:
    case Step::becomeUser:
    case Step::setHostName:
    case Step::raiseLoopback:
        return explainNamespaces(result.error);
    case Step::openSource:
        return result.error == ENOENT
                   ? "It does not exist on the host; a sandbox path that may be missing ends in '?'"
                   : explainMounts(result.step, result.error);
    case Step::makeRoot:
    case Step::setMountFlags:
    case Step::attachMount:
    case Step::mountTmpfs:
    case Step::makeExecutable:
    case Step::mountProc:
    case Step::mountDevpts:
    case Step::enterRoot:
        return explainMounts(result.step, result.error);
    case Step::mountOverlay:
        return "The kernel lacks overlays in user namespaces (Linux 5.11 with CONFIG_OVERLAY_FS), or the "
               "host forbids them";
    case Step::loadFilter:
        return "The kernel needs CONFIG_SECCOMP_FILTER; the setting 'filter-syscalls = false' goes without";
    default:
        return "";
    }
}

void checkSandboxSupport(const std::string &initProgram, bool sandboxed) {
    TemporaryDirectory directory;
    UniqueFd null(open("/dev/null", O_WRONLY | O_CLOEXEC));
    SandboxSpec spec;
    spec.initProgram = initProgram;
    spec.sandboxed = sandboxed;
    spec.scratchStore = spec.buildDir = directory.fd();
    spec.workingDirectory = "/";
    // The program itself, asked for nothing, as the one executable that is surely there.
    spec.sandboxPaths = {{"/probe", initProgram, false}};
    spec.builder = sandboxed ? "/probe" : initProgram;
    spec.args = {"firn-sandbox-init", "--nothing"};
    spec.outputFd = null.get();
    BuilderResult result = spawnSandbox(spec).wait();
    if (!result.succeeded()) {
        throw Error(ErrorKind::unsupported, "this host cannot run {}builds: a trial {}",
                    sandboxed ? "sandboxed " : "", result.describe());
    }
}

} // namespace firn
