#include "sandbox-init/fail.hh"

#include <algorithm>
#include <climits>
#include <cstring>

#include <unistd.h>

namespace firn::sandbox {

static_assert(sizeof(Report) + maxReportPath <= PIPE_BUF, "a report must reach the pipe in one piece");

namespace {
int theStatusFd = -1;
}

void setStatusFd(int fd) {
    theStatusFd = fd;
}
int statusFd() {
    return theStatusFd;
}

void report(const Report &report, std::string_view path) {
    char message[sizeof(Report) + maxReportPath];
    Report head = report;
    head.pathLength = static_cast<uint32_t>(std::min(path.size(), maxReportPath));
    memcpy(message, &head, sizeof head);
    memcpy(message + sizeof head, path.data(), head.pathLength);
    ssize_t written = write(theStatusFd, message, sizeof head + head.pathLength);
    static_cast<void>(written);
}

void fail(Step step, std::string_view path, int error) {
    Report failure;
    failure.kind = step == Step::executeBuilder ? ReportKind::execFailed : ReportKind::setupFailed;
    failure.step = step;
    failure.value = error;
    report(failure, path);
    _exit(1);
}

} // namespace firn::sandbox
