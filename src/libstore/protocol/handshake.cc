#include "libstore/protocol/handshake.hh"

#include <algorithm>

#include "firn-config.hh"
#include "libstore/protocol/server.hh"

namespace firn {

const char *const matchedNixVersion = "2.34.8";
const char *const daemonVersion = "2.34.8 (firn " FIRN_VERSION ")";

namespace {

constexpr uint64_t clientMagic = 0x6e697863;
constexpr uint64_t serverMagic = 0x6478696f;

/// Fields that mean nothing any more: CPU affinity since 1.14, reserving space since 1.11.
void skipObsoleteFields(WireReader &in, unsigned minor) {
    if (minor >= 14 && in.boolean()) {
        in.number();
    }
    if (minor >= 11) {
        in.number();
    }
}

} // namespace

Handshake shakeHands(WireReader &in, FlushingSink &sink, bool trusted) {
    WireWriter out(sink);
    in.beginMessage();
    if (in.number() != clientMagic) {
        throw Error(ErrorKind::badInput, "The client does not speak Nix's worker protocol.");
    }
    out.number(serverMagic);
    out.number(newestProtocol);
    sink.flush();

    Handshake result;
    result.version = std::min(in.number(), newestProtocol);
    if (result.minor() >= 38) {
        result.clientFeatures = in.stringSet();
        out.strings(std::set<std::string>{});
        sink.flush();
    }
    skipObsoleteFields(in, result.minor());
    if (result.minor() >= 33) {
        out.string(daemonVersion);
    }
    if (result.minor() >= 35) {
        out.number(trusted ? 1 : 2);
    }
    sink.flush();
    return result;
}

} // namespace firn
