#include "libstore/build/sandbox.hh"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <unistd.h>

#include "libstore/linux/sandbox-plan.hh"
#include "libutil/descriptor-limit.hh"
#include "libutil/error.hh"

namespace firn {

namespace {

UniqueFd inMemory(const std::string &bytes) {
    if (bytes.size() > sandbox::maxDescriptionSize) {
        throw Error(ErrorKind::badInput,
                    "the sandbox's description takes {} bytes, more than the limit of {}", bytes.size(),
                    sandbox::maxDescriptionSize);
    }
    UniqueFd memory(memfd_create("sandbox-description", MFD_CLOEXEC));
    if (!memory) {
        throwErrno("making a memory file for a sandbox's description");
    }
    size_t done = 0;
    while (done < bytes.size()) {
        ssize_t written = write(memory.get(), bytes.data() + done, bytes.size() - done);
        if (written < 0 && errno != EINTR) {
            throwErrno("writing a sandbox's description of {} bytes", bytes.size());
        }
        done += written > 0 ? static_cast<size_t>(written) : 0;
    }
    return memory;
}

/// The exec of sandbox-init: posix_spawn has no code of ours run in a copy of this threaded process.
class Spawn {
  public:
    Spawn() {
        posix_spawn_file_actions_init(&actions_);
        posix_spawnattr_init(&attributes_);
        // What the daemon ignores or blocks is not for builders.
        sigset_t all, none;
        sigfillset(&all);
        sigemptyset(&none);
        posix_spawnattr_setsigdefault(&attributes_, &all);
        posix_spawnattr_setsigmask(&attributes_, &none);
        posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    }
    Spawn(const Spawn &) = delete;
    Spawn &operator=(const Spawn &) = delete;
    ~Spawn() {
        posix_spawn_file_actions_destroy(&actions_);
        posix_spawnattr_destroy(&attributes_);
    }

    /// Duplicating a descriptor onto itself here means to let it pass under its own number.
    void pass(int fd) {
        if (int error = posix_spawn_file_actions_adddup2(&actions_, fd, fd)) {
            throw SysError(error, fmt::format("passing descriptor {} to sandbox-init", fd));
        }
    }

    pid_t run(const std::string &program, std::vector<std::string> args) {
        std::vector<char *> argv;
        for (std::string &arg : args) {
            argv.push_back(arg.data());
        }
        argv.push_back(nullptr);
        char *noEnvironment[] = {nullptr};
        pid_t pid = -1;
        int error = posix_spawn(&pid, program.c_str(), &actions_, &attributes_, argv.data(), noEnvironment);
        if (error != 0) {
            throw SysError(error, fmt::format("starting '{}'", program));
        }
        return pid;
    }

  private:
    posix_spawn_file_actions_t actions_;
    posix_spawnattr_t attributes_;
};

/// Descriptors above 2, so that sandbox-init's own three do not collide with what it is given.
UniqueFd aboveStandard(UniqueFd fd) {
    if (fd.get() > 2) {
        return fd;
    }
    UniqueFd copy(fcntl(fd.get(), F_DUPFD_CLOEXEC, 3));
    if (!copy) {
        throwErrno("duplicating a descriptor");
    }
    return copy;
}

} // namespace

BuilderProcess spawnSandbox(const SandboxSpec &spec) {
    sandbox::Description description = planSandbox(spec);
    Pipe status = makePipe();
    UniqueFd writeEnd = aboveStandard(std::move(status.writeEnd));
    UniqueFd output; // only when the caller's own is one of the three
    if (spec.outputFd <= 2) {
        output.reset(fcntl(spec.outputFd, F_DUPFD_CLOEXEC, 3));
        if (!output) {
            throwErrno("duplicating a builder's output");
        }
        description.outputFd = output.get();
    }
    description.statusFd = writeEnd.get();
    description.parentPid = getpid();
    description.descriptorLimit = static_cast<uint32_t>(std::min<rlim_t>(usualDescriptorLimit(), UINT32_MAX));
    UniqueFd memory = aboveStandard(inMemory(sandbox::encodeDescription(description)));

    Spawn spawn;
    spawn.pass(memory.get());
    spawn.pass(description.statusFd);
    spawn.pass(description.outputFd);
    if (description.buildDirFd >= 0) {
        spawn.pass(description.buildDirFd);
    }
    for (const sandbox::SetupOp &op : description.ops) {
        if (op.sourceFd >= 0) {
            spawn.pass(op.sourceFd);
        }
    }
    pid_t pid = spawn.run(spec.initProgram, {"firn-sandbox-init", std::to_string(memory.get())});
    return BuilderProcess(pid, std::move(status.readEnd));
}

} // namespace firn
