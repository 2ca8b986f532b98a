#include "libutil/hang-up-watch.hh"

#include <cerrno>
#include <csignal>
#include <thread>

#include <poll.h>

#include "libutil/file-descriptor.hh"

namespace firn {

#ifdef POLLRDHUP
constexpr short endOfInputEvents = POLLRDHUP; // the writing side is shut down
#else
constexpr short endOfInputEvents = 0;
#endif

struct HangUpWatch::Impl {
    Pipe end;
    std::thread thread;

    void watch(int fd, const std::function<void()> &onHangUp, short events) {
        for (;;) {
            struct pollfd fds[2] = {{fd, events, 0}, {end.readEnd.get(), POLLIN, 0}};
            int ready = poll(fds, 2, -1);
            if (ready < 0 && errno == EINTR) {
                continue;
            }
            if (ready < 0 || fds[1].revents != 0) {
                return;
            }
            if (fds[0].revents & (events | POLLHUP | POLLERR)) {
                onHangUp();
            }
            return;
        }
    }
};

HangUpWatch::HangUpWatch(int fd, std::function<void()> onHangUp, Sign sign) {
    if (fd < 0) {
        return;
    }
    impl_ = std::make_unique<Impl>();
    impl_->end = makePipe();
    short events = sign == Sign::endOfInput ? endOfInputEvents : 0;
    // Signals are for the thread that knows what to do about them.
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    impl_->thread =
        std::thread([impl = impl_.get(), fd, onHangUp, events] { impl->watch(fd, onHangUp, events); });
    pthread_sigmask(SIG_SETMASK, &old, nullptr);
}

HangUpWatch::~HangUpWatch() {
    if (impl_) {
        impl_->end.writeEnd.reset();
        impl_->thread.join();
    }
}

} // namespace firn
