#pragma once

#include <set>
#include <string>

#include <sys/stat.h>

namespace firn {

/// Removes every extended attribute (ACLs among them) of an open file or directory that is not in `keep`,
/// making it writable for its owner where the kernel asks for that. Returns whether there was any: then the
/// mode may have changed and has to be set anew. A file system without them has none.
bool removeExtendedAttributes(int fd, const struct stat &st, const std::set<std::string> &keep);

} // namespace firn
