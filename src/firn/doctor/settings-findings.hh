#pragma once

#include <vector>

#include "firn/doctor/finding.hh"
#include "libstore/store/settings.hh"

namespace firn::doctor {

/// What a daemon would have for settings, and what is wrong with how they are written.
struct AppliedSettings {
    Settings settings;
    Findings findings;
};

/// Lays the assignments over `settings`, as a daemon does; one that it would stop at is an error, and left
/// out.
AppliedSettings applyAll(Settings settings, const std::vector<ConfigEntry> &entries);

/// What the settings mean together. `processors`: how many the host has.
Findings judgeSettings(const Settings &settings, unsigned processors);

} // namespace firn::doctor
