#pragma once

#include <map>
#include <set>
#include <string>

namespace firn {

/// Where in running processes a path was found ("/proc/123/exe") for each store path's text, possibly with
/// something below the path. Best effort by nature: what cannot be read is left out.
using RuntimeRoots = std::map<std::string, std::set<std::string>>;

/// Everything that processes of this host have open, mapped, as program, working directory, or in their
/// environment.
RuntimeRoots findRuntimeRoots(const std::string &storeDir);

} // namespace firn
