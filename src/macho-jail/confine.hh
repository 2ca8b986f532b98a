#pragma once

// Giving everything up, before the first byte that a build made is looked at: linux/confine.cc and
// darwin/confine.cc. What it does not promise: protection from bugs in the kernel's few calls that are left,
// and that no time can be measured.

namespace firn::jail {

/// Closes every descriptor but 0; leaves root's ids; takes no new
/// privileges; cannot be traced; dies with its parent (Linux); bounds memory, processor time, descriptors and
/// written files; and last refuses every call but those that compute, and read and write what is already
/// open: on Linux the process dies of any other. Ends the process with an ExitCode (macho-jail-protocol.hh)
/// where a step fails. Libraries must be ready to be used without any file before.
void confine();

/// The last step alone.
void refuseSystemCalls();

} // namespace firn::jail
