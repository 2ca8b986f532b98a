#pragma once

#include <chrono>
#include <string>
#include <vector>

#include <sys/types.h>

#include "libstore/build/macho-jail-protocol.hh"
#include "libutil/file-descriptor.hh"

namespace firn {

/// How long an answer may take.
struct JailPatience {
    std::chrono::milliseconds constant = std::chrono::seconds(60);
    uint64_t bytesPerSecond = 8 * 1024 * 1024; ///< of all files, on top
};

/// The process that looks into Mach-O files, started when first needed and then asked one thing after the
/// other; ended by the destructor, and by the daemon's own end. One thread, which on Linux must live as long.
class MachoJail {
  public:
    /// `program`: see machoJailProgram().
    explicit MachoJail(std::string program, JailPatience patience = {});
    ~MachoJail();
    MachoJail(const MachoJail &) = delete;
    MachoJail &operator=(const MachoJail &) = delete;

    /// Starts the process, which gets ready by itself: it is going to be asked. Where it cannot be started,
    /// ask() tries again, and says so.
    void prepare() noexcept;

    /// `file` is open for reading only, and `request.fileSize` bytes long. Where the process died, by itself
    /// or killed, another is started and asked once more. Throws Error(failure) with one clause that says why
    /// there is no answer: it died twice, took too long, could not look at the file, or what came is no
    /// answer (nothing of which is used); SysError where it cannot be started; and what throwIfInterrupted()
    /// throws. The next question gets a new process then.
    /// `second` is the second file of a request that has two, likewise open.
    jail::Answer ask(const jail::Request &request, int file, int second = -1);

    struct Question {
        jail::Request request;
        UniqueFd file;
    };
    /// Asks one thing after the other without waiting in between, and appends the answers in their order.
    /// After an exception, which is one of ask()'s, the question that has no answer is the one that led to
    /// it.
    void askAll(const std::vector<Question> &questions, std::vector<jail::Answer> &answers);

  private:
    class Died;
    struct Message;

    void start();
    /// Kills the process, and returns its status.
    int end();
    /// Of a process that has closed its socket: says how it ended. Kills it if it has not within a moment.
    std::string awaitEnd();
    void awaitReady(short events);
    bool send(const Message &message);
    std::string receive(size_t size);
    jail::Answer receiveAnswer(const jail::Request &request);
    std::chrono::milliseconds patienceFor(const jail::Request &request) const;
    void exchange(const std::vector<Message> &messages, size_t next, std::vector<jail::Answer> &answers);
    void converse(const std::vector<Message> &messages, std::vector<jail::Answer> &answers);

    std::string program_;
    JailPatience patience_;
    UniqueFd socket_; ///< non-blocking
    pid_t pid_ = -1;
    std::chrono::steady_clock::time_point deadline_;
};

} // namespace firn
