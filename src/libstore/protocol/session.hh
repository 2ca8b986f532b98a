#pragma once

#include "libstore/protocol/build-service.hh"
#include "libstore/protocol/server.hh"
#include "libstore/protocol/wire.hh"

namespace firn {

/// serveConnection() over any two streams, with any builder: for tests and the fuzzer as well. `clientFd` is
/// watched for a hang-up while building (−1: nothing to watch). Throws for every early end, also a hang-up.
void serveSession(Source &source, FlushingSink &sink, int clientFd, const Peer &peer,
                  const Locations &locations, Settings &settings, BuildService &builder);

} // namespace firn
