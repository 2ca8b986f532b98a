#include "libstore/build/sandbox.hh"

#include <cerrno>

#include "libstore/build/reachability.hh"
#include "libutil/error.hh"

// Not there yet on macOS: builders run unconfined (launch.hh) or not at all.

namespace firn {

namespace {

[[noreturn]] void refuse() {
    throw Error(ErrorKind::unsupported,
                "sandboxed builds are not implemented on macOS yet: set 'sandbox = false'");
}

} // namespace

SandboxPath parseSandboxPath(const std::string &) {
    refuse();
}
StartedSandbox startSandbox(const std::string &) {
    refuse();
}
BuilderProcess spawnSandbox(StartedSandbox, const SandboxSpec &) {
    refuse();
}
BuilderProcess spawnSandbox(const SandboxSpec &) {
    refuse();
}
BuilderResult trySandbox(const std::string &, bool) {
    refuse();
}
void checkSandboxSupport(const std::string &, bool) {
    refuse();
}
std::string explainSetupFailure(const BuilderResult &result) {
    bool unreachable = result.kind == BuilderResult::Kind::setupFailed &&
                       result.step == sandbox::Step::changeDirectory && result.error == EACCES;
    return unreachable ? explainUnreachable(result.path) : "";
}

} // namespace firn
