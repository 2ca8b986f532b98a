#pragma once

#include "libstore/build/new-output.hh"

namespace firn {

/// Outputs so that each comes after those it refers to: a path that is computed from contents needs the paths
/// in them. Rejects outputs that refer to each other in a cycle.
NewOutputs orderOutputs(const RegistrationContext &context, const ScanTargets &targets, NewOutputs outputs);

} // namespace firn
