#pragma once

// What the daemon tells sandbox-init to set up, and what sandbox-init tells back.
//
// The daemon is a threaded process, so nothing but exec may happen between its fork and the small program;
// everything it wants done is written down as a Description and travels in a memfd. It comes over a socket,
// as one message, with the descriptors that it names by their place in that message: so the program can be
// started while they are still being made. The format is private to one version of Firn: both sides are built
// together, a different version is refused. It is read with every length checked all the same, since it
// carries a client's strings (arguments, environment) into a process that may be root.
//
// Layout, all numbers little-endian u32: magic, version, then the fields in the order of `fields()` in
// description.cc. A string or a list is its length and then its bytes or elements; a flag is 0 or 1. Nothing
// may follow the last field.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace firn::sandbox {

/// The encoded size is bounded: a closure of 100,000 inputs takes about 20 MiB.
constexpr size_t maxDescriptionSize = 64 * 1024 * 1024;

/// In one message: the memfd, in the first place, and what the description names.
constexpr size_t maxSentDescriptors = 16;

/// The closed list of things that sandbox-init does to build the file system. They run in the order given.
enum class OpKind : uint32_t {
    directory, ///< make a directory; an existing one is fine
    file,      ///< make a regular file with `data` as its contents
    symlink,   ///< make a symlink to `data`
    bind,      ///< attach a clone of a host mount; the mount point is made when it is missing
    tmpfs,     ///< a new tmpfs with the mount options in `data`, for files that the next operations make, too
    ownMount,  ///< make a directory and mount it on itself, so that it stays writable when the root does not
    proc,      ///< the process file system of the sandbox's own pid namespace
    devpts,    ///< a pseudo terminal file system of its own
    overlay,   ///< an overlay of the source's directories lower and upper (its work directory is work)
};

enum class SourceKind : uint32_t {
    none,
    path,       ///< a host path, looked up by sandbox-init
    descriptor, ///< an open (O_PATH is enough) descriptor of a file or directory
    mount,      ///< a detached mount (open_tree, fsmount): attached as it is; flags are only added
};

/// Bits of SetupOp::flags.
enum OpFlags : uint32_t {
    opReadOnly = 1,
    opNoDev = 2,     ///< device nodes do not work; nosuid is always set
    opRecursive = 4, ///< with the mounts below the source
    opOptional = 8,  ///< a source that does not exist is passed over
    opFollow =
        16, ///< follow a symlink at the end of the source path; else a symlink is made anew, not mounted
    opEarly =
        32, ///< clone the source before entering the user namespace, with the daemon's own rights (root only)
    opEarlyIfRoom =
        64, ///< likewise while there are descriptors left; beyond that the build user must reach it
    opExecutable =
        128, ///< clear noexec from the clone, by a remount in a mount namespace between the daemon's and ours
    opBuilders = 256,   ///< the file is the builder's user's
    opWatchSpace = 512, ///< of a tmpfs: the report of the builder's end says whether it was full
    opInput = 1024,     ///< the source path is an entry of inputDirectory; read-only and no devices
};
constexpr uint32_t allOpFlags = 2047;

struct SetupOp {
    OpKind kind = OpKind::directory;
    std::string target; ///< absolute, inside the sandbox, no "." or ".." or empty components
    uint32_t mode = 0755;
    std::string data;
    SourceKind source = SourceKind::none;
    std::string sourcePath;
    int32_t sourceFd = -1; ///< as sent: its place in the message
    uint32_t flags = 0;
};

