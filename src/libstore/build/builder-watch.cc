#include "libstore/build/builder-watch.hh"

#include <algorithm>

#include <poll.h>

namespace firn {

namespace {

using Status = BuildResult::Status;

constexpr size_t readAtOnce = 256 * 1024; // then other builds have their turn

Clock::time_point after(Clock::time_point start, uint64_t seconds) {
    // Anything above a year is as good as never, and cannot overflow.
    constexpr uint64_t longest = 366ull * 24 * 60 * 60;
    return seconds == 0 || seconds > longest ? Clock::time_point::max()
                                             : start + std::chrono::seconds(seconds);
}

} // namespace

BuilderWatch::BuilderWatch(EventLoop &loop, BuilderProcess &process, PseudoTerminal &terminal, BuildLog &log,
                           const Settings &settings, std::string derivation, BuildResult &result)
    : loop_(loop),
      process_(process),
      terminal_(terminal),
      log_(log),
      settings_(settings),
      derivation_(std::move(derivation)),
      result_(result) {}

Task<BuilderResult> BuilderWatch::run() {
    DescriptorWatch watch(loop_);
    watch.add(terminal_.master.get());
    watch.add(process_.statusFd());
    for (;;) {
        if (readLog()) {
            lastOutput_ = Clock::now();
        }
        if (std::optional<BuilderResult> ended = process_.poll()) {
            drainLog();
            co_return *ended;
        }
        checkLimits();
        Clock::time_point next = nextDeadline();
        co_await watch.wait(next);
    }
}

/// Whether there was something.
bool BuilderWatch::readLog() {
    std::string bytes;
    terminal_.read(bytes, readAtOnce);
    log_.write(bytes);
    return !bytes.empty();
}

/// The rest, after the end: with our own descriptor closed too, the terminal tells when that was all. A
/// process that got away (where there is no pid namespace) may still hold it; it is not waited for.
void BuilderWatch::drainLog() {
    terminal_.slave.reset();
    for (bool more = true; more;) {
        std::string bytes;
        more = terminal_.read(bytes, readAtOnce);
        log_.write(bytes);
        if (settings_.maxLogSize > 0 && log_.size() > settings_.maxLogSize) {
            break;
        }
        struct pollfd state = {terminal_.master.get(), POLLIN, 0};
        more = more && poll(&state, 1, 50) > 0;
    }
    log_.endOutput();
}

Clock::time_point BuilderWatch::deadline() const {
    return after(started_, settings_.timeout);
}

Clock::time_point BuilderWatch::nextDeadline() const {
    return std::min(deadline(), after(lastOutput_, settings_.maxSilentTime));
}

BuildFailure BuilderWatch::timeoutFailure() const {
    return {Status::timedOut,
            fmt::format("building of '{}' timed out after {} seconds", derivation_, settings_.timeout)};
}

void BuilderWatch::failTimedOut() const {
    throw timeoutFailure();
}

void BuilderWatch::checkLimits() {
    Clock::time_point now = Clock::now();
    if (settings_.maxLogSize > 0 && log_.size() > settings_.maxLogSize) {
        endEarly({Status::logLimitExceeded,
                  fmt::format("building of '{}' killed after writing more than {} bytes of log output",
                              derivation_, settings_.maxLogSize)});
    }
    if (now >= deadline()) {
        endEarly(timeoutFailure());
    }
    if (now >= after(lastOutput_, settings_.maxSilentTime)) {
        endEarly({Status::timedOut, fmt::format("building of '{}' timed out after {} seconds of silence",
                                                derivation_, settings_.maxSilentTime)});
    }
}

void BuilderWatch::endEarly(const BuildFailure &failure) {
    process_.kill();
    BuilderResult ended = process_.wait();
    result_.cpuUser = ended.userMicroseconds;
    result_.cpuSystem = ended.systemMicroseconds;
    drainLog();
    throw failure;
}

} // namespace firn
