#pragma once

namespace firn {

/// Copies bytes both ways between this process's client (`inFd`, `outFd`) and a daemon's socket until either
/// side ends. What the client still had to say when it ended is passed on.
void forwardConnection(int inFd, int outFd, int daemonSocket);

} // namespace firn
