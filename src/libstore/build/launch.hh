#pragma once

// How a builder process is started, watched and ended, whatever confines it. A builder always has a
// supervisor between itself and the daemon (sandbox-init on Linux, a forked child elsewhere) which reports
// over a pipe; the pipe's end of file says that the supervisor is gone, and on Linux that every process of
// the build is. Where no process of the build outlived the builder, the report says so, which may be long
// before: the kernel takes its time over namespaces and mounts.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "libutil/file-descriptor.hh"
#include "sandbox-init/description.hh"

namespace firn {

/// How a builder ended, or why it did not start.
struct BuilderResult {
    enum class Kind {
        setupFailed, ///< step, path, error: nothing of the builder ran
        execFailed,  ///< path, error: the builder itself could not be executed
        exited,      ///< exitCode
        signaled,    ///< signal, also when kill() ended it
        lost,        ///< the supervisor ended without a word; path holds how
    };
    Kind kind = Kind::lost;
    sandbox::Step step = sandbox::Step::none;
    std::string path; ///< as the failing step saw it; not escaped
    int error = 0;    ///< errno
    int exitCode = 0;
    int signal = 0;
    /// CPU time of the builder and the children it waited for.
    uint64_t userMicroseconds = 0, systemMicroseconds = 0;
    /// Next to nothing was left of a build directory in memory (BuildDirKind::tmpfs) when the builder ended.
    bool memoryFull = false;

    bool succeeded() const { return kind == Kind::exited && exitCode == 0; }
    /// One clause for a message: "failed with exit code 2", "was killed by signal 9 (Killed)", "could not be
    /// set up: attaching a mount '/build': Permission denied. <what to do>".
    std::string describe() const;
};

/// A running builder. Movable; not to be shared between threads. On Linux the builder dies with the *thread*
/// that started it, so start it from one that lives as long as the process.
class BuilderProcess {
  public:
    /// Owns both; `pid` is the supervisor, a child of ours.
    BuilderProcess(pid_t pid, UniqueFd status);
    BuilderProcess(BuilderProcess &&other) noexcept;
    BuilderProcess &operator=(BuilderProcess &&) = delete;
    /// Kills what still runs and waits for its end. Only then are the sandbox's mounts gone, too.
    ~BuilderProcess();

    /// From which every process of the build descends.
    pid_t pid() const { return pid_; }

    /// Readable (data or end of file) when poll() may have something; non-blocking. For an event loop.
    int statusFd() const { return status_.get(); }

    /// Ends every process of the build with SIGKILL; the result then comes as usual, `signaled`. Harmless
    /// when it has ended.
    void kill();

    /// The result once every process of the build has ended; nullopt before. Never blocks. The same again
    /// when asked again.
    std::optional<BuilderResult> poll();

    /// Blocks until there is one.
    BuilderResult wait();

    /// Whether the supervisor is gone too, and the destructor has nothing to wait for. Never blocks for long.
    bool isGone();

  private:
    bool readStatus();
    int reap();
    void finish();

    pid_t pid_ = -1; ///< −1 once reaped
    UniqueFd status_;
    std::string received_;
    std::optional<BuilderResult> result_;
    bool killed_ = false;
};

/// A builder without any confinement beside its user id.
struct LaunchSpec {
    std::string builder;
    std::vector<std::string> args; ///< with argv[0]
    std::vector<std::string> env;  ///< NAME=value
    std::string workingDirectory;
    int outputFd = -1; ///< becomes stdout and stderr; stays the caller's
    /// Whether to become another user; needs root.
    bool changeUser = false;
    uid_t uid = 0;
    gid_t gid = 0;
    std::vector<gid_t> groups;
};

/// Starts a builder in a session of its own. When it ends, or kill() is called, its process group is killed;
/// a process that left the group survives, so a daemon with build users kills by user as well. Throws
/// SysError when no process can be made; everything later is a result.
BuilderProcess launchUnconfined(const LaunchSpec &spec);

} // namespace firn
