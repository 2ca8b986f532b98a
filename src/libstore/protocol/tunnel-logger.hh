#pragma once

#include <atomic>
#include <mutex>
#include <string>

#include "libstore/protocol/wire.hh"
#include "libutil/logging.hh"

// While an operation works, the client listens for a stream of messages that end with "last" or "error"; then
// comes the operation's result. Between operations nothing may be sent that the client did not ask for. So
// there is a state: idle, in which messages are kept, and working, in which they are sent.

namespace firn {

/// First number of each message that a daemon sends while it works.
enum class WorkMessage : uint64_t {
    next = 0x6f6c6d67,
    read = 0x64617461,
    write = 0x64617416,
    last = 0x616c7473,
    error = 0x63787470,
    startActivity = 0x53545254,
    stopActivity = 0x53544f50,
    result = 0x52534c54,
};

/// Sends log messages and activities to the client. Thread-safe. Logging never throws: when the client turns
/// out to be gone that is remembered, and told by clientGone().
class TunnelLogger : public Logger {
  public:
    /// `out` must outlive the logger. While an operation works only the logger may write to it.
    TunnelLogger(FlushingSink &out, unsigned minor) : out_(out), minor_(minor) {}

    /// Messages above this level are dropped here; activities are always sent, the client filters them.
    void setVerbosity(Verbosity verbosity) { verbosity_ = verbosity; }

    void startWork();
    /// The operation went well: its result follows.
    void stopWork();
    /// The operation failed. Also allowed while idle: a client that is reading will see it.
    void stopWork(const Error &error);
    bool working() const;
    bool clientGone() const { return gone_; }

    /// Asks the client for up to `size` bytes of its data. Working only. Throws when the client is gone.
    void requestData(uint64_t size);
    /// Sends the client data. Working only. Throws when the client is gone.
    void sendData(std::string_view bytes);

    void log(Verbosity level, std::string_view message) override;
    void startActivity(ActivityId id, Verbosity level, ActivityType type, std::string_view text,
                       const LogFields &fields, ActivityId parent) override;
    void stopActivity(ActivityId id) override;
    void result(ActivityId id, ResultType type, const LogFields &fields) override;

  private:
    void enqueue(const std::string &message);
    void send(std::string_view bytes);
    void sendNow(const std::string &message);
    void requireClient() const;

    FlushingSink &out_;
    const unsigned minor_;
    std::atomic<Verbosity> verbosity_ = Verbosity::info;
    std::atomic<bool> gone_ = false;
    mutable std::mutex mutex_;
    bool working_ = false; ///< guarded by mutex_
    std::string pending_;  ///< guarded by mutex_; whole messages
    uint64_t dropped_ = 0; ///< guarded by mutex_; messages that found pending_ full
};

} // namespace firn
