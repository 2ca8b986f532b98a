#pragma once

#include <chrono>

#include "libutil/error.hh"

// A process that serves a connection has one client, so whether its work is still wanted is a fact of the
// process. Loops that may run for long (over a file's contents, over many paths) look here once a round;
// clean-up never does, since it must come to its end.

namespace firn {

/// From now on throwIfInterrupted() throws. Any thread, and signal handlers.
void requestInterrupt() noexcept;
/// Takes requestInterrupt() back, for when the connection it was about has ended.
void clearInterrupt() noexcept;
bool isInterrupted() noexcept;

/// The work took longer than its WorkDeadline allows.
class DeadlinePassed : public Error {
  public:
    DeadlinePassed() : Error(ErrorKind::failure, "the time for this work is over") {}
};

/// Error(interrupted) after requestInterrupt(), DeadlinePassed behind the deadline of a WorkDeadline.
void throwIfInterrupted();

/// Limits the process's work while it lives; one at a time.
class WorkDeadline {
  public:
    /// time_point::max(): no limit.
    explicit WorkDeadline(std::chrono::steady_clock::time_point end) noexcept;
    ~WorkDeadline();
    WorkDeadline(const WorkDeadline &) = delete;
    WorkDeadline &operator=(const WorkDeadline &) = delete;
};

} // namespace firn
