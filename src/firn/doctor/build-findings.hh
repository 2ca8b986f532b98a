#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "firn/doctor/finding.hh"
#include "firn/doctor/store-findings.hh"
#include "libstore/build/build-directory-exec.hh"
#include "libstore/store/settings.hh"

namespace firn::doctor {

/// Where builds would run.
struct BuildDirectoryFacts {
    DirectoryFacts directory;
    std::string origin;               ///< as BuildDirectoryBase has it
    std::optional<ExecChoice> choice; ///< none: see `refusal`
    std::string refusal;              ///< why no program can be executed there
    std::string unusable = {};        ///< why builds can have no directories there at all; "" if they can
    bool mayMount = false;            ///< whether we have the right to change mounts
    std::string unusedTmpdir = {};    ///< TMPDIR, where it is not followed since it is no absolute path
    /// On the way to it, closed to build users who would have to find it by path; "" if there is none.
    std::filesystem::path closed = {};
    SandboxMode sandbox = SandboxMode::enabled; ///< the setting
};

Findings judgeBuildDirectory(const BuildDirectoryFacts &facts);

struct BuildUserFacts {
    std::string name;
    bool exists = false;
    uid_t uid = 0;
    std::string shell;
    bool loggedIn = false;
};

struct BuildUsersFacts {
    uid_t daemonUid = 0;
    std::string group; ///< the setting
    bool groupExists = false;
    std::vector<BuildUserFacts> members;
};

/// `builds`: how many may run at once.
Findings judgeBuildUsers(const BuildUsersFacts &facts, unsigned builds);

/// Something a kernel has or has not.
struct KernelFeature {
    std::string name;
    bool present = false;
    std::string without; ///< what is worse without it
    std::string remedy;
    Level level = Level::limit; ///< of its absence
    std::string declined = {};  ///< what tells Firn not to use it, whether it is there or not
};

struct KernelFacts {
    std::string name; ///< "Linux 6.1.0"
    std::vector<KernelFeature> features;
};

Findings judgeKernel(const KernelFacts &facts);

/// A path that the setting sandbox-paths brings into sandboxes.
struct SandboxPathFacts {
    std::string word;    ///< as written
    std::string problem; ///< why it cannot be parsed; "" otherwise
    std::string target, source;
    bool optional = false;
    int error = 0; ///< errno of looking at the source
};

Findings judgeSandboxPaths(const std::vector<SandboxPathFacts> &paths);

/// What the settings make of the sandbox.
Findings judgeSandboxSettings(const Settings &settings);

} // namespace firn::doctor
