#pragma once

#include <cerrno>
#include <string_view>

#include "sandbox-init/description.hh"

namespace firn::sandbox {

/// Where reports go; set before anything can fail.
void setStatusFd(int fd);
int statusFd();

/// Writes one report in one piece. Nobody to read it is no error: then the daemon is gone, and so are we
/// soon.
void report(const Report &report, std::string_view path = {});

/// Reports a failed step with errno (or `error`) and ends the process: set-up is complete or it stops.
[[noreturn]] void fail(Step step, std::string_view path, int error = errno);

/// fail() when a system call's result is negative; gives the result back otherwise.
inline int check(int result, Step step, std::string_view path = {}) {
    if (result < 0) {
        fail(step, path);
    }
    return result;
}

} // namespace firn::sandbox
