#pragma once

#include <memory>
#include <optional>
#include <type_traits>

#include "libstore/protocol/build-service.hh"
#include "libstore/protocol/framed.hh"
#include "libstore/protocol/handshake.hh"
#include "libstore/protocol/server.hh"
#include "libstore/protocol/tunnel-logger.hh"
#include "libstore/protocol/wire.hh"
#include "libstore/store/local-store.hh"

namespace firn {

/// One client, after the handshake. An operation goes through three steps, and what an error means depends on
/// the step:
///
///   reading   the request is being read: the connection cannot go on, the client is told why
///   working   the request was read completely: the client is told, the connection goes on
///   replying  the operation succeeded and its result is being sent: nothing can be said any more
///
/// A handler reads its request from `in`, does everything else in work(), and writes the result to `out`.
class Connection {
  public:
    /// All references must outlive the connection. `clientFd` is watched while building (-1: nothing to
    /// watch).
    Connection(WireReader &reader, FlushingSink &sink, TunnelLogger &log, unsigned protocolMinor,
               const Peer &client, Settings &clientSettings, LocalStore &localStore, BuildService &service,
               int clientFd);

    /// Serves operations until the client hangs up. Throws when the connection cannot go on.
    void serve();

    WireReader &in;
    WireWriter out;
    FlushingSink &sink;
    TunnelLogger &logger;
    const unsigned minor;
    const Peer &peer;
    Settings &settings;
    LocalStore &store;
    BuildService &builder;

    const StoreDir &dir() const { return store.dir(); }
    BuildContext buildContext();

    /// Throws `refused` unless the client is trusted; "you are not privileged to <what>".
    void requireTrust(std::string_view what) const;
    /// Throws `refused` if a repair is asked for by a client that is not trusted.
    void checkRepair(bool repair) const;

    /// Announces that frames follow the request. Whatever becomes of the operation, they are read to the end.
    Source &framedPayload();

    /// Runs the operation's work while log messages go to the client; content errors of the request are
    /// thrown here.
    template<typename F>
    auto work(F action) {
        beginWork();
        if constexpr (std::is_void_v<decltype(action())>) {
            action();
            endWork();
        } else {
            auto result = action();
            endWork();
            return result;
        }
    }

  private:
    enum class Step { reading, working, replying };

    void serveOperation(uint64_t number);
    void beginWork();
    void endWork();
    void drainPayload();
    /// Within the handler of `error`: tells the client, and throws on if the connection cannot go on.
    void fail(const Error &error);

    const int clientFd_;
    Step step_ = Step::reading;
    std::optional<FramedSource> payload_;
};

} // namespace firn
