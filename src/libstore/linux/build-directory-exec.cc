#include "libstore/build/build-directory-exec.hh"

#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <sstream>
#include <vector>

#include <fcntl.h>
#include <spawn.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libstore/build/sandbox.hh"
#include "libstore/linux/exec-bind-mount.hh"
#include "libstore/linux/mount-calls.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"

namespace firn {

namespace {

// ---- the mount table

/// mountinfo writes blanks and backslashes in octal.
std::string unescapeMountField(const std::string &field) {
    std::string text;
    for (size_t i = 0; i < field.size(); i++) {
        bool escaped = field[i] == '\\' && i + 3 < field.size();
        if (escaped) {
            text +=
                static_cast<char>((field[i + 1] - '0') * 64 + (field[i + 2] - '0') * 8 + field[i + 3] - '0');
            i += 3;
        } else {
            text += field[i];
        }
    }
    return text;
}

std::string mountIdOf(int fd) {
    std::istringstream lines(readFile(fmt::format("/proc/self/fdinfo/{}", fd), 64 * 1024));
    std::string name, value;
    while (lines >> name >> value) {
        if (name == "mnt_id:") {
            return value;
        }
    }
    return "";
}

/// id parent major:minor root mount-point options tags… - type source super-options
bool parseMountLine(const std::string &line, const std::string &id, MountDescription &mount) {
    std::istringstream fields(line);
    std::string itsId, skipped, point, options, type;
    if (!(fields >> itsId >> skipped >> skipped >> skipped >> point >> options) || itsId != id) {
        return false;
    }
    while (fields >> skipped && skipped != "-") {
    }
    fields >> type;
    mount.mountPoint = unescapeMountField(point);
    mount.options = options;
    mount.fileSystem = type;
    return true;
}

// ---- the probe

constexpr const char *probeName = "firn-probe";

[[noreturn]] void throwBadProgram(int error, const char *what, const std::string &program) {
    throw SysError(error, fmt::format("{} '{}', the program that starts builds (install Firn as a whole, or "
                                      "name the program in FIRN_SANDBOX_INIT)",
                                      what, program));
}

/// Copies sandbox-init; 0 or the errno of writing.
int copyProgram(const std::string &program, int directory, const std::string &name) {
    UniqueFd from(open(program.c_str(), O_RDONLY | O_CLOEXEC));
    if (!from) {
        throwBadProgram(errno, "reading", program);
    }
    UniqueFd to(openat(directory, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0700));
    if (!to) {
        return errno;
    }
    for (;;) {
        ssize_t copied = sendfile(to.get(), from.get(), nullptr, 1 << 30);
        if (copied == 0) {
            return 0;
        }
        if (copied < 0 && errno != EINTR) {
            return errno;
        }
    }
}

int awaitProbe(pid_t pid) {
    int status = 0;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            return errno;
        }
    }
    if (WIFSIGNALED(status)) {
        return EAGAIN; // it was allowed to start; who killed it had other reasons
    }
    // Started, and yet ended otherwise than it does: something has forbidden it to run.
    return WEXITSTATUS(status) == 0 ? 0 : EPERM;
}

int executeProbe(const std::string &path) {
    char self[] = "firn-sandbox-init", nothing[] = "--nothing";
    char *argv[] = {self, nothing, nullptr}, *env[] = {nullptr};
    // A thread that forks at this moment may hold the file open for writing until its child's exec.
    for (int attempt = 0;; attempt++) {
        pid_t pid = -1;
        int error = posix_spawn(&pid, path.c_str(), nullptr, nullptr, argv, env);
        if (error == 0) {
            return awaitProbe(pid);
        }
        if (error != ETXTBSY || attempt == 100) {
            return error;
        }
        usleep(1000);
    }
}

/// A program that does not run from its own place either says nothing of the build directory.
void requireGoodProgram(const std::string &program) {
    if (int error = executeProbe(program)) {
        throwBadProgram(error, "executing", program);
    }
}

/// A lack of space and the like says nothing about execution. The build meets it soon enough.
bool isUndecided(int error) {
    switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EROFS:
    case EIO:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case EAGAIN:
    case ETXTBSY:
        return true;
    default:
        return false;
    }
}

