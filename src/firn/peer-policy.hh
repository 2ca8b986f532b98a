#pragma once

#include "libstore/protocol/peer-credentials.hh"
#include "libstore/protocol/server.hh"
#include "libstore/store/settings.hh"

namespace firn {

/// What a client that connected to the socket may do.
struct PeerDecision {
    Peer peer;
    bool allowed = false;
};

/// By trusted-users and allowed-users; members of the build users' group are never allowed.
PeerDecision decideAboutPeer(const PeerCredentials &credentials, const Settings &settings);

} // namespace firn
