#pragma once

#include <sys/types.h>

namespace firn {

/// What the kernel says about the process that connected to a Unix socket.
struct PeerCredentials {
    uid_t uid;
    gid_t gid;
    pid_t pid; ///< −1 where the system does not tell
};

/// Throws SysError.
PeerCredentials peerCredentials(int socket);

} // namespace firn
