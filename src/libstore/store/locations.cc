#include <cstdlib>

#include "libstore/store/settings.hh"

namespace firn {

namespace {

/// Set but empty means unset, as in stock Nix.
std::optional<std::string> environment(const char *name) {
    const char *value = std::getenv(name);
    return value && *value ? std::optional<std::string>(value) : std::nullopt;
}

/// Absolute, lexically normal, without a trailing slash.
std::filesystem::path cleaned(const std::string &text) {
    auto path = std::filesystem::absolute(text).lexically_normal();
    return path.has_filename() || path == path.root_path() ? path : path.parent_path();
}

} // namespace

Locations Locations::fromEnvironment() {
    Locations places;
    if (auto dir = environment("NIX_STORE_DIR"); dir || (dir = environment("NIX_STORE"))) {
        places.storeDir = StoreDir(cleaned(*dir).string());
    }
    if (auto dir = environment("NIX_LOCALSTATE_DIR")) {
        places.stateDir = cleaned(*dir) / "nix";
        places.logDir = cleaned(*dir) / "log" / "nix";
    }
    if (auto dir = environment("NIX_STATE_DIR")) {
        places.stateDir = cleaned(*dir);
    }
    if (auto dir = environment("NIX_LOG_DIR")) {
        places.logDir = cleaned(*dir);
    }
    if (auto dir = environment("NIX_CONF_DIR")) {
        places.confDir = cleaned(*dir);
    }
    places.socketPath = places.stateDir / "daemon-socket" / "socket";
    if (auto path = environment("NIX_DAEMON_SOCKET_PATH")) {
        places.socketPath = cleaned(*path);
    }
    return places;
}

} // namespace firn
