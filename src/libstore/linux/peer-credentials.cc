#include "libstore/protocol/peer-credentials.hh"

#include <sys/socket.h>

#include "libutil/error.hh"

namespace firn {

PeerCredentials peerCredentials(int socket) {
    struct ucred credentials {};
    socklen_t size = sizeof credentials;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
        throwErrno("asking who is on the other side of a socket");
    }
    return {credentials.uid, credentials.gid, credentials.pid};
}

} // namespace firn
