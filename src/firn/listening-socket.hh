#pragma once

#include <filesystem>

#include "libutil/file-descriptor.hh"

namespace firn {

/// The socket that clients connect to: systemd's, if it started us with one (LISTEN_FDS, LISTEN_PID), else a
/// new one at `path`, open to everybody. Its directory is made. A socket that a dead daemon left is replaced;
/// one that is answered, or anything that is no socket, is an error. The path may be longer than a socket
/// address. Changes the working directory and the umask for a moment: single-threaded callers only.
UniqueFd openListeningSocket(const std::filesystem::path &path);

/// Connects to the daemon at `path`; the same conditions. Throws SysError.
UniqueFd connectToSocket(const std::filesystem::path &path);

} // namespace firn
