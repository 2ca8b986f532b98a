#include "libstore/protocol/peer-credentials.hh"

#include <sys/socket.h>
#include <sys/ucred.h>
#include <sys/un.h>

#include "libutil/error.hh"

namespace firn {

PeerCredentials peerCredentials(int socket) {
    struct xucred credentials {};
    socklen_t size = sizeof credentials;
    if (getsockopt(socket, SOL_LOCAL, LOCAL_PEERCRED, &credentials, &size) != 0) {
        throwErrno("asking who is on the other side of a socket");
    }
    if (credentials.cr_version != XUCRED_VERSION || credentials.cr_ngroups < 1) {
        throw Error(ErrorKind::unsupported,
                    "The kernel describes the other side of a socket in an unknown way.");
    }
    return {credentials.cr_uid, credentials.cr_groups[0], -1};
}

} // namespace firn
