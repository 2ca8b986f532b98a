#pragma once

#include <initializer_list>
#include <vector>

#include <sys/resource.h>

#include "sandbox-init/description.hh"

namespace firn::sandbox {

/// Waits for a message with descriptors (at most maxSentDescriptors). None becomes one of the standard three.
/// Empty at the socket's end: nobody will send any. What fails is `step`.
std::vector<int> receiveDescriptors(int socket, Step step);

/// Sends one. Nobody to receive it is no failure.
void sendDescriptor(int socket, int fd, Step step);

/// Closes every descriptor from `first` on except those in `kept` (ascending, none below `first`). The table
/// becomes this process's own at the same time. Fails the set-up when the kernel has no close_range.
void closeAllBut(unsigned first, std::initializer_list<int> kept);

/// Raises the soft limit of open descriptors as far as it goes: detached mounts cost one each until they are
/// attached. Returns what it is now.
rlim_t allowManyDescriptors();

} // namespace firn::sandbox
