#pragma once

#include <string>

#include <sys/types.h>

#include "libstore/store/settings.hh"

namespace firn {

/// Who is on the other side.
struct Peer {
    std::string userName; ///< empty: unknown (stdio)
    uid_t uid = static_cast<uid_t>(-1);
    gid_t gid = static_cast<gid_t>(-1);
    bool trusted = false;
};

/// Serves one client of Nix's worker protocol until it hangs up: handshake, then operations. Blocking. Errors
/// of an operation are sent to the client; only a broken connection or protocol ends it. `inFd` and `outFd`
/// may be the same socket.
void serveConnection(int inFd, int outFd, const Peer &peer, const Locations &locations, Settings settings);

} // namespace firn
