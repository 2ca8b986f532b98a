#pragma once

#include <initializer_list>

#include <sys/resource.h>

namespace firn::sandbox {

/// Closes every descriptor from `first` on except those in `kept` (ascending, none below `first`). The table
/// becomes this process's own at the same time. Fails the set-up when the kernel has no close_range.
void closeAllBut(unsigned first, std::initializer_list<int> kept);

/// Raises the soft limit of open descriptors as far as it goes: detached mounts cost one each until they are
/// attached. Returns what it is now.
rlim_t allowManyDescriptors();

} // namespace firn::sandbox
