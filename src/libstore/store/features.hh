#pragma once

#include <string>

#include "libstore/model/derivation.hh"
#include "libstore/store/settings.hh"

namespace firn {

/// Throws ErrorKind::refused, in stock Nix's words, unless the experimental feature is enabled.
void requireFeature(const Settings &settings, const std::string &feature);

/// The same for whatever the derivation's kind, methods and inputs need.
void requireFeaturesFor(const Settings &settings, const Derivation &drv);

} // namespace firn
