#include "libstore/store/settings.hh"
#include "firn-config.hh"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <thread>

#include <sys/utsname.h>
#include <unistd.h>

#include "libutil/error.hh"
#include "libutil/files.hh"

// nix.conf's settings under Nix's names. What stock Nix accepts as a value is accepted here: "true", "yes"
// and "1" (and their opposites), numbers with a binary unit (K, M, G, T), words separated by blanks.

namespace firn {

namespace {

[[noreturn]] void badValue(const std::string &name, const std::string &value, std::string_view wanted) {
    throw Error(ErrorKind::badInput, "setting '{}' has invalid value '{}'; it takes {}", name,
                escapeForDisplay(value, 256), wanted);
}

bool parseBool(const std::string &name, const std::string &value) {
    if (value == "true" || value == "yes" || value == "1") {
        return true;
    }
    if (value == "false" || value == "no" || value == "0") {
        return false;
    }
    badValue(name, value, "'true' or 'false'");
}

unsigned unitShift(char unit) {
    switch (unit) {
    case 'K':
    case 'k':
        return 10;
    case 'M':
    case 'm':
        return 20;
    case 'G':
    case 'g':
        return 30;
    case 'T':
    case 't':
        return 40;
    default:
        return 0;
    }
}

uint64_t parseNumber(const std::string &name, const std::string &value, uint64_t limit) {
    std::string_view digits = value;
    unsigned shift = digits.empty() ? 0 : unitShift(digits.back());
    digits.remove_suffix(shift ? 1 : 0);
    uint64_t number = 0;
    auto [end, status] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    if (digits.empty() || status != std::errc() || end != digits.data() + digits.size() ||
        number > (limit >> shift)) {
        badValue(name, value, fmt::format("a number up to {}", limit));
    }
    return number << shift;
}

unsigned processors() {
    return std::max(1U, std::thread::hardware_concurrency());
}

SandboxMode parseSandbox(const std::string &name, const std::string &value) {
    if (value == "relaxed") {
        return SandboxMode::relaxed;
    }
    if (value != "true" && value != "false" && value != "yes" && value != "no" && value != "1" &&
        value != "0") {
        badValue(name, value, "'true', 'false' or 'relaxed'");
    }
    return parseBool(name, value) ? SandboxMode::enabled : SandboxMode::disabled;
}

NoexecBuildDir parseNoexecBuildDir(const std::string &name, const std::string &value) {
    static const std::map<std::string, NoexecBuildDir> choices{{"mount", NoexecBuildDir::mount},
                                                               {"tmpfs", NoexecBuildDir::tmpfs},
                                                               {"refuse", NoexecBuildDir::refuse}};
    auto found = choices.find(value);
    if (found == choices.end()) {
        badValue(name, value, "'mount', 'tmpfs' or 'refuse'");
    }
    return found->second;
}

/// A number with a unit or a percentage. It becomes a mount option, so nothing else may be in it.
std::string parseTmpfsSize(const std::string &name, const std::string &value) {
    size_t digits = value.find_first_not_of("0123456789");
    bool plain = digits == std::string::npos;
    bool unit = !plain && digits + 1 == value.size() && strchr("%kKmMgGtT", value[digits]);
    bool some = value.find_first_of("123456789") < digits;
    if (!some || !(plain || unit) || value.size() > 15) {
        badValue(name, value, "a size such as '2G' or a part of the memory such as '50%', above 0");
    }
    return value;
}

MachoSignatures parseMachoSignatures(const std::string &name, const std::string &value) {
    if (value == "repair") {
        return MachoSignatures::repair;
    }
    if (value == "refuse") {
        return MachoSignatures::refuse;
    }
    if (value != "warn") {
        badValue(name, value, "'repair', 'refuse' or 'warn'");
    }
    return MachoSignatures::warn;
}

/// What one name does with a value; `append` for "extra-".
using Setter =
    std::function<void(Settings &, const std::string &name, const std::string &value, bool append)>;

struct Entry {
    Setter set;
    bool appendable = false;
};

Entry boolean(bool Settings::*member) {
    return {[=](Settings &settings, auto &name, auto &value, bool) {
        settings.*member = parseBool(name, value);
    }};
}

Entry number(uint64_t Settings::*member) {
    return {[=](Settings &settings, auto &name, auto &value, bool) {
        settings.*member = parseNumber(name, value, std::numeric_limits<int64_t>::max());
    }};
}

Entry smallNumber(unsigned Settings::*member) {
    return {[=](Settings &settings, auto &name, auto &value, bool) {
        settings.*member =
            static_cast<unsigned>(parseNumber(name, value, std::numeric_limits<unsigned>::max()));
    }};
}

Entry jobs(unsigned Settings::*member) {
    return {[=](Settings &settings, auto &name, auto &value, bool) {
        settings.*member =
            value == "auto"
                ? processors()
                : static_cast<unsigned>(parseNumber(name, value, std::numeric_limits<unsigned>::max()));
    }};
}

Entry text(std::string Settings::*member) {
    return {[=](Settings &settings, auto &, auto &value, bool) { settings.*member = value; }};
}

Entry list(std::vector<std::string> Settings::*member) {
    return {[=](Settings &settings, auto &, auto &value, bool append) {
                auto words = splitWords(value);
                auto &target = settings.*member;
                if (!append) {
                    target.clear();
                }
                target.insert(target.end(), words.begin(), words.end());
            },
            true};
}

Entry set(std::set<std::string> Settings::*member) {
    return {[=](Settings &settings, auto &, auto &value, bool append) {
                auto words = splitWords(value);
                auto &target = settings.*member;
                if (!append) {
                    target.clear();
                }
                target.insert(words.begin(), words.end());
            },
            true};
}

Entry buildDirectory() {
    return {[](Settings &settings, auto &name, auto &value, bool) {
        if (!value.empty() && value.front() != '/') {
            badValue(name, value, "an absolute path");
        }
        settings.buildDir = value.empty() ? std::nullopt : std::optional<std::filesystem::path>(value);
    }};
}

Entry absolutePath(std::string Settings::*member) {
    return {[=](Settings &settings, auto &name, auto &value, bool) {
        if (!value.empty() && value.front() != '/') {
            badValue(name, value, "an absolute path");
        }
        settings.*member = value;
    }};
}

const std::map<std::string, Entry> &entries() {
    using S = Settings;
    static const std::map<std::string, Entry> table{
        {"max-jobs", jobs(&S::maxJobs)},
        {"machine-max-jobs", jobs(&S::machineMaxJobs)},
        {"cores", smallNumber(&S::cores)},
        {"keep-failed", boolean(&S::keepFailed)},
        {"keep-going", boolean(&S::keepGoing)},
        {"fallback", boolean(&S::tryFallback)},
        {"max-silent-time", number(&S::maxSilentTime)},
        {"timeout", number(&S::timeout)},
        {"max-build-log-size", number(&S::maxLogSize)},
        {"keep-build-log", boolean(&S::useBuildersLog)},
        {"compress-build-log", boolean(&S::compressLog)},
        {"log-lines", smallNumber(&S::logLines)},
        {"sandbox",
         {[](S &settings, auto &name, auto &value, bool) { settings.sandbox = parseSandbox(name, value); }}},
        {"sandbox-paths", list(&S::sandboxPaths)},
        {"sandbox-build-dir", text(&S::sandboxBuildDir)},
        {"sandbox-dev-shm-size", text(&S::sandboxDevShmSize)},
        {"filter-syscalls", boolean(&S::filterSyscalls)},
        {"allow-new-privileges", boolean(&S::allowNewPrivileges)},
        {"build-users-group", text(&S::buildUsersGroup)},
        {"build-dir", buildDirectory()},
        {"noexec-build-dir", {[](S &settings, auto &name, auto &value, bool) {
             settings.noexecBuildDir = parseNoexecBuildDir(name, value);
         }}},
        {"noexec-tmpfs-size", {[](S &settings, auto &name, auto &value, bool) {
             settings.noexecTmpfsSize = parseTmpfsSize(name, value);
         }}},
        {"system", text(&S::system)},
        {"extra-platforms", set(&S::extraPlatforms)},
        {"system-features", set(&S::systemFeatures)},
        {"experimental-features", set(&S::experimentalFeatures)},
        {"trusted-users", set(&S::trustedUsers)},
        {"allowed-users", set(&S::allowedUsers)},
        {"trusted-public-keys", set(&S::trustedPublicKeys)},
        {"secret-key-files", list(&S::secretKeyFiles)},
        {"substituters", list(&S::substituters)},
        {"require-sigs", boolean(&S::requireSigs)},
        {"substitute", boolean(&S::substitute)},
        {"auto-optimise-store", boolean(&S::autoOptimiseStore)},
        {"fsync-metadata", boolean(&S::fsyncMetadata)},
        {"use-sqlite-wal", boolean(&S::useSqliteWal)},
        {"sync-before-registering", boolean(&S::syncBeforeRegistering)},
        {"keep-outputs", boolean(&S::keepOutputs)},
        {"keep-derivations", boolean(&S::keepDerivations)},
        {"gc-reserved-space", number(&S::gcReservedSpace)},
        {"print-missing", boolean(&S::printMissing)},
        {"impersonate-linux-26", boolean(&S::impersonateLinux26)},
        {"allowed-impure-host-deps", set(&S::impureHostDeps)},
        {"ignored-acls", set(&S::ignoredAcls)},
        {"post-build-hook", text(&S::postBuildHook)},
        {"hashed-mirrors", list(&S::hashedMirrors)},
        {"netrc-file", text(&S::netrcFile)},
        {"ssl-cert-file", text(&S::sslCertFile)},
        {"connect-timeout", number(&S::connectTimeout)},
        {"stalled-download-timeout", number(&S::stalledDownloadTimeout)},
        {"download-attempts", smallNumber(&S::downloadAttempts)},
        {"http2", boolean(&S::http2)},
        {"user-agent-suffix", text(&S::userAgentSuffix)},
        {"diff-hook", absolutePath(&S::diffHook)},
        {"run-diff-hook", boolean(&S::runDiffHook)},
        {"diff-hook-timeout", number(&S::diffHookTimeout)},
        {"check-repeat", smallNumber(&S::checkRepeat)},
        {"macho-signatures", {[](S &settings, auto &name, auto &value, bool) {
             settings.machoSignatures = parseMachoSignatures(name, value);
         }}},
    };
    return table;
}

const std::string &canonicalName(const std::string &name) {
    static const std::map<std::string, std::string> aliases{
        {"build-max-jobs", "max-jobs"},
        {"build-cores", "cores"},
        {"build-fallback", "fallback"},
        {"build-max-silent-time", "max-silent-time"},
        {"build-timeout", "timeout"},
        {"build-max-log-size", "max-build-log-size"},
        {"build-keep-log", "keep-build-log"},
        {"build-compress-log", "compress-build-log"},
        {"build-use-chroot", "sandbox"},
        {"build-use-sandbox", "sandbox"},
        {"build-chroot-dirs", "sandbox-paths"},
        {"build-sandbox-paths", "sandbox-paths"},
        {"binary-caches", "substituters"},
        {"binary-cache-public-keys", "trusted-public-keys"},
        {"build-use-substitutes", "substitute"},
        {"gc-keep-outputs", "keep-outputs"},
        {"gc-keep-derivations", "keep-derivations"},
        {"build-impersonate-linux-26", "impersonate-linux-26"},
    };
    auto known = aliases.find(name);
    return known == aliases.end() ? name : known->second;
}

std::string hostSystem() {
    struct utsname host;
    if (uname(&host) != 0) {
        throwErrno("asking for the machine's name (uname)");
    }
    std::string machine = host.machine, kernel = host.sysname;
    if (machine == "arm64") {
        machine = "aarch64";
    } else if (machine.size() == 4 && machine[0] == 'i' && machine.ends_with("86")) {
        machine = "i686";
    }
    for (auto &c : kernel) {
        c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
    return machine + "-" + kernel;
}

std::set<std::string> processorFlags() {
    std::string info;
    try {
        info = readFile("/proc/cpuinfo", 16 * 1024 * 1024);
    } catch (const Error &) {
        return {}; // no Linux, or no /proc: then without the levels
    }
    auto start = info.find("\nflags");
    start = start == std::string::npos ? start : info.find(':', start);
    if (start == std::string::npos) {
        return {};
    }
    auto words = splitWords(std::string_view(info).substr(start + 1, info.find('\n', start) - start - 1));
    return {words.begin(), words.end()};
}

/// The x86-64 micro-architecture levels of the psABI, by Linux's names of their features.
std::set<std::string> extraPlatformsOf(const std::string &system) {
    if (system != "x86_64-linux") {
        return {};
    }
    static const std::vector<std::pair<std::string, std::vector<std::string>>> levels{
        {"x86_64-v1-linux", {}},
        {"x86_64-v2-linux", {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"}},
        {"x86_64-v3-linux", {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}},
        {"x86_64-v4-linux", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}},
    };
    auto flags = processorFlags();
    std::set<std::string> platforms{"i686-linux"};
    for (auto &[platform, needed] : levels) {
        bool all =
            std::all_of(needed.begin(), needed.end(), [&](auto &flag) { return flags.contains(flag); });
        if (!all) {
            break;
        }
        platforms.insert(platform);
    }
    return platforms;
}

std::vector<std::string> defaultSandboxPaths() {
    for (std::string shell : {FIRN_BUSYBOX, "/usr/bin/busybox", "/bin/busybox"}) {
        if (access(shell.c_str(), X_OK) == 0) {
            return {"/bin/sh=" + shell};
        }
    }
    return {};
}

std::string defaultCertificates() {
    for (const char *variable : {"NIX_SSL_CERT_FILE", "SSL_CERT_FILE"}) {
        if (const char *path = std::getenv(variable); path && *path) {
            return path;
        }
    }
    // Debian's and NixOS's, Fedora's, macOS's and Alpine's, a profile's.
    for (const char *path :
         {"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem",
          "/nix/var/nix/profiles/default/etc/ssl/certs/ca-bundle.crt"}) {
        if (access(path, R_OK) == 0) {
            return path;
        }
    }
    return "";
}

void applyConfig(Settings &settings, const std::vector<ConfigEntry> &config, Logger &logger) {
    for (auto &entry : config) {
        try {
            if (applySetting(settings, entry.name, entry.value) == ApplyResult::unknown) {
                logger.log(Verbosity::talkative,
                           fmt::format("{}: setting '{}' is not used here", entry.origin, entry.name));
            }
        } catch (Error &error) {
            error.addContext(entry.origin);
            throw;
        }
    }
}

} // namespace

ApplyResult applySetting(Settings &settings, const std::string &name, const std::string &value) {
    auto &table = entries();
    auto found = table.find(canonicalName(name));
    if (found != table.end()) {
        found->second.set(settings, name, value, false);
        return ApplyResult::applied;
    }
    static constexpr std::string_view extra = "extra-";
    if (!name.starts_with(extra)) {
        return ApplyResult::unknown;
    }
    found = table.find(canonicalName(name.substr(extra.size())));
    if (found == table.end() || !found->second.appendable) {
        return ApplyResult::unknown;
    }
    found->second.set(settings, name, value, true);
    return ApplyResult::applied;
}

Settings defaultSettings(const Locations &locations) {
    Settings settings;
    settings.system = hostSystem();
    settings.extraPlatforms = extraPlatformsOf(settings.system);
    settings.systemFeatures = {"benchmark", "big-parallel", "nixos-test"};
    if (access("/dev/kvm", R_OK | W_OK) == 0) {
        settings.systemFeatures.insert("kvm");
    }
    settings.netrcFile = locations.confDir / "netrc";
    settings.sslCertFile = defaultCertificates();
    settings.buildUsersGroup = geteuid() == 0 ? "nixbld" : "";
    settings.sandboxPaths = defaultSandboxPaths();
    settings.trustedPublicKeys = {"cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="};
    settings.substituters = {"https://cache.nixos.org/"};
    return settings;
}

std::vector<ConfigEntry> readConfiguration(const Locations &locations) {
    auto path = locations.confDir / "nix.conf";
    std::string text;
    try {
        text = readConfigFile(path);
    } catch (const Error &error) {
        if (error.kind() != ErrorKind::notFound) {
            throw;
        }
    }
    std::vector<ConfigEntry> entries = parseConfig(text, path, readConfigFile);
    if (const char *config = std::getenv("NIX_CONFIG")) {
        std::vector<ConfigEntry> more = parseConfig(config, "NIX_CONFIG", readConfigFile);
        entries.insert(entries.end(), more.begin(), more.end());
    }
    return entries;
}

Settings loadSettings(const Locations &locations, Logger &logger) {
    auto settings = defaultSettings(locations);
    applyConfig(settings, readConfiguration(locations), logger);
    return settings;
}

unsigned buildsAtOnce(const Settings &settings) {
    return settings.machineMaxJobs > 0 ? settings.machineMaxJobs : std::max(settings.maxJobs, processors());
}

bool isSafeForUntrusted(const std::string &name) {
    // Stock Nix also lets them set `builders` to nothing; here there are none.
    static const std::set<std::string> safe{"timeout", "max-silent-time", "build-poll-interval",
                                            "connect-timeout"};
    return safe.contains(canonicalName(name));
}

bool isFixedPerConnection(const std::string &name) {
    static const std::set<std::string> fixed{"experimental-features", "plugin-files",  "store",
                                             "ssh-auth-sock",         "trusted-users", "allowed-users",
                                             "machine-max-jobs",      "use-sqlite-wal"};
    static constexpr std::string_view extra = "extra-";
    return fixed.contains(canonicalName(name)) ||
           (name.starts_with(extra) && fixed.contains(canonicalName(name.substr(extra.size()))));
}

bool matchesUserList(const std::set<std::string> &list, const std::string &user,
                     const std::vector<std::string> &groups) {
    if (list.contains("*") || list.contains(user)) {
        return true;
    }
    return std::any_of(groups.begin(), groups.end(), [&](auto &group) { return list.contains("@" + group); });
}

} // namespace firn
