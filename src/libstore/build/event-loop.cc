#include "libstore/build/event-loop.hh"

#include <algorithm>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "libutil/error.hh"
#include "libutil/file-descriptor.hh"

namespace firn {

namespace asio = boost::asio;

// ---- the loop

Clock::time_point PollTimes::next() {
    Clock::time_point when = Clock::now() + pause_;
    pause_ = std::min(pause_ * 2, longest_);
    return when;
}

void EventLoop::spawn(std::function<Task<>()> coroutine) {
    // Through the queue, so that a chain of goals that start one another does not nest.
    asio::post(context_, [this, coroutine = std::move(coroutine)] {
        asio::co_spawn(context_, coroutine, [this](std::exception_ptr failure) {
            if (failure && !isDueToStop(failure)) {
                failure_ = failure_ ? failure_ : failure;
                stop("another part of the build failed");
            }
        });
    });
}

bool EventLoop::isDueToStop(const std::exception_ptr &failure) const {
    try {
        std::rethrow_exception(failure);
    } catch (const Error &error) {
        return stopped() && error.kind() == ErrorKind::interrupted;
    } catch (...) {
        return false;
    }
}

void EventLoop::run() {
    context_.run();
    context_.restart();
    if (failure_) {
        std::rethrow_exception(std::exchange(failure_, nullptr));
    }
}

void EventLoop::stop(const std::string &reason) {
    if (!reason_) {
        reason_ = reason;
    }
    for (asio::steady_timer *timer : waiting_) {
        timer->cancel();
    }
}

void EventLoop::throwIfStopped() const {
    if (reason_) {
        throw Error(ErrorKind::interrupted, *reason_);
    }
}

void EventLoop::stopFromThread(std::string reason) {
    asio::post(context_, [this, reason = std::move(reason)] { stop(reason); });
}

Task<> EventLoop::waitFor(asio::steady_timer &timer) {
    throwIfStopped();
    waiting_.insert(&timer);
    boost::system::error_code ignored;
    auto token = asio::redirect_error(asio::use_awaitable, ignored);
    co_await timer.async_wait(token);
    waiting_.erase(&timer);
    throwIfStopped();
}

Task<> EventLoop::sleepUntil(Clock::time_point deadline) {
    asio::steady_timer timer(context_, deadline);
    co_await waitFor(timer);
}

// ---- events

void Event::set() {
    set_ = true;
    for (asio::steady_timer *timer : waiters_) {
        timer->cancel();
    }
}

Task<> Event::wait() {
    loop_.throwIfStopped();
    if (set_) {
        co_return;
    }
    asio::steady_timer timer(loop_.context(), Clock::time_point::max());
    waiters_.insert(&timer);
    try {
        co_await loop_.waitFor(timer);
    } catch (...) {
        waiters_.erase(&timer);
        throw;
    }
    waiters_.erase(&timer);
}

// ---- permits

Semaphore::Permit::~Permit() {
    if (owner_) {
        owner_->release();
    }
}

Task<Semaphore::Permit> Semaphore::acquire() {
    loop_.throwIfStopped();
    if (free_ > 0 && queue_.empty()) {
        free_--;
        co_return Permit(*this);
    }
    auto turn = std::make_shared<Event>(loop_);
    queue_.push_back(turn);
    try {
        co_await turn->wait();
    } catch (...) {
        // Our turn may have come in the same moment: then the permit goes on to the next.
        if (turn->isSet()) {
            release();
        } else {
            std::erase(queue_, turn);
        }
        throw;
    }
    co_return Permit(*this);
}

void Semaphore::release() {
    if (queue_.empty()) {
        free_++;
        return;
    }
    std::shared_ptr<Event> next = queue_.front();
    queue_.pop_front();
    next->set();
}

// ---- descriptors

/// Shared with the handlers, which may run once more after the watch has gone.
struct DescriptorWatch::State {
    struct Watched {
        asio::posix::stream_descriptor descriptor;
        bool armed = false;
    };
    explicit State(asio::io_context &context) : timer(context) {}

    asio::steady_timer timer;
    std::deque<Watched> watched;
    bool ready = false;
};

DescriptorWatch::DescriptorWatch(EventLoop &loop)
    : loop_(loop), state_(std::make_shared<State>(loop.context())) {}

DescriptorWatch::~DescriptorWatch() {
    for (State::Watched &watched : state_->watched) {
        watched.descriptor.release(); // cancels what is pending; the descriptor is not ours to close
    }
}

void DescriptorWatch::add(int fd) {
    asio::posix::stream_descriptor descriptor(loop_.context(), fd);
    state_->watched.push_back({std::move(descriptor)});
}

void DescriptorWatch::arm(size_t index) {
    State::Watched &watched = state_->watched[index];
    if (watched.armed) {
        return;
    }
    watched.armed = true;
    watched.descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                                  [state = state_, index](const boost::system::error_code &error) {
                                      state->watched[index].armed = false;
                                      if (error != asio::error::operation_aborted) {
                                          state->ready = true;
                                          state->timer.cancel();
                                      }
                                  });
}

Task<> DescriptorWatch::wait(Clock::time_point deadline) {
    loop_.throwIfStopped();
    for (size_t i = 0; i < state_->watched.size(); i++) {
        arm(i);
    }
    if (!state_->ready) {
        state_->timer.expires_at(deadline);
        co_await loop_.waitFor(state_->timer);
    }
    state_->ready = false;
}

} // namespace firn
