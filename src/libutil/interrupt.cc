#include "libutil/interrupt.hh"

#include <atomic>

namespace firn {

namespace {

using Clock = std::chrono::steady_clock;

std::atomic<bool> interrupted = false;
static_assert(std::atomic<bool>::is_always_lock_free, "signal handlers set it");

constexpr Clock::rep never = Clock::duration::max().count();
std::atomic<Clock::rep> deadline = never;

} // namespace

void requestInterrupt() noexcept {
    interrupted = true;
}

void clearInterrupt() noexcept {
    interrupted = false;
}

bool isInterrupted() noexcept {
    return interrupted;
}

void throwIfInterrupted() {
    if (isInterrupted()) {
        throw Error(ErrorKind::interrupted, "the client went away");
    }
    Clock::rep end = deadline;
    if (end != never && Clock::now().time_since_epoch().count() >= end) {
        throw DeadlinePassed();
    }
}

WorkDeadline::WorkDeadline(Clock::time_point end) noexcept {
    deadline = end.time_since_epoch().count();
}

WorkDeadline::~WorkDeadline() {
    deadline = never;
}

} // namespace firn
