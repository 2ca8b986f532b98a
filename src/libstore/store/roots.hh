#pragma once

#include <map>
#include <set>
#include <string>

#include "libstore/store/impl.hh"

namespace firn {

/// Store path → what keeps it: a link's path, a place in /proc, "{temp:PID}", or "{censored}".
using Roots = std::map<StorePath, std::set<std::string>>;

/// All valid paths that are roots, but for temporary roots. `censor`: do not say what other users' processes
/// have open. `removeStale`: remove links in gcroots/auto whose target is gone.
Roots findLastingRoots(LocalStore::Impl &store, bool censor, bool removeStale);

} // namespace firn
