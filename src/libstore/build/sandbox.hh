#pragma once

// A sandbox for one builder: what it shall contain, and starting it. One header for every platform; the files
// linux/sandbox*.cc and darwin/sandbox.cc implement it.
//
// What it promises on Linux: the builder sees the inputs, its build directory, the outputs it makes, the
// sandbox paths and nothing else of the host's files; no process but its own; no network but a loopback of
// its own (or the host's, `Network::host`); it has no privileges and gets none; no descriptor but 0, 1 and 2.
// When the daemon dies, by whatever signal, all its processes and mounts are gone.
//
// What it does not promise: a limit on memory, processor or processes, protection from bugs in the kernel, or
// that path-named Unix sockets and FIFOs in the build directory or among the outputs are out of reach for
// others: that is up to the caller, whose build and scratch directories must have a parent that only the
// daemon can enter.

#include <string>
#include <vector>

#include <sys/types.h>

#include "libstore/build/launch.hh"

namespace firn {

struct SandboxInput {
    std::string path;   ///< where the builder sees it; absolute
    std::string source; ///< host path; a symlink at its end is made anew, not followed
};

struct SandboxPath {
    std::string target; ///< where the builder sees it
    std::string source; ///< host path, symlinks followed
    bool optional = false;
    bool readOnly = false; ///< devices do not work then either
};

/// One word of the setting `sandbox-paths`: "target", "target=source", either with a "?" at the end: passed
/// over when the source does not exist. Throws badInput for a path that is not absolute or has "." or ".." in
/// it.
SandboxPath parseSandboxPath(const std::string &word);

enum class Network {
    isolated, ///< a loopback interface and nothing else
    host,     ///< the host's (fixed-output builds): then no Unix sockets but connected pairs, see
              ///< syscall-filter.hh
};

/// What SandboxSpec::buildDir is, and so how the builder comes to see it at buildDirInside.
enum class BuildDirKind {
    directory,         ///< a directory, bound as it is; unsandboxed: nothing to do
    mount,             ///< a detached mount of one, such as an executable one made from a noexec file system
    classicExecutable, ///< a directory, of which sandbox-init makes an executable mount with the calls that
                       ///< Linux had before 5.12 and with the daemon's rights
    overlay, ///< a directory with lower, upper and work, of which sandbox-init makes an overlay with the
             ///< builder's rights; for builds as ourselves
    tmpfs,   ///< a fresh tmpfs of size buildDirSize with buildDirFiles in it
};

struct BuildDirFile {
    std::string name, content;
};

/// A plain value. Descriptors stay the caller's and are needed only until spawnSandbox() returns.
struct SandboxSpec {
    /// firn-sandbox-init, unless that has been started already.
    std::string initProgram;
    /// false: the host's file system, network and IPC, but a pid namespace of its own, so that nothing
    /// survives the build. Then inputs, sandbox paths and the like are not used, uidInside and gidInside are
    /// those outside, and the build directory is mounted over `buildDirInside` unless its kind is
    /// `directory`. That path must lead, without a symlink, to `buildDir` itself: else nothing is mounted and
    /// the builder does not start.
    bool sandboxed = true;

    std::string storeDir = "/nix/store";
    /// The directory in which the builder makes its outputs, shown at storeDir. Writable by the builder's
    /// user; the inputs' mount points (empty files, which may be links to one, and directories) remain in it,
    /// so only named outputs may be taken out.
    int scratchStore = -1;
    std::vector<SandboxInput> inputs;

    /// Writable by the builder's user. May be −1 for a tmpfs in a sandbox, and where one of kind `directory`
    /// needs no mount because there is no sandbox: then it is not looked at.
    int buildDir = -1;
    BuildDirKind buildDirKind = BuildDirKind::directory;
    std::string buildDirSize;                ///< as for tmpfs
    std::vector<BuildDirFile> buildDirFiles; ///< of a tmpfs; the builder's user's, mode 0644
    std::string buildDirInside = "/build";
    /// Empty: buildDirInside.
    std::string workingDirectory;

    std::vector<SandboxPath> sandboxPaths;

    std::string builder;           ///< path inside
    std::vector<std::string> args; ///< with argv[0]
    std::vector<std::string> env;  ///< NAME=value, exactly what the builder gets

    uid_t uidInside = 1000;
    gid_t gidInside = 100;
    /// For a root daemon: the leased build user's. Otherwise the daemon's own.
    uid_t uidOutside = static_cast<uid_t>(-1);
    gid_t gidOutside = static_cast<gid_t>(-1);
    /// For a root daemon: the build user's supplementary groups, such as kvm.
    std::vector<gid_t> groups;

    Network network = Network::isolated;
    bool kvm = false;     ///< show /dev/kvm
    bool linux32 = false; ///< uname says i686, for 32-bit builds on a 64-bit kernel
    bool impersonateLinux26 = false;
    std::string hostName = "localhost";
    std::string domainName = "(none)";
    std::string devShmSize = "50%"; ///< as for tmpfs; 50 % needs no mount of its own
    bool filterSyscalls = true;
    bool allowNewPrivileges = false;

    int outputFd = -1; ///< becomes stdout and stderr (stdin is /dev/null)
};

/// A sandbox-to-be: a process that waits to be told what to do. It ends when this goes.
struct StartedSandbox {
    BuilderProcess process;
    UniqueFd socket;
};

/// Takes about as long as it takes to prepare a build, and needs nothing of what is being prepared. Throws
/// SysError when no process can be made.
StartedSandbox startSandbox(const std::string &initProgram);

/// Makes a sandbox of it. Throws badInput for a specification that makes no sense; what goes wrong later, or
/// has gone wrong by now, is the process's result.
BuilderProcess spawnSandbox(StartedSandbox started, const SandboxSpec &spec);

/// Both at once.
BuilderProcess spawnSandbox(const SandboxSpec &spec);

/// Makes one real sandbox that does nothing, as the current user. `sandboxed` false tries the pid namespace
/// of unsandboxed builds alone. Throws SysError when not even a process can be made.
BuilderResult trySandbox(const std::string &initProgram, bool sandboxed);

/// The same; throws Error(unsupported) saying what the host lacks and what to do about it.
void checkSandboxSupport(const std::string &initProgram, bool sandboxed = true);

/// For a result of kind setupFailed: what to do about it on this host; empty when nothing is known.
std::string explainSetupFailure(const BuilderResult &result);

} // namespace firn
