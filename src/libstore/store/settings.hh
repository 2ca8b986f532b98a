#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "libstore/model/store-path.hh"
#include "libutil/config-file.hh"
#include "libutil/logging.hh"

namespace firn {

/// Where everything is. From the environment as stock Nix reads it (set but empty means unset): NIX_STORE_DIR
/// (or NIX_STORE), NIX_STATE_DIR, NIX_LOCALSTATE_DIR, NIX_LOG_DIR, NIX_CONF_DIR, NIX_DAEMON_SOCKET_PATH.
struct Locations {
    StoreDir storeDir{"/nix/store"};
    std::filesystem::path stateDir = "/nix/var/nix";
    std::filesystem::path logDir = "/nix/var/log/nix";
    std::filesystem::path confDir = "/etc/nix";
    std::filesystem::path socketPath = "/nix/var/nix/daemon-socket/socket";

    static Locations fromEnvironment();
};

enum class SandboxMode { enabled, disabled, relaxed };

/// What to do when programs cannot be executed in the build directory.
enum class NoexecBuildDir {
    mount,  ///< give each build an executable view of its directory, by whatever means the host has
    tmpfs,  ///< a fresh tmpfs instead
    refuse, ///< an error
};

/// What happens to a Mach-O program whose code signature a rewrite of store paths makes wrong.
enum class MachoSignatures {
    repair, ///< made right again; the build fails where that is impossible
    refuse, ///< the build fails
    warn,   ///< registered with a wrong signature, and a warning
};

/// nix.conf's settings that a daemon uses, under Nix's names (in comments where they differ in form). Plain
/// values: a connection copies the daemon's and lays the client's over them.
struct Settings {
    unsigned maxJobs = 1; ///< max-jobs; "auto": processors
    unsigned machineMaxJobs =
        0;              ///< machine-max-jobs (Firn's own); 0: larger of maxJobs in nix.conf and processors
    unsigned cores = 0; ///< cores; NIX_BUILD_CORES, 0 stays 0 in stock 2.8's fashion: all processors
    bool keepFailed = false, keepGoing = false, tryFallback = false;
    uint64_t maxSilentTime = 0, timeout = 0;    ///< seconds, 0: none
    uint64_t maxLogSize = 0;                    ///< max-build-log-size, bytes, 0: none
    bool useBuildersLog = true;                 ///< keep-build-log
    bool compressLog = true;                    ///< compress-build-log
    unsigned logLines = 25;                     ///< log-lines: last lines in failure messages (2.8: 10)
    SandboxMode sandbox = SandboxMode::enabled; ///< sandbox (build-use-sandbox, build-use-chroot)
    std::vector<std::string>
        sandboxPaths; ///< sandbox-paths, words "inside=outside?"; default "/bin/sh=<busybox>"
    std::string sandboxBuildDir = "/build"; ///< sandbox-build-dir
    std::string sandboxDevShmSize = "50%";
    bool filterSyscalls = true;
    bool allowNewPrivileges = false;
    std::string buildUsersGroup; ///< build-users-group; "nixbld" by default for root, empty for others
    std::optional<std::filesystem::path> buildDir;         ///< build-dir
    NoexecBuildDir noexecBuildDir = NoexecBuildDir::mount; ///< noexec-build-dir (Firn's own)
    std::string noexecTmpfsSize =
        "50%"; ///< noexec-tmpfs-size (Firn's own), of each build's, as for tmpfs: "2G", "25%" of memory
    std::string system; ///< "x86_64-linux"
    std::set<std::string> extraPlatforms;
    std::set<std::string> systemFeatures;
    std::set<std::string> experimentalFeatures;
    std::set<std::string> trustedUsers{"root"}, allowedUsers{"*"};
    std::set<std::string> trustedPublicKeys;
    std::vector<std::string> secretKeyFiles;
    std::vector<std::string> substituters;
    bool requireSigs = true, substitute = true;
    bool autoOptimiseStore = false, fsyncMetadata = true, useSqliteWal = true, syncBeforeRegistering = false;
    bool keepOutputs = false, keepDerivations = true; ///< gc-keep-outputs, gc-keep-derivations
    uint64_t gcReservedSpace = 8 * 1024 * 1024;
    bool printMissing = true;
    bool impersonateLinux26 = false;
    std::set<std::string> impureHostDeps;
    std::set<std::string> ignoredAcls{"security.selinux", "system.nfs4_acl", "security.csm"};
    std::string postBuildHook;
    // Downloads of builtin:fetchurl.
    std::vector<std::string> hashedMirrors;
    std::string netrcFile;                 ///< default <confDir>/netrc
    std::string sslCertFile;               ///< default NIX_SSL_CERT_FILE, SSL_CERT_FILE, the system's
    uint64_t connectTimeout = 0;           ///< seconds, 0: libcurl's own
    uint64_t stalledDownloadTimeout = 300; ///< seconds
    unsigned downloadAttempts = 5;
    bool http2 = true;
    std::string userAgentSuffix;
    std::string diffHook;           ///< diff-hook, an absolute path; empty: none
    bool runDiffHook = false;       ///< run-diff-hook
    uint64_t diffHookTimeout = 300; ///< diff-hook-timeout (Firn's own), seconds, 0: none
    unsigned checkRepeat = 0;       ///< check-repeat (Firn's own): how often a check builds once more
    MachoSignatures machoSignatures = MachoSignatures::repair; ///< macho-signatures (Firn's own)
    Verbosity verbosity = Verbosity::info;

    bool operator==(const Settings &) const = default;
};

/// As they are where nothing is configured, on this host for this user.
Settings defaultSettings(const Locations &locations);

/// The assignments of `<confDir>/nix.conf` (if it is there) and then those of NIX_CONFIG, in order. Throws
/// Error where a file cannot be read or understood.
std::vector<ConfigEntry> readConfiguration(const Locations &locations);

/// Reads `<confDir>/nix.conf`, the files of NIX_USER_CONF_FILES are a client's business, then NIX_CONFIG.
/// Unknown names are tolerated (logged at `talkative`), a malformed value is an Error with its origin.
Settings loadSettings(const Locations &locations, Logger &logger);

/// How many builds all connections of the machine run at once: machine-max-jobs, or its default.
unsigned buildsAtOnce(const Settings &settings);

enum class ApplyResult { applied, unknown };
/// Lays one `name = value` over the settings ("extra-" appends; old aliases understood). Throws badInput for
/// a malformed value.
ApplyResult applySetting(Settings &settings, const std::string &name, const std::string &value);

/// Whether a client that is not trusted may set `name` for its own connection.
bool isSafeForUntrusted(const std::string &name);

/// Whether nobody, trusted or not, may set `name` for a connection: what it says was used up when the daemon
/// started. Such names are ignored.
bool isFixedPerConnection(const std::string &name);

/// Whether `user` with `groups` matches a list of user names, "@group"s and "*".
bool matchesUserList(const std::set<std::string> &list, const std::string &user,
                     const std::vector<std::string> &groups);

} // namespace firn
