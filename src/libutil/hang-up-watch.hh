#pragma once

#include <functional>
#include <memory>

namespace firn {

/// Tells when the other side of a socket or pipe has gone, without reading from it. A thread of its own, as
/// poll() is the one way to learn this without asking for data.
class HangUpWatch {
  public:
    enum class Sign {
        endOfInput, ///< nothing more will come: it may still want its answer
        gone,       ///< nobody reads what we write either
    };

    /// `onHangUp` is called at most once, on another thread, and not after the destructor. fd −1: never.
    HangUpWatch(int fd, std::function<void()> onHangUp, Sign sign = Sign::endOfInput);
    ~HangUpWatch();
    HangUpWatch(const HangUpWatch &) = delete;
    HangUpWatch &operator=(const HangUpWatch &) = delete;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

} // namespace firn
