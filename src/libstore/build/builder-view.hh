#pragma once

#include "libstore/build/build-plan.hh"
#include "libstore/build/sandbox.hh"
#include "libstore/store/local-store.hh"

namespace firn {

/// What decides which files a builder sees in its sandbox. All must outlive it.
struct BuilderView {
    LocalStore &store;
    const Settings &settings;
    const BuildPlan &plan;
};

/// Adds to a sandbox the closure of the inputs, what `sandbox-paths` shows of the host with what that needs
/// from the store, the host's files that the derivation asks for (`__impureHostDeps`), and for builtin
/// builders their program. Throws ErrorKind::refused where the settings do not allow one.
void showToBuilder(const BuilderView &view, SandboxSpec &spec);

} // namespace firn
