#include "libstore/protocol/tunnel-logger.hh"

#include "libstore/protocol/messages.hh"

namespace firn {

namespace {

/// Bytes of messages kept for the next operation; what comes then is only counted.
constexpr size_t maxPending = 1 << 20;
/// Activities as such are known to clients since this minor version.
constexpr unsigned activitiesSince = 20;

/// Builds one message.
class Message {
  public:
    explicit Message(WorkMessage type) : out_(sink_) { out_.number(static_cast<uint64_t>(type)); }
    WireWriter &out() { return out_; }
    const std::string &bytes() const { return sink_.text; }

  private:
    StringSink sink_;
    WireWriter out_;
};

void writeFields(WireWriter &out, const LogFields &fields) {
    out.number(fields.size());
    for (const LogField &field : fields) {
        out.number(field.index());
        if (const uint64_t *number = std::get_if<uint64_t>(&field)) {
            out.number(*number);
        } else {
            out.string(std::get<std::string>(field));
        }
    }
}

std::string lineMessage(std::string_view line) {
    Message message(WorkMessage::next);
    message.out().string(std::string(line) + "\n");
    return message.bytes();
}

} // namespace

void TunnelLogger::send(std::string_view bytes) {
    if (gone_) {
        return;
    }
    try {
        out_.write(bytes);
        out_.flush();
    } catch (const Error &) {
        gone_ = true; // the operation's end, or whoever watches the client, acts on it
    }
}

void TunnelLogger::requireClient() const {
    if (gone_) {
        throw Error(ErrorKind::interrupted, "The client has gone away.");
    }
}

void TunnelLogger::enqueue(const std::string &message) {
    std::lock_guard lock(mutex_);
    if (working_) {
        send(message);
    } else if (pending_.size() + message.size() <= maxPending) {
        pending_ += message;
    } else {
        ++dropped_;
    }
}

void TunnelLogger::sendNow(const std::string &message) {
    std::lock_guard lock(mutex_);
    send(message);
    requireClient();
}

void TunnelLogger::startWork() {
    std::lock_guard lock(mutex_);
    working_ = true;
    if (dropped_ > 0) {
        pending_ += lineMessage(fmt::format("warning: {} log messages were dropped", dropped_));
        dropped_ = 0;
    }
    if (!pending_.empty()) {
        send(pending_);
        pending_.clear();
    }
}

void TunnelLogger::stopWork() {
    std::lock_guard lock(mutex_);
    working_ = false;
    requireClient();
    WireWriter(out_).number(static_cast<uint64_t>(WorkMessage::last));
}

void TunnelLogger::stopWork(const Error &error) {
    Message message(WorkMessage::error);
    writeError(message.out(), error.message(), minor_);
    std::lock_guard lock(mutex_);
    working_ = false;
    send(message.bytes());
    requireClient();
}

bool TunnelLogger::working() const {
    std::lock_guard lock(mutex_);
    return working_;
}

void TunnelLogger::requestData(uint64_t size) {
    Message message(WorkMessage::read);
    message.out().number(size);
    sendNow(message.bytes());
}

void TunnelLogger::sendData(std::string_view bytes) {
    Message message(WorkMessage::write);
    message.out().string(bytes);
    sendNow(message.bytes());
}

void TunnelLogger::log(Verbosity level, std::string_view message) {
    if (level <= verbosity_) {
        enqueue(lineMessage(message));
    }
}

void TunnelLogger::startActivity(ActivityId id, Verbosity level, ActivityType type, std::string_view text,
                                 const LogFields &fields, ActivityId parent) {
    if (minor_ < activitiesSince) {
        if (!text.empty()) {
            log(level, std::string(text) + "...");
        }
        return;
    }
    Message message(WorkMessage::startActivity);
    message.out().number(id);
    message.out().number(static_cast<uint64_t>(level));
    message.out().number(static_cast<uint64_t>(type));
    message.out().string(text);
    writeFields(message.out(), fields);
    message.out().number(parent);
    enqueue(message.bytes());
}

void TunnelLogger::stopActivity(ActivityId id) {
    if (minor_ < activitiesSince) {
        return;
    }
    Message message(WorkMessage::stopActivity);
    message.out().number(id);
    enqueue(message.bytes());
}

void TunnelLogger::result(ActivityId id, ResultType type, const LogFields &fields) {
    if (minor_ < activitiesSince) {
        bool isLine = type == ResultType::buildLogLine && !fields.empty();
        if (const std::string *line = isLine ? std::get_if<std::string>(&fields.front()) : nullptr) {
            enqueue(lineMessage(*line));
        }
        return;
    }
    Message message(WorkMessage::result);
    message.out().number(id);
    message.out().number(static_cast<uint64_t>(type));
    writeFields(message.out(), fields);
    enqueue(message.bytes());
}

} // namespace firn