struct ProbeOutcome {
    int error = 0; ///< 0: the program ran
    std::string reason;
    bool undecided = false; ///< it did not come to that
};

ProbeOutcome outcomeOf(int error) {
    return {error, error ? strerror(error) : "", isUndecided(error)};
}

/// An overlay, or a classic executable mount, is only made by sandbox-init: the probe is the builder in it.
ProbeOutcome probeInMountNamespace(BuildDirectory &directory, BuildDirKind kind,
                                   const std::string &initProgram) {
    if (kind == BuildDirKind::overlay) {
        directory.makeOverlay();
    }
    if (int error = copyProgram(initProgram, directory.contentsFd(), probeName)) {
        return outcomeOf(error);
    }
    UniqueFd null(open("/dev/null", O_WRONLY | O_CLOEXEC));
    SandboxSpec spec;
    spec.initProgram = initProgram;
    spec.sandboxed = false;
    spec.buildDir = directory.fd();
    spec.buildDirKind = kind;
    spec.buildDirInside = spec.workingDirectory = directory.path().string();
    spec.builder = (directory.path() / probeName).string();
    spec.args = {"firn-sandbox-init", "--nothing"};
    spec.outputFd = null.get();
    BuilderResult result = spawnSandbox(spec).wait();
    if (result.succeeded()) {
        return {};
    }
    return {result.error != 0 ? result.error : EPERM, "a trial " + result.describe(), false};
}

ProbeOutcome probeMount(int directory, const std::string &initProgram) {
    ExecBindMount mount = makeExecBindMount(directory);
    UniqueFd fd(mount.fd);
    if (!fd) {
        return {mount.error, fmt::format("{}: {}", mount.step, strerror(mount.error)), false};
    }
    return outcomeOf(probeExecution(fd.get(), initProgram));
}

ProbeOutcome probeMechanism(BuildDirectories &directories, ExecMechanism mechanism,
                            const std::string &initProgram) {
    BuildDirectory directory = directories.make();
    switch (mechanism) {
    case ExecMechanism::bindMount:
        return probeMount(directory.fd(), initProgram);
    case ExecMechanism::classicBindMount:
        return probeInMountNamespace(directory, BuildDirKind::classicExecutable, initProgram);
    case ExecMechanism::overlay:
        return probeInMountNamespace(directory, BuildDirKind::overlay, initProgram);
    default:
        return outcomeOf(probeExecution(directory.fd(), initProgram));
    }
}

ProbeOutcome probeWithGoodProgram(BuildDirectories &directories, ExecMechanism mechanism,
                                  const std::string &initProgram) {
    ProbeOutcome outcome = probeMechanism(directories, mechanism, initProgram);
    if (mechanism == ExecMechanism::direct && outcome.error != 0 && !outcome.undecided) {
        requireGoodProgram(initProgram);
    }
    return outcome;
}

/// What the probes said, for as long as this process lives and for those that it forks.
class ProbeResults {
  public:
    /// An undecided probe counts as the mount's options say, and is not remembered.
    ProbeOutcome get(BuildDirectories &directories, ExecMechanism mechanism, const std::string &initProgram) {
        std::lock_guard<std::mutex> guard(mutex_);
        std::pair<FileSystemView, ExecMechanism> key(viewOf(directories.fd()), mechanism);
        auto found = results_.find(key);
        if (found != results_.end()) {
            return found->second;
        }
        ProbeOutcome outcome = probeWithGoodProgram(directories, mechanism, initProgram);
        if (outcome.undecided) {
            return outcomeOf(mechanism == ExecMechanism::direct && key.first.noexec ? EACCES : 0);
        }
        return results_.emplace(key, outcome).first->second;
    }

  private:
    std::mutex mutex_;
    std::map<std::pair<FileSystemView, ExecMechanism>, ProbeOutcome> results_;
};

ProbeResults &probeResults() {
    static ProbeResults results;
    return results;
}

// ---- messages

std::string describeOrigin(const std::string &origin) {
    if (origin == "build-dir") {
        return "from the setting 'build-dir'";
    }
    return origin == "TMPDIR" ? "from the daemon's TMPDIR" : "the default";
}

