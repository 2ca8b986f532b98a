#pragma once

#include <utility>

namespace firn {

/// Owns a file descriptor (or none: -1) and closes it.
class UniqueFd {
  public:
    UniqueFd() = default;
    explicit UniqueFd(int fd) : fd_(fd) {}
    UniqueFd(UniqueFd &&other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    UniqueFd &operator=(UniqueFd &&other) noexcept {
        if (this != &other) {
            reset(std::exchange(other.fd_, -1));
        }
        return *this;
    }
    ~UniqueFd() { reset(); }

    int get() const { return fd_; }
    int release() { return std::exchange(fd_, -1); }
    void reset(int fd = -1);
    /// Closes now. Throws SysError where the kernel reports a late write error; for files just written.
    void close();
    explicit operator bool() const { return fd_ >= 0; }

  private:
    int fd_ = -1;
};

struct Pipe {
    UniqueFd readEnd, writeEnd;
};

/// A pipe with both ends close-on-exec. Throws SysError.
Pipe makePipe();

} // namespace firn
