#pragma once

#include <cstdint>

#include "libutil/file-descriptor.hh"

// The few calls of libutil that differ between systems and have no portable spelling. linux/platform.cc and
// darwin/platform.cc hold one implementation each, as well as those of makePipe() (file-descriptor.hh) and
// syncFd() (files.hh).

namespace firn {

/// Tells the kernel that all `size` bytes of an open file will be read once, in order. Only a hint.
void adviseSequential(int fd, uint64_t size);

/// Makes an open file `size` bytes long with all of its space taken. False where it cannot be had.
bool allocateFile(int fd, uint64_t size);

/// A Unix stream socket, close-on-exec. Throws SysError.
UniqueFd makeUnixSocket();

/// Whether an open directory is the root of a mount (also of a bind mount on the same file system). False
/// where the kernel cannot say.
bool isMountRoot(int fd);

} // namespace firn
