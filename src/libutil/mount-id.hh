#pragma once

#include <cstdint>
#include <optional>

// linux/platform.cc and darwin/platform.cc hold one implementation each.

namespace firn {

/// The mount that an open directory was reached through. st_dev does not tell it: the subvolumes of a btrfs
/// have one each, in one mount. None where the system cannot say.
std::optional<uint64_t> mountId(int fd);

} // namespace firn
