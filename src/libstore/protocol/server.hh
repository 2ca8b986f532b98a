#pragma once

#include <string>

#include <sys/types.h>

#include "libstore/store/settings.hh"

namespace firn {

/// The Nix version whose behaviour towards clients Firn has, as `nix-daemon --version` prints it.
extern const char *const matchedNixVersion;
/// "<matchedNixVersion> (firn <version>)": what clients are told in the handshake.
extern const char *const daemonVersion;

/// Who is on the other side.
struct Peer {
    std::string userName; ///< empty: unknown (stdio)
    uid_t uid = static_cast<uid_t>(-1);
    gid_t gid = static_cast<gid_t>(-1);
    pid_t pid = -1; ///< −1: unknown
    bool trusted = false;
};

/// Serves one client of Nix's worker protocol until it hangs up: handshake, then operations. Blocking. Errors
/// of an operation are sent to the client; only a broken connection or protocol ends it. `inFd` and `outFd`
/// may be the same socket. SIGPIPE must be ignored. Throws when the connection had to be ended early, with
/// the reason, for the daemon's own log; not when the client just went away.
void serveConnection(int inFd, int outFd, const Peer &peer, const Locations &locations, Settings settings);

/// Shakes hands and answers with an error, so that the user learns why nothing else happens.
void refuseConnection(int inFd, int outFd, const std::string &message);

} // namespace firn
