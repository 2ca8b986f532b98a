#pragma once

namespace firn {

/// Makes the open file `to` share all data of the open file `from`, without copying, where the file system
/// can (btrfs, xfs); returns whether it could. Where it could not, `to` is as before.
bool cloneFile(int from, int to);

} // namespace firn
