#include "libstore/build/sandbox.hh"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
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

/// What is sent with a description, which is in the first place.
class Parcel {
  public:
    /// Replaces the descriptors that it names by their places.
    void addNamed(sandbox::Description &description) {
        add(description.outputFd);
        add(description.buildDirFd);
        for (sandbox::SetupOp &op : description.ops) {
            add(op.sourceFd);
        }
    }

    /// Where nobody takes it any more, the status pipe says why.
    void send(int socket, int description) {
        descriptors_.front() = description;
        char byte = 0;
        struct iovec piece = {&byte, 1};
        size_t size = descriptors_.size() * sizeof(int);
        alignas(struct cmsghdr) char control[CMSG_SPACE(sandbox::maxSentDescriptors * sizeof(int))] = {};
        struct msghdr message = {};
        message.msg_iov = &piece;
        message.msg_iovlen = 1;
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(size);
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(size);
        memcpy(CMSG_DATA(head), descriptors_.data(), size);
        ssize_t sent;
        do {
            sent = sendmsg(socket, &message, MSG_NOSIGNAL);
        } while (sent < 0 && errno == EINTR);
        if (sent < 0 && errno != EPIPE && errno != ECONNRESET) {
            throwErrno("telling a sandbox what to do");
        }
    }

  private:
    void add(int32_t &fd) {
        if (fd < 0) {
            return; // there is none
        }
        if (descriptors_.size() == sandbox::maxSentDescriptors) {
            throw Error(ErrorKind::bug, "a sandbox's description names too many descriptors");
        }
        descriptors_.push_back(fd);
        fd = static_cast<int32_t>(descriptors_.size() - 1);
    }

    std::vector<int> descriptors_{-1};
};

} // namespace

StartedSandbox startSandbox(const std::string &initProgram) {
    Pipe status = makePipe();
    UniqueFd writeEnd = aboveStandard(std::move(status.writeEnd));
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
        throwErrno("making a socket to a sandbox");
    }
    UniqueFd ours(ends[0]);
    UniqueFd theirs = aboveStandard(UniqueFd(ends[1]));
    Spawn spawn;
    spawn.pass(theirs.get());
    spawn.pass(writeEnd.get());
    pid_t pid = spawn.run(
        initProgram, {"firn-sandbox-init", std::to_string(theirs.get()), std::to_string(writeEnd.get())});
    return {BuilderProcess(pid, std::move(status.readEnd)), std::move(ours)};
}

BuilderProcess spawnSandbox(StartedSandbox started, const SandboxSpec &spec) {
    sandbox::Description description = planSandbox(spec);
    description.parentPid = getpid();
    description.descriptorLimit = static_cast<uint32_t>(std::min<rlim_t>(usualDescriptorLimit(), UINT32_MAX));
    Parcel parcel;
    parcel.addNamed(description);
    UniqueFd memory = inMemory(sandbox::encodeDescription(description));
    parcel.send(started.socket.get(), memory.get());
    return std::move(started.process);
}

BuilderProcess spawnSandbox(const SandboxSpec &spec) {
    return spawnSandbox(startSandbox(spec.initProgram), spec);
}

} // namespace firn
