#include "libstore/protocol/server.hh"

#include <pwd.h>
#include <unistd.h>

#include "libstore/build/address-verification.hh"
#include "libstore/build/background-removal.hh"
#include "libstore/protocol/connection.hh"
#include "libstore/protocol/session.hh"
#include "libutil/hang-up-watch.hh"
#include "libutil/interrupt.hh"

namespace firn {

namespace {

class SocketSink : public FlushingSink {
  public:
    explicit SocketSink(int fd) : sink_(fd) {}
    void write(std::string_view bytes) override { sink_.write(bytes); }
    void flush() override { sink_.flush(); }

  private:
    FdSink sink_;
};

/// Ends the work of an operation whose client has gone. The descriptor that is written to is watched, and
/// only for nobody reading any more: a client that will send nothing more still gets its answers.
class InterruptWhenGone {
  public:
    explicit InterruptWhenGone(int outFd) {
        watch_.emplace(outFd, requestInterrupt, HangUpWatch::Sign::gone);
    }
    ~InterruptWhenGone() {
        watch_.reset(); // first, so that it cannot set it again
        clearInterrupt();
    }
    InterruptWhenGone(const InterruptWhenGone &) = delete;
    InterruptWhenGone &operator=(const InterruptWhenGone &) = delete;

  private:
    std::optional<HangUpWatch> watch_;
};

bool isHangUp(const Error &error) {
    const auto *system = dynamic_cast<const SysError *>(&error);
    return error.kind() == ErrorKind::interrupted ||
           (system && (system->number() == EPIPE || system->number() == ECONNRESET));
}

/// Tells the client at its first chance, which is right after the handshake.
void sendFirstError(TunnelLogger &logger, const Error &error) {
    logger.startWork();
    logger.stopWork(error);
}

/// Opens the store for this connection; if that fails the client learns why.
std::unique_ptr<LocalStore> openStore(const Locations &locations, const Settings &settings,
                                      TunnelLogger &logger) {
    try {
        return std::make_unique<LocalStore>(locations, settings, logger);
    } catch (const Error &error) {
        sendFirstError(logger, error);
        throw;
    }
}

/// Clients keep their profiles below the state directory, where only we can make a place for them. Whoever
/// needs none is served all the same.
void makeUsersPlace(LocalStore &store, const Peer &peer) {
    bool named = peer.uid != static_cast<uid_t>(-1) && !peer.userName.empty() && getpwuid(peer.uid);
    if (geteuid() != 0 || !named) {
        return;
    }
    try {
        store.createUser(peer.userName, peer.uid, peer.gid);
    } catch (const Error &error) {
        makeStderrLogger(Verbosity::warning)
            ->warn(
                fmt::format("user '{}' has no directory for profiles: {}", peer.userName, error.message()));
    }
}

} // namespace

void serveSession(Source &source, FlushingSink &sink, int clientFd, const Peer &peer,
                  const Locations &locations, Settings &settings, BuildService &builder) {
    WireReader in(source);
    Handshake handshake = shakeHands(in, sink, peer.trusted);
    TunnelLogger logger(sink, handshake.minor());
    if (handshake.tooOld()) {
        sendFirstError(logger, Error(ErrorKind::unsupported, "This Nix client is too old for firn."));
        return;
    }
    std::unique_ptr<LocalStore> store = openStore(locations, settings, logger);
    acceptNormalFormAddresses(*store);
    makeUsersPlace(*store, peer);
    logger.startWork();
    logger.stopWork();
    sink.flush();
    Connection(in, sink, logger, handshake.minor(), peer, settings, *store, builder, clientFd).serve();
}

void serveConnection(int inFd, int outFd, const Peer &peer, const Locations &locations, Settings settings) {
    FdSource source(inFd);
    SocketSink sink(outFd);
    // It goes on when the client has gone, and the store and its temporary roots are given back.
    std::unique_ptr<Logger> daemonLog = makeStderrLogger(Verbosity::warning);
    BackgroundRemoval removal(locations, *daemonLog);
    BuildService builder(&removal);
    InterruptWhenGone watch(outFd);
    try {
        serveSession(source, sink, inFd, peer, locations, settings, builder);
    } catch (const Error &error) {
        if (!isHangUp(error)) {
            throw;
        }
    }
}

void refuseConnection(int inFd, int outFd, const std::string &message) {
    FdSource source(inFd);
    WireReader in(source);
    SocketSink sink(outFd);
    Handshake handshake = shakeHands(in, sink, false);
    TunnelLogger logger(sink, handshake.minor());
    sendFirstError(logger, Error(ErrorKind::refused, message));
}

} // namespace firn
