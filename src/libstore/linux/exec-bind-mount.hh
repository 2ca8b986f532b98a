#pragma once

// An executable view of a directory on a file system that is mounted noexec, for one process and its
// children. This header and its source need nothing but the C library and the standard library, so that
// another daemon can take the two files over: call makeExecBindMount() where the sandbox is set up, with the
// daemon's own rights, and in the child's mount namespace
//
//     move_mount(mount.fd, "", AT_FDCWD, "/build", MOVE_MOUNT_F_EMPTY_PATH)
//
// The flag noexec is an instruction of whoever made the mount to everybody who comes in by that mount; it is
// not a property of the files. Inside a user namespace it is locked (EPERM, whichever call is used), so
// it must be lifted before the child enters one. What it does *not* do: lift noexec from a file system whose
// super block forbids execution (proc, sysfs), or talk a security module into anything. Only executing a file
// there tells.

namespace firn {

/// A detached mount of an open directory on which programs can be executed, whatever the mount says through
/// which it was opened: noexec cleared, every other flag (nosuid, nodev, read-only …) as it was, propagation
/// private. It is in no mount table, and gone with the descriptor unless it is attached.
struct ExecBindMount {
    int fd = -1;           ///< close-on-exec, the caller's to close; −1 when `error` is set
    int error = 0;         ///< errno of the failing call
    const char *step = ""; ///< the failing call, for messages
};

/// `directory`: any descriptor of it (O_PATH is enough), opened in the caller's mount namespace. No path is
/// looked up. Needs CAP_SYS_ADMIN over the mount (EPERM) and Linux 5.12 (ENOSYS).
///
/// Once attached the mount's other flags can be changed by whoever has CAP_SYS_ADMIN over the namespace that
/// it was attached in, so drop that before running anything foreign.
ExecBindMount makeExecBindMount(int directory);

} // namespace firn
