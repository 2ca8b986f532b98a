#pragma once

#include <string>

namespace firn {

/// The small programs that Firn starts. Each lies where it was installed; a `firn` that was not (in a build
/// directory) has it in the folder beside its own; and the variable wins.
std::string sandboxInitProgram();    ///< firn-sandbox-init, $FIRN_SANDBOX_INIT
std::string machoJailProgram();      ///< firn-macho-jail, $FIRN_MACHO_JAIL
std::string builtinBuilderProgram(); ///< firn-builtin, $FIRN_BUILTIN

} // namespace firn
