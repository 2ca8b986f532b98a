#pragma once

#include <optional>
#include <string>
#include <vector>

#include "libstore/build/builder-environment.hh"
#include "libstore/build/sandbox.hh"
#include "libstore/store/settings.hh"
#include "libutil/logging.hh"

// Builders that a derivation names instead of bringing one: "builtin:fetchurl", "builtin:buildenv" and
// "builtin:unpack-channel". They read what strangers wrote (answers of web servers, archives), so they are a
// program of ours, firn-builtin, which is confined as any builder is; nothing of them runs in the daemon.
//
// firn-builtin is linked dynamically, since libcurl pulls in some thirty libraries of which a distribution
// has no static ones. A sandbox shows none of the host's libraries, so for these builds alone it shows,
// read-only and in a folder of their own, the files that firn-builtin says it has loaded, and the host's
// loader starts it with that folder as its library path.

namespace firn {

/// Why a derivation cannot be built by a builtin builder, as one clause without full stop; nullopt where it
/// can.
std::optional<std::string> refuseBuiltin(const BasicDerivation &derivation);

/// The host's files with which firn-builtin runs.
struct BuiltinProgram {
    std::string program;
    std::string loader;                 ///< empty: the program needs none
    std::vector<std::string> libraries; ///< the loader among them

    /// All of them as a sandbox shows them, read-only.
    std::vector<SandboxPath> sandboxPaths() const;
    /// How the builder is started: in the sandbox by the loader that is shown there, else by its own path.
    std::vector<std::string> command(bool sandboxed) const;
};

/// Asks `program` which files it has loaded; remembered for the life of the process. Throws where it cannot
/// be started.
const BuiltinProgram &findBuiltinProgram(const std::string &program);

/// The files in the build directory that firn-builtin finds its own by.
constexpr const char *builtinAttributesFile = ".builtin-attributes";
constexpr const char *builtinCertificatesFile = ".ca-certificates.crt";
constexpr const char *builtinNetrcFile = ".netrc"; ///< holds passwords: not to be kept with a failed build

/// As makeBuilderEnvironment() does for others: the attributes go into a file (one may be longer than any
/// variable can be), what firn-builtin needs of the settings into its arguments. Structured attributes become
/// the text that they would be without structure; throws badInput where one that the builder reads holds a
/// set, which has no such text.
BuilderEnvironment makeBuiltinEnvironment(BuilderEnvironmentInput input, const Settings &settings,
                                          const std::vector<std::string> &command, Logger &logger);

} // namespace firn
