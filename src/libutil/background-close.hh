#pragma once

#include <cstdint>
#include <vector>

#include "libutil/file-descriptor.hh"

namespace firn {

/// Freeing the blocks of a file of so many bytes is noticed by who waits for it.
constexpr uint64_t slowToFree = 16 * 1024 * 1024;

/// Closes them in a thread of its own, and returns at once. The kernel frees a file that has no name any more
/// when its last descriptor is closed. Nobody need wait for that: the end of the process closes them too.
void closeInBackground(std::vector<UniqueFd> files);

} // namespace firn
