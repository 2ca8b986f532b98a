#pragma once

#include <map>
#include <string>

#include "libstore/protocol/wire.hh"
#include "libstore/store/settings.hh"

namespace firn {

/// What a client says in SetOptions: some old options by position, all others by name.
struct ClientOptions {
    bool keepFailed = false, keepGoing = false, tryFallback = false;
    Verbosity verbosity = Verbosity::info;
    uint64_t maxJobs = 1, maxSilentTime = 0, cores = 0;
    bool useSubstitutes = true;
    std::map<std::string, std::string> overrides;
};

ClientOptions readClientOptions(WireReader &in);

/// Lays a client's options over the daemon's, for one connection. Clients send everything they were told,
/// much of it meant for themselves: unknown names are passed over. What a client that is not trusted may not
/// set is passed over with a warning, unless it would have changed nothing. Never throws for a bad value:
/// that is a warning, too.
void applyClientOptions(Settings &settings, const ClientOptions &options, bool trusted, Logger &logger);

} // namespace firn
