#pragma once

// Whether programs can be executed in the build directory, and how that is brought about where its file
// system is mounted noexec. Found out by executing one: mount options, a file system's super block, a
// security module or a policy may all forbid it, and only the first can be read anywhere.

#include <filesystem>
#include <string>

#include <sys/types.h>

#include "libstore/build/build-directory.hh"
#include "libstore/store/settings.hh"

namespace firn {

/// The mount that a directory lies on, as messages show it.
struct MountDescription {
    std::string mountPoint, options, fileSystem; ///< options: comma-separated; all "" when not known
    bool noexec = false;
};
/// "'/tmp', tmpfs mounted rw,noexec", or what there is to say of a mount that is in no table.
std::string print(const MountDescription &mount);
/// Costs a read of the mount table: for messages. `directory` must be open in our own mount namespace.
MountDescription describeMount(int directory);

/// Whether a program in the directory can be executed, found out by doing it: a copy of sandbox-init that
/// does nothing is run from there (through `directory`, which may be a detached mount). 0, or the errno, of
/// writing the copy as well. Throws SysError when sandbox-init itself cannot be read. Leaves nothing behind,
/// unless we are killed: use a directory that is swept.
int probeExecution(int directory, const std::string &initProgram);

enum class ExecMechanism {
    direct,           ///< programs can be executed there as it is
    bindMount,        ///< a detached mount without noexec (exec-bind-mount.hh); whoever may change mounts
    classicBindMount, ///< the same with the calls that Linux had before 5.12
    overlay,          ///< an overlay in the user namespace, with its files in the build directory; only for
                      ///< builds as ourselves
    tmpfs,            ///< a fresh tmpfs in the build's mount namespace; only when the settings ask for it
    stateDirectory,   ///< <state>/builds instead
};

/// What a decision holds for: a file system, as seen through mounts of one kind.
struct FileSystemView {
    dev_t device = 0;
    bool noexec = false;
    auto operator<=>(const FileSystemView &) const = default;
};
FileSystemView viewOf(int directory);

/// How builds in `base` get an executable directory on this host; decided once per file system and start.
struct ExecChoice {
    ExecMechanism mechanism = ExecMechanism::direct;
    FileSystemView view;        ///< of the directory that was probed
    std::filesystem::path base; ///< where build directories are made
    std::string origin;         ///< of the directory that was asked for, as in BuildDirectoryBase
    MountDescription mount;     ///< its mount; empty for `direct`
    int probeError = 0;         ///< why it is not `direct`; EACCES where the mount is noexec
    std::string untried;        ///< why nothing was executed to find out; "" where something was
    std::string warning;        ///< for the user: something is not as configured; "" if all is well
};

/// Notes the base for later sweeps (see build-bases.hh). Throws Error(unsupported) naming mount point,
/// options, setting it came from, and the three remedies; and SysError when sandbox-init cannot be read or
/// executed wherever it is.
ExecChoice chooseExecMechanism(const Locations &locations, const Settings &settings,
                               const std::string &initProgram);

/// The same for directories that are open already; `origin` as in BuildDirectoryBase.
ExecChoice chooseExecMechanism(BuildDirectories &directories, const std::string &origin,
                               const Locations &locations, const Settings &settings,
                               const std::string &initProgram);

/// What chooseExecMechanism() throws, as a message for a build whose directory did not get what was chosen:
/// `why` is a clause, `directory` the build's own.
std::string explainNoExecution(const ExecChoice &choice, int directory, const std::string &why);

/// For the mechanism bindMount: the mount of an open build directory, detached. Throws Error(unsupported)
/// with explainNoExecution().
UniqueFd executableMount(int directory, const ExecChoice &choice);

} // namespace firn
