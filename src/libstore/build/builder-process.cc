#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libstore/build/launch.hh"
#include "libstore/build/sandbox.hh"
#include "libutil/error.hh"

namespace firn {

namespace {

using sandbox::Report;
using sandbox::ReportKind;
using Kind = BuilderResult::Kind;

/// Enough for the first report and the one that the outer process may add; more is not kept.
constexpr size_t maxReceived = 2 * (sizeof(Report) + sandbox::maxReportPath);

void setNonBlocking(int fd) {
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        throwErrno("making a builder's status pipe non-blocking");
    }
}

/// Cuts the head off.
std::optional<Report> takeHead(std::string_view &bytes) {
    Report report;
    if (bytes.size() < sizeof report) {
        return std::nullopt;
    }
    memcpy(&report, bytes.data(), sizeof report);
    bytes.remove_prefix(sizeof report);
    if (report.magic != Report::reportMagic || report.pathLength > bytes.size()) {
        return std::nullopt;
    }
    return report;
}

/// Whether it says that no process of the build is left.
bool saysAllEnded(std::string_view bytes) {
    std::optional<Report> report = takeHead(bytes);
    return report && report->allEnded != 0;
}

std::optional<BuilderResult> parseReport(std::string_view bytes) {
    std::optional<Report> head = takeHead(bytes);
    if (!head) {
        return std::nullopt;
    }
    const Report &report = *head;
    BuilderResult result;
    result.step = report.step;
    result.path = bytes.substr(0, report.pathLength);
    result.userMicroseconds = report.userMicroseconds;
    result.systemMicroseconds = report.systemMicroseconds;
    result.memoryFull = report.isFull != 0;
    switch (report.kind) {
    case ReportKind::setupFailed:
        result.kind = Kind::setupFailed;
        result.error = report.value;
        return result;
    case ReportKind::execFailed:
        result.kind = Kind::execFailed;
        result.error = report.value;
        return result;
    case ReportKind::exited:
        result.kind = Kind::exited;
        result.exitCode = report.value;
        return result;
    case ReportKind::signaled:
        result.kind = Kind::signaled;
        result.signal = report.value;
        return result;
    }
    return std::nullopt;
}

std::string describeStatus(int status) {
    if (WIFSIGNALED(status)) {
        return fmt::format("killed by signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)));
    }
    return fmt::format("exit code {}", WEXITSTATUS(status));
}

} // namespace

std::string BuilderResult::describe() const {
    std::string where = path.empty() ? "" : fmt::format(" '{}'", escapeForDisplay(path));
    switch (kind) {
    case Kind::setupFailed: {
        std::string hint = explainSetupFailure(*this);
        return fmt::format("could not be set up: {}{}: {}{}", sandbox::stepName(step), where, strerror(error),
                           hint.empty() ? "" : ". " + hint);
    }
    case Kind::execFailed:
        return fmt::format("could not be executed:{}: {}", where, strerror(error));
    case Kind::exited:
        return fmt::format("failed with exit code {}", exitCode);
    case Kind::signaled:
        return fmt::format("was killed by signal {} ({})", signal, strsignal(signal));
    case Kind::lost:
        break;
    }
    return fmt::format("lost its supervisor ({})", path);
}

BuilderProcess::BuilderProcess(pid_t pid, UniqueFd status) : pid_(pid), status_(std::move(status)) {
    setNonBlocking(status_.get());
}

BuilderProcess::BuilderProcess(BuilderProcess &&other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      status_(std::move(other.status_)),
      received_(std::move(other.received_)),
      result_(std::move(other.result_)),
      killed_(other.killed_) {}

BuilderProcess::~BuilderProcess() {
    if (pid_ != -1) {
        kill();
        reap();
    }
}

void BuilderProcess::kill() {
    // The supervisor is our child and not reaped, so the number is still its own. It passes the end on and
    // then waits for it; killing the supervisor itself would lose that wait.
    if (pid_ != -1) {
        ::kill(pid_, SIGTERM);
        killed_ = true;
    }
}

/// Whether the end of the pipe has been reached.
bool BuilderProcess::readStatus() {
    char buffer[4096];
    for (;;) {
        ssize_t got = read(status_.get(), buffer, sizeof buffer);
        if (got > 0) {
            size_t room = maxReceived - std::min(maxReceived, received_.size());
            received_.append(buffer, std::min(static_cast<size_t>(got), room));
        } else if (got == 0) {
            return true;
        } else if (errno == EAGAIN) {
            return false;
        } else if (errno != EINTR) {
            throwErrno("reading a builder's status");
        }
    }
}

/// Returns the supervisor's exit status.
int BuilderProcess::reap() {
    int status = 0;
    while (waitpid(pid_, &status, 0) < 0) {
        if (errno != EINTR) {
            throwErrno("waiting for a builder's supervisor");
        }
    }
    pid_ = -1;
    return status;
}

/// The supervisor has let go of the pipe, so it is ending: this wait is short.
void BuilderProcess::finish() {
    int status = reap();
    result_ = parseReport(received_);
    if (!result_) {
        result_.emplace();
        result_->path = describeStatus(status);
    }
    if (killed_ && result_->kind == Kind::lost) {
        // Before it was ready to pass the end on: then nothing had started either.
        result_->kind = Kind::signaled;
        result_->signal = SIGKILL;
    }
}

std::optional<BuilderResult> BuilderProcess::poll() {
    if (result_) {
        return result_;
    }
    if (readStatus()) {
        finish();
    } else if (saysAllEnded(received_)) {
        result_ = parseReport(received_);
    }
    return result_;
}

bool BuilderProcess::isGone() {
    if (pid_ != -1 && readStatus()) {
        reap();
    }
    return pid_ == -1;
}

BuilderResult BuilderProcess::wait() {
    for (;;) {
        if (std::optional<BuilderResult> result = poll()) {
            return *result;
        }
        struct pollfd readable = {status_.get(), POLLIN, 0};
        if (::poll(&readable, 1, -1) < 0 && errno != EINTR) {
            throwErrno("waiting for a builder");
        }
    }
}

} // namespace firn
