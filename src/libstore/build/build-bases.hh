#pragma once

// Which directories builds have had theirs in (bases). A trusted client may choose one for its connection,
// and settings change: so that what a killed daemon left there is swept as well, each is noted in the state
// directory before anything is made in it.
//
// `<state>/firn/build-bases` (mode 0700) has a file (mode 0600) for each, named by the hash of the base's
// path, with that path in it: what does not go with its name was not written to its end. Who builds in a base
// holds a shared lock (flock) on its note. The default base is swept at every start and has none.

#include <filesystem>

#include "libstore/store/settings.hh"
#include "libutil/file-descriptor.hh"
#include "libutil/logging.hh"

namespace firn {

/// Notes a base by its canonical path, on disk when this returns; the note stays at least as long as the
/// descriptor is open. None for the default base. Throws Error(refused) where too many others have notes that
/// are needed.
UniqueFd noteBuildBase(const Locations &locations, const std::filesystem::path &base);

/// Removes what builds of killed daemons left in every base that is noted, in those of the settings and in
/// the default one. Notes of bases that are gone, or clean and in nobody's use, go. What does not work is a
/// warning, also that a noted base has become one that others could change, or that a symlink now leads to:
/// that is not entered.
void sweepBuildBases(const Locations &locations, const Settings &settings, Logger &logger);

} // namespace firn
