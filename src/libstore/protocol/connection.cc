#include "libstore/protocol/connection.hh"

#include "libstore/protocol/operations.hh"
#include "libutil/interrupt.hh"

namespace firn {

Connection::Connection(WireReader &reader, FlushingSink &output, TunnelLogger &log, unsigned protocolMinor,
                       const Peer &client, Settings &clientSettings, LocalStore &localStore,
                       BuildService &service, int clientFd)
    : in(reader),
      out(output),
      sink(output),
      logger(log),
      minor(protocolMinor),
      peer(client),
      settings(clientSettings),
      store(localStore),
      builder(service),
      clientFd_(clientFd) {}

BuildContext Connection::buildContext() {
    return BuildContext{.store = store,
                        .settings = settings,
                        .logger = logger,
                        .clientFd = clientFd_,
                        .clientUid = peer.uid,
                        .clientGid = peer.gid,
                        .clientPid = peer.pid,
                        .clientMinor = minor};
}

void Connection::requireTrust(std::string_view what) const {
    if (!peer.trusted) {
        throw Error(ErrorKind::refused, "you are not privileged to {}; ask to be added to 'trusted-users'",
                    what);
    }
}

void Connection::checkRepair(bool repair) const {
    if (repair && !peer.trusted) {
        throw Error(ErrorKind::refused, "repairing is not allowed because you are not in 'trusted-users'");
    }
}

Source &Connection::framedPayload() {
    return payload_.emplace(in);
}

void Connection::beginWork() {
    step_ = Step::working;
    logger.startWork();
    in.throwDeferred();
}

void Connection::endWork() {
    drainPayload();
    logger.stopWork();
    step_ = Step::replying;
}

void Connection::drainPayload() {
    if (payload_) {
        payload_->drain();
        payload_.reset();
    }
}

void Connection::fail(const Error &error) {
    if (isInterrupted() || logger.clientGone() || step_ == Step::replying) {
        throw;
    }
    bool broken = step_ == Step::reading || (payload_ && payload_->broken());
    if (!broken) {
        drainPayload();
    }
    logger.stopWork(error);
    if (broken) {
        throw;
    }
}

void Connection::serveOperation(uint64_t number) {
    step_ = Step::reading;
    payload_.reset();
    in.beginMessage();
    const Operation *operation = findOperation(number);
    if (!operation) {
        throw Error(ErrorKind::unsupported,
                    "There is no operation {} in the worker protocol up to 1.38; the connection is closed.",
                    number);
    }
    logger.log(Verbosity::debug, fmt::format("operation {} ({})", operation->name, number));
    try {
        operation->handler(*this);
    } catch (const Error &) {
        throw;
    } catch (const std::exception &error) {
        throw Error(ErrorKind::bug, "operation {} failed: {}", operation->name, error.what());
    }
}

void Connection::serve() {
    while (std::optional<uint64_t> number = in.firstNumber()) {
        try {
            serveOperation(*number);
        } catch (const Error &error) {
            fail(error);
        }
        sink.flush();
    }
}

} // namespace firn