std::string describePlace(const ExecChoice &choice) {
    const MountDescription &mount = choice.mount;
    return fmt::format("the build directory '{}' ({}) is on '{}', {} mounted {}", choice.base.string(),
                       describeOrigin(choice.origin), mount.mountPoint, mount.fileSystem, mount.options);
}

std::string remedies(const MountDescription &mount, bool mayHaveMount) {
    std::string point = mount.mountPoint.empty() ? "its file system" : "'" + mount.mountPoint + "'";
    std::string first =
        mount.noexec
            ? fmt::format("mount {} without noexec", point)
            : fmt::format(
                  "let programs on {} be executed, which its file system or a security policy forbids",
                  point);
    return fmt::format(
        "{}, or set 'build-dir' to a directory where programs can be executed, or set {}"
        "'noexec-build-dir = tmpfs' to have build directories in memory",
        first, mayHaveMount ? "'noexec-build-dir = mount' to have an executable view of them or " : "");
}

/// `mayHaveMount`: that has not been tried, as the settings forbid it.
std::string explainRefusal(const ExecChoice &choice, const std::string &why, bool mayHaveMount = false) {
    return fmt::format("programs cannot be executed where builds would run: {}; {}. Either {}.",
                       describePlace(choice), why, remedies(choice.mount, mayHaveMount));
}

