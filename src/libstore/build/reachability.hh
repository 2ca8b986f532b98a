#pragma once

// Builds without a sandbox find their directory by its path, as build users if the daemon is root. Whoever
// may enter each directory above it is not asked when it is made: root may.

#include <filesystem>
#include <optional>
#include <string>

#include <sys/types.h>

namespace firn {

/// The first directory of an absolute path, from the root to the path itself, that not everybody may enter
/// (no o+x), nor `group` by its own bit; "" if there is none, or one of them cannot be looked at. Symlinks
/// are followed.
std::filesystem::path firstClosedDirectory(const std::filesystem::path &path,
                                           std::optional<gid_t> group = std::nullopt);

/// What to do about a build that may not enter its own directory (BuildDirectory::path()): names the one
/// above it that is closed.
std::string explainUnreachable(const std::filesystem::path &directory);

} // namespace firn
