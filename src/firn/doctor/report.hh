#pragma once

#include <cstddef>
#include <string>

#include "firn/doctor/finding.hh"

namespace firn::doctor {

/// 0: all is well, 1: works with limits, 2: does not work.
int exitStatus(const Report &report);

/// For people: a line for each finding, its remedy below it. `width`: columns at which to break lines, 0 for
/// never. What came from outside is safe to show on a terminal.
std::string printAsText(const Report &report, size_t width, bool colours);

/// For programs; the shape is described in doc/doctor.md.
std::string printAsJson(const Report &report);

} // namespace firn::doctor
