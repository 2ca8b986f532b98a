#pragma once

#include <string>

#include <sys/types.h>

#include "libutil/file-descriptor.hh"

namespace firn {

/// Where a builder's output goes. A terminal and not a pipe, so that programs write out each line when it is
/// done; in raw mode, so that the bytes arrive as they were written.
struct PseudoTerminal {
    UniqueFd master; ///< ours; does not block
    UniqueFd slave;  ///< the builder's stdout and stderr

    /// `owner` may open it again (as /dev/stderr does).
    static PseudoTerminal open(uid_t owner);

    /// Appends what there is to read, at most about `limit` bytes. Returns false at the end: nobody has the
    /// other side open any more.
    bool read(std::string &bytes, size_t limit);
};

} // namespace firn
