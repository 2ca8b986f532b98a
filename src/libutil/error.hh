#pragma once

#include <cerrno>
#include <exception>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

namespace firn {

/// What a caller may want to tell apart; the message says the rest.
enum class ErrorKind {
    failure,     ///< the attempted thing did not work (a builder failed, a hash mismatched)
    badInput,    ///< bytes or words from outside are not what their format allows
    notFound,    ///< a named thing is not there
    corrupt,     ///< something that was good once is damaged (store, database)
    refused,     ///< permission or policy says no
    unsupported, ///< this build, host or version cannot do it
    system,      ///< a system call failed; see SysError
    interrupted, ///< the client went away or the process was told to stop
    bug,         ///< an invariant of ours does not hold
};

/// The one exception type of Firn. The message is one or more full sentences without a leading
/// "error:"; layers on the way up may prefix what they were attempting with addContext().
class Error : public std::exception {
  public:
    Error(ErrorKind kind, std::string message) : kind_(kind), message_(std::move(message)) {}

    template<typename... Args>
    Error(ErrorKind kind, fmt::format_string<Args...> format, Args &&...args)
        requires(sizeof...(Args) > 0)
        : kind_(kind), message_(fmt::format(format, std::forward<Args>(args)...)) {}

    ErrorKind kind() const { return kind_; }
    const std::string &message() const { return message_; }
    const char *what() const noexcept override { return message_.c_str(); }

    /// Turns "M" into "context: M", e.g. "reading '/etc/nix/nix.conf'".
    void addContext(const std::string &context) { message_ = context + ": " + message_; }

  private:
    ErrorKind kind_;
    std::string message_;
};

/// A failed system call: "attempt: strerror(errno)".
class SysError : public Error {
  public:
    /// `number` is the errno value.
    SysError(int number, const std::string &attempt);

    int number() const { return number_; }

  private:
    int number_;
};

/// Throws SysError for the current errno; the arguments format what was attempted, on what.
template<typename... Args>
[[noreturn]] void throwErrno(fmt::format_string<Args...> format, Args &&...args) {
    int number = errno;
    throw SysError(number, fmt::format(format, std::forward<Args>(args)...));
}

/// Makes text from outside (a build, a file name, a client) safe to show on a terminal: control characters
/// except newline and tab (so also every escape sequence), characters that change the writing direction and
/// bytes that are not UTF-8 become \xNN; other UTF-8 stays. The result has at most `limit` bytes; where
/// something had to be left out it ends in "…".
std::string escapeForDisplay(std::string_view text, size_t limit = 4096);

/// escapeForDisplay() of a short text (a name, a path) between single quotes, for messages.
std::string quoteForDisplay(std::string_view text);

} // namespace firn
