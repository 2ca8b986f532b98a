#pragma once

#include <optional>
#include <set>
#include <string>

#include "libstore/protocol/wire.hh"

namespace firn {

/// The newest protocol version we speak and the oldest we accept, major in the high byte. Newer clients must
/// go down to ours.
constexpr uint64_t newestProtocol = 1 << 8 | 38;
constexpr uint64_t oldestProtocol = 1 << 8 | 18;

/// What both sides agreed on.
struct Handshake {
    uint64_t version = 0;
    std::set<std::string> clientFeatures; ///< since 1.38; we have none to offer yet
    unsigned minor() const { return version & 0xff; }
    bool tooOld() const { return version < oldestProtocol; }
};

/// The server's side of the greeting. `trusted` is told to clients since 1.35. A client that is too old is
/// greeted as well, the caller then sends it an error. Throws badInput for anything that is no client.
Handshake shakeHands(WireReader &in, FlushingSink &sink, bool trusted);

} // namespace firn
