// What to tell the user of a host on which a sandbox cannot be made. The only true test is to make one; the
// reasons are then looked for where hosts are known to forbid it.

#include <cerrno>
#include <filesystem>

#include <fcntl.h>

#include "libstore/build/reachability.hh"
#include "libstore/build/sandbox.hh"
#include "libstore/linux/namespace-rules.hh"
#include "libutil/error.hh"

namespace firn {

namespace {

using sandbox::Step;

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
    return refused ? explainForbiddenNamespaces(readNamespaceRules(), error) : "";
}

/// The preflight's scratch store and build directory, in which nothing is made: the directory of the program,
/// as one that is surely there, so that nothing must be written anywhere or could be left behind.
UniqueFd openDirectoryOf(const std::string &program) {
    std::filesystem::path parent = std::filesystem::path(program).parent_path();
    std::string directory = parent.empty() ? "." : parent.string();
    UniqueFd fd(open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!fd) {
        throwErrno("opening the directory '{}' of the program that starts builds", directory);
    }
    return fd;
}

std::string explainDirectory(const BuilderResult &result) {
    switch (result.error) {
    case EACCES:
        return explainUnreachable(result.path);
    case ESTALE:
    case ELOOP:
    case ENOTDIR:
        return "Something else has taken the build directory's place: others must not be able to change what "
               "lies above it";
    default:
        return "";
    }
}

} // namespace

std::string explainSetupFailure(const BuilderResult &result) {
    if (result.kind != BuilderResult::Kind::setupFailed) {
        return "";
    }
    if (result.error == EMFILE || result.error == ENFILE) {
        return "The limit of open files is too low for so many inputs: raise it for the daemon (systemd: "
               "LimitNOFILE=, shell: ulimit -Hn)";
    }
    switch (result.step) {
    case Step::enterNamespaces:
    case Step::mapUsers:
    case Step::becomeUser:
    case Step::setHostName:
    case Step::raiseLoopback:
        return explainForbiddenNamespaces(readNamespaceRules(), result.error);
    case Step::openSource:
        return result.error == ENOENT
                   ? "It does not exist on the host; a sandbox path that may be missing ends in '?'"
                   : explainMounts(result.step, result.error);
    case Step::findTarget:
    case Step::changeDirectory:
        return explainDirectory(result);
    case Step::makeExecutable:
        return result.error == EPERM ? "Lifting noexec takes root's rights over the mount, from outside of "
                                       "any user namespace that does not own it"
                                     : explainMounts(result.step, result.error);
    case Step::makeRoot:
    case Step::setMountFlags:
    case Step::attachMount:
    case Step::mountTmpfs:
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

BuilderResult trySandbox(const std::string &initProgram, bool sandboxed) {
    UniqueFd directory = openDirectoryOf(initProgram);
    UniqueFd null(open("/dev/null", O_WRONLY | O_CLOEXEC));
    SandboxSpec spec;
    spec.initProgram = initProgram;
    spec.sandboxed = sandboxed;
    spec.scratchStore = spec.buildDir = directory.get();
    spec.workingDirectory = "/";
    // The program itself, asked for nothing, as the one executable that is surely there.
    spec.sandboxPaths = {{"/probe", initProgram, false}};
    spec.builder = sandboxed ? "/probe" : initProgram;
    spec.args = {"firn-sandbox-init", "--nothing"};
    spec.outputFd = null.get();
    return spawnSandbox(spec).wait();
}

void checkSandboxSupport(const std::string &initProgram, bool sandboxed) {
    BuilderResult result = trySandbox(initProgram, sandboxed);
    if (!result.succeeded()) {
        throw Error(ErrorKind::unsupported, "this host cannot run {}builds: a trial {}",
                    sandboxed ? "sandboxed " : "", result.describe());
    }
}

} // namespace firn
