#include "firn/store-uri.hh"

#include <unistd.h>

#include "libutil/error.hh"

namespace firn {

namespace {

void applyParameter(Locations &locations, const std::string &parameter) {
    size_t equals = parameter.find('=');
    std::string name = parameter.substr(0, equals);
    std::string value = equals == std::string::npos ? "" : parameter.substr(equals + 1);
    if (value.find('%') != std::string::npos) {
        throw Error(ErrorKind::unsupported, "Escapes (%XX) in a store's URI are not supported: '{}'.",
                    parameter);
    }
    if (name == "store") {
        locations.storeDir = StoreDir(value);
    } else if (name == "state") {
        locations.stateDir = value;
    } else if (name == "log") {
        locations.logDir = value;
    } else {
        throw Error(ErrorKind::unsupported, "A local store's parameter '{}' is not supported.", name);
    }
}

Locations parseLocal(const std::string &parameters, Locations locations) {
    for (size_t begin = 0; begin < parameters.size();) {
        size_t end = std::min(parameters.find('&', begin), parameters.size());
        applyParameter(locations, parameters.substr(begin, end - begin));
        begin = end + 1;
    }
    return locations;
}

StoreChoice chooseAutomatically(const Locations &locations) {
    bool writable = access(locations.stateDir.c_str(), R_OK | W_OK) == 0;
    bool hasDaemon = access(locations.socketPath.c_str(), F_OK) == 0;
    return {!writable && hasDaemon, locations};
}

} // namespace

StoreChoice chooseStore(const std::string &uri, const Locations &defaults) {
    static const std::string localPrefix = "local?", unixPrefix = "unix://";
    if (uri.empty() || uri == "auto") {
        return chooseAutomatically(defaults);
    }
    if (uri == "daemon" || uri == unixPrefix) {
        return {true, defaults};
    }
    if (uri == "local") {
        return {false, defaults};
    }
    if (uri.starts_with(localPrefix)) {
        return {false, parseLocal(uri.substr(localPrefix.size()), defaults)};
    }
    if (uri.starts_with(unixPrefix)) {
        StoreChoice choice{true, defaults};
        choice.locations.socketPath = uri.substr(unixPrefix.size());
        return choice;
    }
    throw Error(ErrorKind::unsupported, "The store '{}' is not supported; try 'auto', 'local' or 'daemon'.",
                uri);
}

} // namespace firn
