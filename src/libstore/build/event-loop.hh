#pragma once

#include <chrono>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>

// The event loop of one connection's builds: one thread, coroutines, and four things to wait for (an event, a
// place in a queue, time, descriptors). Once the loop is stopped every wait throws Error(interrupted), so
// that coroutines unwind and their destructors release what they hold; nothing else ends them.
//
// Include it in source files only: Asio is heavy. GCC 12 destroys some temporaries in co_await expressions
// wrongly: bind arguments to named locals first.

namespace firn {

template<typename T = void>
using Task = boost::asio::awaitable<T>;

using Clock = std::chrono::steady_clock;

/// When to try again what tells nobody that it has changed (another process's lock): after `first`, then
/// after pauses each twice as long as the one before, up to `longest`.
class PollTimes {
  public:
    explicit PollTimes(Clock::duration first = std::chrono::milliseconds(10),
                       Clock::duration longest = std::chrono::milliseconds(500))
        : pause_(first), longest_(longest) {}
    Clock::time_point next();

  private:
    Clock::duration pause_, longest_;
};

class EventLoop {
  public:
    EventLoop() = default;
    EventLoop(const EventLoop &) = delete;
    EventLoop &operator=(const EventLoop &) = delete;

    /// Starts a coroutine. An exception that leaves it stops the loop and is thrown by run(), unless it only
    /// says that the loop was stopped.
    void spawn(std::function<Task<>()> coroutine);

    /// Runs until no coroutine is left, then throws the first exception that left one.
    void run();

    /// Ends every wait, now and later, with Error(interrupted, reason). For the loop's own thread.
    void stop(const std::string &reason);
    bool stopped() const { return reason_.has_value(); }
    void throwIfStopped() const;

    /// For other threads: stops the loop soon.
    void stopFromThread(std::string reason);

    Task<> sleepUntil(Clock::time_point deadline);

    boost::asio::io_context &context() { return context_; }

  private:
    friend class Event;
    friend class DescriptorWatch;
    /// Waits for the timer to expire or be cancelled, by stop() too.
    Task<> waitFor(boost::asio::steady_timer &timer);
    bool isDueToStop(const std::exception_ptr &failure) const;

    boost::asio::io_context context_{1};
    std::set<boost::asio::steady_timer *> waiting_;
    std::optional<std::string> reason_;
    std::exception_ptr failure_;
};

/// Something that happens once; everybody who waits, now or later, goes on.
class Event {
  public:
    explicit Event(EventLoop &loop) : loop_(loop) {}
    void set();
    bool isSet() const { return set_; }
    Task<> wait();

  private:
    EventLoop &loop_;
    bool set_ = false;
    std::set<boost::asio::steady_timer *> waiters_;
};

/// A fixed number of permits, handed out in the order of asking.
class Semaphore {
  public:
    Semaphore(EventLoop &loop, size_t permits) : loop_(loop), free_(permits) {}

    /// Given back by the destructor.
    class Permit {
      public:
        explicit Permit(Semaphore &owner) : owner_(&owner) {}
        Permit(Permit &&other) noexcept : owner_(std::exchange(other.owner_, nullptr)) {}
        Permit &operator=(Permit &&) = delete;
        ~Permit();

      private:
        Semaphore *owner_;
    };
    Task<Permit> acquire();

  private:
    void release();

    EventLoop &loop_;
    size_t free_;
    std::deque<std::shared_ptr<Event>> queue_;
};

/// Waits for several descriptors at once. They stay the caller's and must outlive the watch.
class DescriptorWatch {
  public:
    explicit DescriptorWatch(EventLoop &loop);
    ~DescriptorWatch();

    /// Starts watching for something to read.
    void add(int fd);
    /// Until one of them can be read or the deadline has passed.
    Task<> wait(Clock::time_point deadline);

  private:
    struct State;
    void arm(size_t index);

    EventLoop &loop_;
    std::shared_ptr<State> state_;
};

} // namespace firn
