#pragma once

#include <cstddef>
#include <string>

#include <sys/resource.h>

// How many descriptors this process may have open (RLIMIT_NOFILE). A daemon has some ten for each build that
// runs, so that the usual soft limit of 1024, which is there for programs that use select(), is too low for a
// hundred builds. Builders are such programs, maybe: they get the limit that the daemon was started with.

namespace firn {

/// Raises the soft limit as far as the hard one and the system allow. Where it cannot be raised it stays.
/// Once, before there are threads.
void raiseDescriptorLimit();

/// The soft limit that this process was started with: that of its builders.
rlim_t usualDescriptorLimit();

/// Throws a SysError (EMFILE, or ENFILE for all of the system) unless `count` more can be opened now.
void requireDescriptors(size_t count);

/// Whether it is lack of descriptors that an errno value means.
bool isLackOfDescriptors(int error);

/// What the limit is and what can be done about it: a sentence, for a message.
std::string descriptorRemedy();

} // namespace firn
