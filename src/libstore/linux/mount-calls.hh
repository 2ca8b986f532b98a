#pragma once

namespace firn {

/// Whether mount_setattr can be used (Linux 5.12); asked of the kernel once. Where it is missing the classic
/// calls take its place. FIRN_CLASSIC_MOUNTS=1 in the daemon's environment says no, so that those can be
/// tested on any kernel. That is harmless: only who starts the daemon can set it, and what is promised stays
/// the same.
bool haveMountSetattr();

/// Whether this process may clone and attach mounts in its mount namespace (CAP_SYS_ADMIN over the user
/// namespace that owns it); asked of the kernel each time, in one call. User 0 of a user namespace, as in a
/// container, need not have that right, and another user may. It says nothing of single mounts, whose flags
/// may be locked.
bool mayMount();

} // namespace firn
