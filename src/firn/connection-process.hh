#pragma once

#include <functional>
#include <string>
#include <vector>

namespace firn {

/// Starts a process in a session of its own that serves one connection, with default signal handlers except
/// that SIGPIPE is ignored. On Linux it is a fork that closes `toClose` and calls `serve`; on macOS, where
/// the system's frameworks do not survive a fork, it is a new run of `selfCommand` (absolute path of the
/// program first) with the connection as standard input. The caller closes its own copy of the socket and
/// reaps the process. Throws SysError.
void startConnectionProcess(int connection, const std::vector<int> &toClose,
                            const std::function<void(int socket)> &serve,
                            const std::vector<std::string> &selfCommand);

/// How this program can be started anew.
std::string selfPath();

} // namespace firn
