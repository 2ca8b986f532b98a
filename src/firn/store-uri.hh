#pragma once

#include <string>

#include "libstore/store/settings.hh"

namespace firn {

/// Where the daemon's store is.
struct StoreChoice {
    bool viaDaemon = false; ///< another daemon's, at locations.socketPath
    Locations locations;
};

/// "local" or "local?store=…&state=…&log=…", "daemon", "unix://PATH", and "auto", which is local where the
/// state directory can be written, else a daemon if there is a socket, else local. Others are `unsupported`.
StoreChoice chooseStore(const std::string &uri, const Locations &defaults);

} // namespace firn
