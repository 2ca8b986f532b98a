#pragma once

#include <string_view>
#include <vector>

#include <sys/types.h>

#include "sandbox-init/description.hh"
#include "sandbox-init/inputs.hh"

namespace firn::sandbox {

/// What an operation's source turned out to be.
struct OpenSource {
    int fd = -1;            ///< a detached mount, or -1: nothing to mount
    mode_t mode = 0;        ///< st_mode of what is mounted; 0 for an optional source that does not exist
    std::string linkTarget; ///< for a symlink, which is made anew instead of mounted
    /// MS_* flags (and MS_REC, for its propagation alone) that the mount gets once it is attached: the
    /// classic calls know no detached mounts. 0: it has all it needs.
    unsigned long lateFlags = 0;
};

/// What there is of the operations' sources before the first of them runs.
struct Sources {
    std::vector<OpenSource> ofOps; ///< one for each operation
    InputDirectory inputs;
};

/// Adds flags to a detached mount, with opRecursive to those below it: nosuid, and what opReadOnly and
/// opNoDev ask for; and makes it private. `name` is for messages.
void addMountFlags(int mount, uint32_t opFlags, std::string_view name);

/// Clones the source's mount into a detached one: private (a clone of a shared host mount would otherwise
/// stay its peer and show the sandbox's mounts on the host), nosuid, and with the operation's own flags.
/// Flags are only ever added. Fails the set-up when that does not work.
OpenSource openSource(const SetupOp &op);

/// Sets the late flags of a mount that has been attached, whose descriptor is `mount`, and makes it private.
/// A remount replaces all flags, so those that it has are repeated. Mounts below it keep theirs.
void setLateFlags(int mount, unsigned long flags, std::string_view name, Step step = Step::setMountFlags);

/// The source directory of an overlay, opened in this mount namespace and known to be the one that was meant.
int openOverlayDirectory(const SetupOp &op);

/// The sources that only the daemon's own rights can open, before those are given up; the others stay at -1.
/// Descriptors without those rights are turned into the paths that name them now: a clone of a descriptor's
/// mount is refused once we are in another mount namespace, so it is opened again there and compared.
///
/// `descriptors` is how many may be open at once.
Sources openEarlySources(Description &description, size_t descriptors);

} // namespace firn::sandbox