/// Asked of the mount alone: a probe would have to put a program into the store, where nothing may be
/// that nobody can account for. What else may forbid execution there shows as the builder's own failure.
void requireExecutableStore(const Locations &locations) {
    struct statvfs info;
    const std::string &store = locations.storeDir.str();
    if (statvfs(store.c_str(), &info) != 0 || (info.f_flag & ST_NOEXEC) == 0) {
        return;
    }
    UniqueFd fd(open(store.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    MountDescription mount = fd ? describeMount(fd.get()) : MountDescription();
    throw Error(ErrorKind::unsupported,
                "nothing in the store '{}' can be executed: it is on '{}', {} mounted {}. Mount that without "
                "noexec: builders and all that they use are programs in the store.",
                store, mount.mountPoint, mount.fileSystem, mount.options);
}

// ---- the choice

/// What may give builds an executable view of their directory, the best first. Which of them does is for the
/// probe to say: user 0 of a user namespace may find a mount's flags locked, and a user who is not root may
/// have the right to change them.
std::vector<ExecMechanism> mechanismsFor(const Settings &settings) {
    std::vector<ExecMechanism> mechanisms;
    if (mayMount()) {
        if (haveMountSetattr()) {
            mechanisms.push_back(ExecMechanism::bindMount);
        }
        mechanisms.push_back(ExecMechanism::classicBindMount);
    }
    bool buildsAsOurselves = geteuid() != 0 || settings.buildUsersGroup.empty();
    if (buildsAsOurselves) {
        mechanisms.push_back(ExecMechanism::overlay);
    }
    return mechanisms;
}

const char *describeMechanism(ExecMechanism mechanism) {
    switch (mechanism) {
    case ExecMechanism::overlay:
        return "an overlay over it in a user namespace";
    case ExecMechanism::classicBindMount:
        return "one made in the way of Linux before 5.12";
    default:
        return "a private mount of it without noexec";
    }
}

/// Takes the first mechanism that works; otherwise returns what was wrong with each.
std::string tryMechanisms(ExecChoice &choice, BuildDirectories &directories, const Settings &settings,
                          const std::string &initProgram) {
    std::string tried;
    for (ExecMechanism mechanism : mechanismsFor(settings)) {
        ProbeOutcome outcome = probeResults().get(directories, mechanism, initProgram);
        if (outcome.error == 0) {
            choice.mechanism = mechanism;
            return "";
        }
        tried += fmt::format("{}{} does not help here ({})", tried.empty() ? "" : ", ",
                             describeMechanism(mechanism), outcome.reason);
    }
    return tried.empty() ? "the daemon has no right to change mounts, and an overlay serves only builds as "
                           "its own user ('build-users-group' is set)"
                         : tried;
}

/// The default directory, if that is another one and programs can be executed in it as it is.
bool isStateDirectoryExecutable(const BuildDirectories &directories, const Locations &locations,
                                const std::string &initProgram) {
    try {
        BuildDirectories others(BuildDirectories::defaultBase(locations), BuildDirectories::Sweep::no);
        return others.base() != directories.base() &&
               probeResults().get(others, ExecMechanism::direct, initProgram).error == 0;
    } catch (const Error &) {
        return false; // it is no place for builds either; the message is about the first
    }
}

} // namespace

FileSystemView viewOf(int directory) {
    struct stat st;
    struct statvfs info;
    if (fstat(directory, &st) != 0 || fstatvfs(directory, &info) != 0) {
        throwErrno("asking for the mount of the build directory");
    }
    return {st.st_dev, (info.f_flag & ST_NOEXEC) != 0};
}

MountDescription describeMount(int directory) {
    MountDescription mount;
    mount.noexec = viewOf(directory).noexec;
    std::string id = mountIdOf(directory);
    std::istringstream lines(readFile("/proc/self/mountinfo", 64 * 1024 * 1024));
    for (std::string line; std::getline(lines, line);) {
        if (parseMountLine(line, id, mount)) {
            break;
        }
    }
    return mount;
}

int probeExecution(int directory, const std::string &initProgram) {
    std::string name = fmt::format("{}-{}", probeName, getpid());
    int error = copyProgram(initProgram, directory, name);
    if (error == 0) {
        error = executeProbe(fmt::format("/proc/self/fd/{}/{}", directory, name));
    }
    unlinkat(directory, name.c_str(), 0);
    return error;
}

std::string explainNoExecution(const ExecChoice &choice, int directory, const std::string &why) {
    ExecChoice now = choice;
    MountDescription mount = describeMount(directory);
    if (!mount.mountPoint.empty()) { // it may have been unmounted meanwhile
        now.mount = mount;
    }
    return explainRefusal(now, why);
}

UniqueFd executableMount(int directory, const ExecChoice &choice) {
    ExecBindMount mount = makeExecBindMount(directory);
    if (mount.fd < 0) {
        std::string why = fmt::format("making {} failed ({}: {})", describeMechanism(choice.mechanism),
                                      mount.step, strerror(mount.error));
        throw Error(ErrorKind::unsupported, "{}", explainNoExecution(choice, directory, why));
    }
    return UniqueFd(mount.fd);
}

ExecChoice chooseExecMechanism(BuildDirectories &directories, const std::string &origin,
                               const Locations &locations, const Settings &settings,
                               const std::string &initProgram) {
    requireExecutableStore(locations);
    ExecChoice choice{.mechanism = ExecMechanism::direct,
                      .view = viewOf(directories.fd()),
                      .base = directories.base(),
                      .origin = origin,
                      .mount = {},
                      .probeError = 0,
                      .warning = ""};
    choice.probeError = probeResults().get(directories, ExecMechanism::direct, initProgram).error;
    if (choice.probeError == 0) {
        return choice;
    }
    choice.mount = describeMount(directories.fd());
    if (settings.noexecBuildDir == NoexecBuildDir::refuse) {
        throw Error(ErrorKind::unsupported, "{}",
                    explainRefusal(choice, "'noexec-build-dir = refuse' is set", /*mayHaveMount=*/true));
    }
    if (settings.noexecBuildDir == NoexecBuildDir::tmpfs) {
        choice.mechanism = ExecMechanism::tmpfs;
        choice.warning =
            fmt::format("{}: each build has a tmpfs of size {} instead ('noexec-build-dir = tmpfs')",
                        describePlace(choice), settings.noexecTmpfsSize);
        return choice;
    }
    std::string problem = tryMechanisms(choice, directories, settings, initProgram);
    if (problem.empty()) {
        return choice;
    }
    if (!isStateDirectoryExecutable(directories, locations, initProgram)) {
        throw Error(ErrorKind::unsupported, "{}", explainRefusal(choice, problem));
    }
    std::string place = describePlace(choice);
    choice.mechanism = ExecMechanism::stateDirectory;
    choice.base = BuildDirectories::defaultBase(locations);
    choice.warning =
        fmt::format("{}, and {}: builds run in '{}' instead", place, problem, choice.base.string());
    return choice;
}

} // namespace firn
