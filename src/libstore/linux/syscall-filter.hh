#pragma once

#include <string>

namespace firn {

/// Which system calls a builder is refused. Facts and reasons, since a filter is only as good as its list:
///
/// * For every builder: permission bits that outlive the build. setuid and setgid bits cannot be set (EPERM),
/// whichever
///   call carries the mode: chmod, fchmod, fchmodat, fchmodat2, creating open, openat, creat, mknod, mknodat.
///   (mkdir drops them by itself.) Extended attributes and so ACLs and file capabilities are "not supported"
///   (ENOTSUP).
/// * Calls whose arguments lie in memory, where a filter cannot read them, do not exist (ENOSYS) when they
/// could do one
///   of these things: openat2, and io_uring altogether, which opens files, sets attributes and makes sockets
///   past any filter. Programs fall back on the older calls.
/// * Calls newer than this list do not exist either (ENOSYS): setxattrat and file_setattr came that way, and
/// the next
///   one like them will. The numbers are common to all architectures since 424.
/// * With the host's network (`refuseUnixSockets`): Unix sockets, because abstract ones belong to the network
/// namespace
///   and hand descriptors over to any process outside. socket(AF_UNIX) fails with EAFNOSUPPORT, as on a
///   kernel without them. Connected pairs may be made of stream and seqpacket sockets, which can neither be
///   bound to another peer nor send elsewhere. A datagram pair can: sendto() with an address works on it in
///   spite of its peer. The i386 multiplexer socketcall has its arguments in memory and is refused as a
///   whole; i386 programs that know only it have no network.
///
/// On x86-64 the i386 calls are filtered by the same rules; x32 has no calls at all (ENOSYS), its numbers
/// being above any bound. An architecture that the filter does not know cannot be called.
///
/// Returns a classic BPF program as seccomp takes it. Made once per process and kept; thread-safe. Throws
/// Error when libseccomp cannot make it.
const std::string &syscallFilter(bool refuseUnixSockets);

} // namespace firn
