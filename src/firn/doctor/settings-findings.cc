#include "firn/doctor/settings-findings.hh"

#include <map>
#include <optional>
#include <set>

#include "libutil/error.hh"

// Stock Nix has many settings that are no business of a daemon's (of the evaluator, of downloads by the
// client), and some that Firn's daemon does not follow yet. Both are to be told from a name nobody knows,
// which is most likely misspelt.

namespace firn::doctor {

namespace {

/// A setting that a stock daemon follows and Firn does not (yet).
struct Missing {
    std::set<std::string> harmless; ///< values with which nothing is missing
    std::string effect;
};

const std::map<std::string, Missing> &missingSettings() {
    static const std::map<std::string, Missing> table{
        {"auto-allocate-uids", {{"false"}, "builds use the group 'build-users-group'"}},
        {"build-hook", {{""}, "every build runs on this machine"}},
        {"builders", {{""}, "every build runs on this machine"}},
        {"external-builders", {{"", "[]"}, "derivations for them are refused"}},
        {"min-free", {{"0"}, "garbage is never collected on its own"}},
        {"plugin-files", {{""}, "no plugin is loaded"}},
        {"post-build-hook", {{""}, "it is never run"}},
        {"pre-build-hook", {{""}, "it is never run"}},
        {"use-cgroups", {{"false"}, "builds have no control group of their own"}},
    };
    return table;
}

bool isOfNix(const std::string &name) {
    static const std::set<std::string> names{
        // A daemon's, without an effect that anybody would miss.
        "allow-symlinked-store", "always-allow-substitutes", "build-poll-interval",
        "builders-use-substitutes", "download-buffer-size", "download-speed", "enforce-determinism",
        "fsync-store-paths", "http-connections", "id-count", "keep-env-derivations", "env-keep-derivations",
        "max-free", "max-substitution-jobs", "min-free-check-interval", "nar-buffer-size",
        "narinfo-cache-meta-ttl", "narinfo-cache-negative-ttl", "narinfo-cache-positive-ttl",
        "preallocate-contents", "repeat", "build-repeat", "require-drop-supplementary-groups",
        "sandbox-fallback", "start-id", "store", "trusted-substituters", "trusted-binary-caches",
        "use-case-hack",
        // A client's.
        "abort-on-warn", "accept-flake-config", "access-tokens", "allow-dirty", "allow-dirty-locks",
        "allow-import-from-derivation", "allow-unsafe-native-code-during-evaluation", "allowed-uris",
        "bash-prompt", "bash-prompt-prefix", "bash-prompt-suffix", "commit-lock-file-summary",
        "commit-lockfile-summary", "debugger-on-trace", "debugger-on-warn",
        "eval-attrset-update-layer-rhs-threshold", "eval-cache", "eval-cores", "eval-profile-file",
        "eval-profiler", "eval-profiler-frequency", "eval-system", "flake-registry", "ignore-try",
        "json-log-path", "lazy-trees", "lint-absolute-path-literals", "lint-short-path-literals",
        "lint-url-literals", "max-call-depth", "nix-path", "nix-shell-always-looks-for-shell-nix",
        "nix-shell-shebang-arguments-relative-to-script", "pure-eval", "restrict-eval", "show-trace",
        "tarball-ttl", "trace-function-calls", "trace-import-from-derivation", "trace-verbose",
        "trust-tarballs-from-git-forges", "upgrade-nix-store-path-url", "use-registries",
        "use-xdg-base-directories", "warn-dirty", "warn-large-path-threshold", "warn-short-path-literals"};
    return names.contains(name);
}

std::string withoutExtra(const std::string &name) {
    return name.starts_with("extra-") ? name.substr(6) : name;
}

/// `extra-NAME` adds to a list, so nothing added is harmless whatever the setting is.
std::optional<Finding> judgeMissing(const ConfigEntry &entry) {
    auto found = missingSettings().find(withoutExtra(entry.name));
    if (found == missingSettings().end() || entry.value.empty() ||
        found->second.harmless.contains(entry.value)) {
        return std::nullopt;
    }
    return Finding{
        Level::limit,
        "unsupported-setting",
        fmt::format("'{}' ({}) is not supported yet: {}", entry.name, entry.origin, found->second.effect),
        "remove it where it is not needed; else stay with the stock daemon for now",
        {{"setting", entry.name}, {"origin", entry.origin}}};
}

Finding unknownSetting(const ConfigEntry &entry) {
    return {Level::limit,
            "unknown-setting",
            fmt::format("'{}' ({}) is no setting that Firn or Nix knows: it has no effect", entry.name,
                        entry.origin),
            "correct its name, or remove it",
            {{"setting", entry.name}, {"origin", entry.origin}}};
}

std::optional<Finding> judgeUnapplied(const ConfigEntry &entry) {
    std::string name = withoutExtra(entry.name);
    if (missingSettings().contains(name)) {
        return judgeMissing(entry);
    }
    if (isOfNix(name)) {
        return std::nullopt;
    }
    return unknownSetting(entry);
}

Finding badSetting(const ConfigEntry &entry, const Error &error) {
    return {Level::error,
            "bad-setting",
            fmt::format("{}: {}", entry.origin, error.message()),
            "correct it: the daemon does not start with it",
            {{"setting", entry.name}, {"origin", entry.origin}}};
}

// ---- what they mean

void judgeTrust(const Settings &settings, Findings &findings) {
    if (settings.trustedUsers.contains("*")) {
        findings.push_back({Level::limit,
                            "trusted-everybody",
                            "'trusted-users = *': every user can become root by way of the daemon",
                            "name those who may, such as 'trusted-users = root @wheel'",
                            {}});
    }
    if (!settings.requireSigs) {
        findings.push_back({Level::limit,
                            "unsigned",
                            "'require-sigs = false': what comes from elsewhere is taken without a signature",
                            "remove it, and list the keys to be trusted in 'trusted-public-keys'",
                            {}});
    }
    if (settings.allowNewPrivileges) {
        findings.push_back({Level::limit,
                            "new-privileges",
                            "'allow-new-privileges = true': builders may run setuid programs",
                            "remove it unless a build needs it",
                            {}});
    }
}

void judgeSubstituters(const Settings &settings, Findings &findings) {
    if (settings.substitute && !settings.substituters.empty()) {
        findings.push_back({Level::note,
                            "no-substitution",
                            "Firn does not fetch from substituters yet: what a client's store lacks is built",
                            "",
                            {}});
    }
    if (!settings.postBuildHook.empty()) {
        findings.push_back({Level::limit,
                            "unsupported-setting",
                            "'post-build-hook' is not supported yet: it is never run",
                            "remove it where it is not needed; else stay with the stock daemon for now",
                            {{"setting", "post-build-hook"}}});
    }
}

void judgeFeatures(const Settings &settings, Findings &findings) {
    static const std::map<std::string, std::string> missing{
        {"recursive-nix", "builds that need it are refused"}};
    for (const std::string &feature : settings.experimentalFeatures) {
        if (auto found = missing.find(feature); found != missing.end()) {
            findings.push_back({Level::limit,
                                "unsupported-feature",
                                fmt::format("the experimental feature '{}' is not supported yet: {}", feature,
                                            found->second),
                                "remove it where it is not needed; else stay with the stock daemon for now",
                                {{"feature", feature}}});
        }
    }
}

Finding judgeJobs(const Settings &settings, unsigned processors) {
    std::map<std::string, std::string> details{{"maxJobs", std::to_string(settings.maxJobs)},
                                               {"machineMaxJobs", std::to_string(settings.machineMaxJobs)},
                                               {"processors", std::to_string(processors)}};
    std::string jobs =
        fmt::format("{} for one client ('max-jobs'), {} in all ('machine-max-jobs'), {} processor{}",
                    settings.maxJobs, settings.machineMaxJobs, processors, processors == 1 ? "" : "s");
    if (settings.maxJobs == 0) {
        return {Level::limit, "jobs", "'max-jobs = 0': nothing is built here unless a client asks otherwise",
                "set 'max-jobs' to 'auto'", details};
    }
    if (settings.maxJobs == 1 && processors > 2) {
        return {Level::note, "jobs", "builds at once: " + jobs, "set 'max-jobs = auto' to use them all",
                details};
    }
    if (settings.maxJobs > 4 * processors) {
        return {Level::note, "jobs", "builds at once: " + jobs,
                "so many share each processor that all get slow; consider 'max-jobs = auto'", details};
    }
    return {Level::ok, "jobs", "builds at once: " + jobs, "", details};
}

} // namespace

AppliedSettings applyAll(Settings settings, const std::vector<ConfigEntry> &entries) {
    AppliedSettings result{std::move(settings), {}};
    for (const ConfigEntry &entry : entries) {
        try {
            if (applySetting(result.settings, entry.name, entry.value) == ApplyResult::applied) {
                continue;
            }
            if (std::optional<Finding> finding = judgeUnapplied(entry)) {
                result.findings.push_back(*finding);
            }
        } catch (const Error &error) {
            result.findings.push_back(badSetting(entry, error));
        }
    }
    return result;
}

Findings judgeSettings(const Settings &settings, unsigned processors) {
    Findings findings{judgeJobs(settings, processors)};
    judgeTrust(settings, findings);
    judgeSubstituters(settings, findings);
    judgeFeatures(settings, findings);
    return findings;
}

} // namespace firn::doctor