struct Description {
    int32_t parentPid = 0; ///< the daemon: sandbox-init ends at once when its parent is another by now
    int32_t outputFd = -1; ///< becomes the builder's stdout and stderr; as sent: its place in the message
    bool pivot = true;     ///< a root of its own (sandboxed); else ops apply to the host's tree in a private
                           ///< mount namespace: then their targets exist, and no symlink leads to them
    /// Without a root of its own: the working directory is this one, or else nothing is mounted and nothing
    /// runs; afterwards it is what was mounted on it. −1: any. As sent: its place in the message.
    int32_t buildDirFd = -1;
    bool readOnlyRoot = true;
    bool userNamespace = true;
    bool privateNetwork = true; ///< belongs to the user namespace, which there must be
    bool classicMounts = false; ///< without mount_setattr, which came with Linux 5.12
    uint32_t namespaces = 0;    ///< CLONE_NEW* bits besides user, pid, mount and network
    bool privileged = false;    ///< the daemon has root's rights over mounts and users: it may lease a build
                                ///< user, and maps and opens things for us
    uint32_t insideUid = 0, insideGid = 0;   ///< the builder's, in its namespace
    uint32_t outsideUid = 0, outsideGid = 0; ///< the same on the host
    std::vector<uint32_t> groups;            ///< supplementary groups, host ids; privileged only
    std::string hostName, domainName;        ///< with a UTS namespace; empty: left alone
    /// Where the sources of operations with opInput lie; empty: there are none.
    std::string inputDirectory;
    std::vector<SetupOp> ops;
    std::string filter; ///< struct sock_filter[], as seccomp takes it; empty: none
    bool noNewPrivileges = true;
    uint32_t personality = 0;     ///< as for personality(2)
    uint32_t descriptorLimit = 0; ///< the builder's soft RLIMIT_NOFILE; the hard one is inherited
    std::string workingDirectory;
    std::string builder;
    std::vector<std::string> args; ///< argv, with argv[0]
    std::vector<std::string> env;  ///< NAME=value
};

std::string encodeDescription(const Description &description);

/// nullopt for anything that encodeDescription() would not have written for a sensible description.
std::optional<Description> decodeDescription(std::string_view bytes);

/// Puts the descriptors of a message in for their places in it; false where a place is beyond them.
bool resolveDescriptors(Description &description, const std::vector<int> &descriptors);

/// Where set-up stopped. The names for messages are in stepName().
enum class Step : uint32_t {
    none,
    readDescription,
    watchParent,
    setGroups,
    openSource,
    enterNamespaces,
    mapUsers,
    becomeUser,
    makeRoot,
    makeExecutable,
    findTarget,
    makeDirectory,
    makeFile,
    makeSymlink,
    makeMountPoint,
    setMountFlags,
    attachMount,
    mountTmpfs,
    mountOverlay,
    mountProc,
    mountDevpts,
    sealRoot,
    enterRoot,
    setHostName,
    raiseLoopback,
    dropCapabilities,
    forbidPrivileges,
    loadFilter,
    forkBuilder,
    connectOutput,
    setLimits,
    setPersonality,
    changeDirectory,
    executeBuilder,
    last = executeBuilder,
};

/// A verb phrase, "mounting /proc"; "an unknown step" for a number out of range.
const char *stepName(Step step);

enum class ReportKind : uint32_t {
    setupFailed, ///< `value` is the errno
    execFailed,  ///< the builder could not be executed; `value` is the errno
    exited,      ///< `value` is the exit code
    signaled,    ///< `value` is the signal
};

/// One message on the status pipe, written in one piece (at most PIPE_BUF bytes) and followed by pathLength
/// bytes of path. The first report is the result; EOF after it means that every process of the sandbox is
/// gone, with its mounts and namespaces.
struct Report {
    uint32_t magic = reportMagic;
    ReportKind kind = ReportKind::setupFailed;
    Step step = Step::none;
    int32_t value = 0;
    uint64_t userMicroseconds = 0;   ///< CPU time of the builder and the children it waited for
    uint64_t systemMicroseconds = 0; ///< likewise, in the kernel
    uint32_t pathLength = 0;
    uint16_t isFull = 0;   ///< 1: next to nothing was left of the file system with opWatchSpace
    uint16_t allEnded = 0; ///< 1: no process of the build is left already now, only sandbox-init's own

    static constexpr uint32_t reportMagic = 0x4e524946;
};
constexpr size_t maxReportPath = 2048;

} // namespace firn::sandbox
