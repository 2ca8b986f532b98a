#pragma once

#include <functional>
#include <string>
#include <vector>

#include "libutil/file-descriptor.hh"
#include "libutil/logging.hh"

namespace firn {

/// Accepts connections and starts a process for each, until SIGTERM or SIGINT. The processes of connections
/// go on by themselves. Stays single-threaded, since it forks.
class Listener {
  public:
    /// Serves one connection, in its own process.
    using Serve = std::function<void(int socket)>;

    /// `selfCommand`: how this program is to be called, where a connection's process is a new run of it, to
    /// serve standard input as such a connection.
    Listener(UniqueFd socket, Serve serve, std::vector<std::string> selfCommand, Logger &logger);

    void run();

  private:
    void acceptOne();
    void reapChildren();

    UniqueFd socket_;
    Serve serve_;
    std::vector<std::string> selfCommand_;
    Logger &logger_;
    bool exhausted_ = false; ///< no more descriptors or memory: wait before the next accept
};

} // namespace firn
