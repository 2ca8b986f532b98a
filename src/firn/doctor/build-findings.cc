#include "firn/doctor/build-findings.hh"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

#include <fmt/ranges.h>

#include "libutil/error.hh"

namespace firn::doctor {

namespace {

// ---- build directory

std::string describeOrigin(const BuildDirectoryFacts &facts) {
    if (facts.origin == "build-dir") {
        return "from the setting 'build-dir'";
    }
    if (!facts.unusedTmpdir.empty()) {
        return "the default, as 'build-dir' is not set";
    }
    return facts.origin == "TMPDIR" ? "from the environment's TMPDIR, as 'build-dir' is not set"
                                    : "the default, as neither 'build-dir' nor TMPDIR is set";
}

struct MechanismWords {
    const char *name, *text;
};

MechanismWords wordsOf(ExecMechanism mechanism) {
    switch (mechanism) {
    case ExecMechanism::direct:
        return {"direct", "programs can be executed there"};
    case ExecMechanism::bindMount:
        return {"bind-mount", "builds get a private mount of it without noexec"};
    case ExecMechanism::classicBindMount:
        return {"classic-bind-mount",
                "builds get a private mount of it without noexec, the way of Linux before 5.12"};
    case ExecMechanism::overlay:
        return {"overlay", "builds get an executable overlay over it in their user namespace"};
    case ExecMechanism::tmpfs:
        return {"tmpfs", "builds run in memory instead ('noexec-build-dir = tmpfs')"};
    case ExecMechanism::stateDirectory:
        break;
    }
    return {"state-directory", "builds run in the state directory instead"};
}

std::string describeTrial(const ExecChoice &choice) {
    switch (choice.mechanism) {
    case ExecMechanism::tmpfs:
    case ExecMechanism::stateDirectory:
        return "";
    default:
        return choice.untried.empty() ? " (tried)" : fmt::format(" (not tried: {})", choice.untried);
    }
}

/// Why builds need another mechanism than the directory as it is.
std::string describeNeed(const ExecChoice &choice, const MountDescription &mount) {
    if (choice.probeError == 0) {
        return "";
    }
    // Of a program that fails there is nothing to say where none has been tried.
    return mount.noexec ? "that forbids programs, so "
                        : fmt::format("a program there fails ({}), so ", strerror(choice.probeError));
}

std::map<std::string, std::string> detailsOf(const BuildDirectoryFacts &facts) {
    const MountDescription &mount = facts.directory.mount;
    std::map<std::string, std::string> details{{"path", facts.directory.path.string()},
                                               {"origin", facts.origin.empty() ? "default" : facts.origin},
                                               {"mountPoint", mount.mountPoint},
                                               {"options", mount.options},
                                               {"fileSystem", mount.fileSystem},
                                               {"noexec", mount.noexec ? "true" : "false"},
                                               {"freeBytes", std::to_string(facts.directory.freeBytes)}};
    if (facts.choice) {
        details["mechanism"] = wordsOf(facts.choice->mechanism).name;
        details["base"] = facts.choice->base.string();
        details["tried"] = facts.choice->untried.empty() ? "true" : "false";
        details["probeError"] = std::to_string(facts.choice->probeError);
    }
    return details;
}

/// What a refusal says after "Either " is its remedies.
Finding refused(const std::string &id, const std::string &refusal, const BuildDirectoryFacts &facts) {
    static const std::string mark = ". Either ";
    size_t at = refusal.find(mark);
    std::string remedy = at == std::string::npos ? "set 'build-dir' to a directory where builds can run"
                                                 : refusal.substr(at + mark.size());
    return {Level::error, id, refusal.substr(0, at), remedy, detailsOf(facts)};
}

Finding judgePlace(const BuildDirectoryFacts &facts) {
    Finding finding =
        judgeDirectory("build-directory", "the build directory", facts.directory, "set 'build-dir'");
    if (!facts.unusable.empty()) {
        std::map<std::string, std::string> details = std::move(finding.details);
        finding = refused("build-directory", facts.unusable, facts);
        finding.details = std::move(details);
    } else if (finding.level == Level::ok) {
        finding.text += fmt::format(" ({})", describeOrigin(facts));
    }
    finding.details["origin"] = facts.origin.empty() ? "default" : facts.origin;
    return finding;
}

/// Whoever lacks a right may not need it: a mount's flag is lifted by rights, a super block's or a policy's
/// refusal is not.
std::string remedyFor(const BuildDirectoryFacts &facts) {
    const MountDescription &mount = facts.directory.mount;
    std::string place =
        mount.mountPoint.empty() ? "the build directory's file system" : "'" + mount.mountPoint + "'";
    std::string elsewhere = "set 'build-dir' to a directory where programs can be executed";
    std::string allow = mount.noexec ? fmt::format("mount {} without noexec", place)
                                     : fmt::format("let programs on {} be executed, which its file system or "
                                                   "a security policy forbids",
                                                   place);
    if (facts.choice->mechanism == ExecMechanism::tmpfs) {
        return fmt::format("set 'noexec-build-dir = mount' (builds then have an executable view of their "
                           "directory, if this host allows that), {}, or {}",
                           allow, elsewhere);
    }
    std::string rights = mount.noexec && !facts.mayMount
                             ? "run the daemon as root of the host (not of a user namespace), "
                             : "";
    return fmt::format("{}, {}or {}", allow, rights, elsewhere);
}

Finding judgeExecution(const BuildDirectoryFacts &facts) {
    const ExecChoice &choice = *facts.choice;
    const MountDescription &mount = facts.directory.mount;
    bool worse =
        choice.mechanism == ExecMechanism::tmpfs || choice.mechanism == ExecMechanism::stateDirectory;
    std::string where =
        choice.mechanism == ExecMechanism::stateDirectory ? fmt::format(": '{}'", choice.base.string()) : "";
    return {worse ? Level::limit : Level::ok, "build-directory-execution",
            fmt::format("on {}: {}{}{}{}", print(mount), describeNeed(choice, mount),
                        wordsOf(choice.mechanism).text, describeTrial(choice), where),
            worse ? remedyFor(facts) : "", detailsOf(facts)};
}

/// A sandbox shows builds their directory wherever it lies.
Finding unreachable(const BuildDirectoryFacts &facts) {
    bool all = facts.sandbox == SandboxMode::disabled;
    return {
        all ? Level::error : Level::limit,
        "build-directory-reach",
        fmt::format("build users may not enter '{}', so {} without a sandbox cannot reach their directory",
                    facts.closed.string(), all ? "builds" : "those builds that run"),
        fmt::format("let others through (chmod o+x '{}'), or set 'build-dir' to a directory that "
                    "everybody can reach",
                    facts.closed.string()),
        {{"path", facts.closed.string()}}};
}

// ---- build users

Finding judgeMember(const BuildUsersFacts &facts, const BuildUserFacts &user) {
    std::string remedy = fmt::format("gpasswd -d {} {}", user.name, facts.group);
    std::map<std::string, std::string> details{{"user", user.name}};
    if (!user.exists) {
        return {Level::error, "build-user",
                fmt::format("'{}' is in the group '{}' but is no user: builds fail", user.name, facts.group),
                "make it, or take it out: " + remedy, details};
    }
    if (user.uid == 0 || user.uid == facts.daemonUid) {
        return {Level::error, "build-user",
                fmt::format("'{}' (uid {}) runs the daemon and cannot be a build user too: builds fail",
                            user.name, user.uid),
                "take it out: " + remedy, details};
    }
    if (user.loggedIn) {
        return {
            Level::limit, "build-user",
            fmt::format("'{}' is logged in: before and after a build, all processes of its user are killed",
                        user.name),
            "take it out if it is a person's: " + remedy, details};
    }
    std::string shell = user.shell.substr(user.shell.rfind('/') + 1);
    if (!shell.empty() && shell != "nologin" && shell != "false" && shell != "noshell") {
        return {Level::note, "build-user",
                fmt::format("'{}' has the shell '{}', so it may log in", user.name, user.shell),
                fmt::format("usermod -s /usr/sbin/nologin {}", user.name), details};
    }
    return {Level::ok, "build-user", "", "", details};
}

std::string makeUsers(const std::string &group) {
    return fmt::format(
        "groupadd -r {0}; for n in 1 2 3 4 5 6 7 8; do useradd -r -g {0} -G {0} -d /var/empty -s "
        "/usr/sbin/nologin nixbld$n; done",
        group);
}

/// Two names of one uid are one build user: its lock goes by the number.
size_t distinctUids(const BuildUsersFacts &facts) {
    std::set<uid_t> uids;
    for (const BuildUserFacts &user : facts.members) {
        if (user.exists) {
            uids.insert(user.uid);
        }
    }
    return uids.size();
}

Findings judgePool(const BuildUsersFacts &facts, unsigned builds) {
    size_t distinct = distinctUids(facts), named = facts.members.size();
    std::map<std::string, std::string> details{{"group", facts.group}, {"users", std::to_string(distinct)}};
    Findings findings;
    if (distinct < named) {
        findings.push_back(
            {Level::limit, "build-users-shared",
             fmt::format("{} build users in '{}' have {} distinct uids", named, facts.group, distinct),
             "give each a uid of its own (usermod -u)", details});
    }
    if (distinct < builds) {
        findings.push_back(
            {Level::limit, "build-users",
             fmt::format("{} build user{} in '{}' for up to {} builds at once: the others wait", distinct,
                         distinct == 1 ? "" : "s", facts.group, builds),
             "add users to the group, or lower 'max-jobs'", details});
    } else {
        findings.push_back(
            {Level::ok, "build-users",
             fmt::format("{} build users in '{}' for up to {} builds at once", distinct, facts.group, builds),
             "", details});
    }
    return findings;
}

std::string describeMissing(const KernelFeature &feature) {
    return feature.declined.empty() ? fmt::format("no {}: {}", feature.name, feature.without)
                                    : fmt::format("{} is not used, as {} says so: {}", feature.name,
                                                  feature.declined, feature.without);
}

} // namespace

Findings judgeBuildDirectory(const BuildDirectoryFacts &facts) {
    Findings findings{judgePlace(facts)};
    if (!facts.unusedTmpdir.empty()) {
        findings.push_back({facts.origin.empty() ? Level::limit : Level::note,
                            "build-directory-tmpdir",
                            fmt::format("TMPDIR is '{}', which is no absolute path: builds do not go by it",
                                        facts.unusedTmpdir),
                            "set it to an absolute path, or set 'build-dir'",
                            {{"value", facts.unusedTmpdir}}});
    }
    if (facts.choice) {
        findings.push_back(judgeExecution(facts));
    } else if (!facts.refusal.empty()) {
        findings.push_back(refused("build-directory-execution", facts.refusal, facts));
    }
    if (!facts.closed.empty() && facts.sandbox != SandboxMode::enabled) {
        findings.push_back(unreachable(facts));
    }
    return findings;
}

Findings judgeBuildUsers(const BuildUsersFacts &facts, unsigned builds) {
    std::map<std::string, std::string> details{{"group", facts.group}};
    if (facts.daemonUid != 0) {
        return {{Level::ok, "build-users",
                 fmt::format("builds run as the daemon's own user (uid {})", facts.daemonUid), "", details}};
    }
    if (facts.group.empty()) {
        return {{Level::limit, "build-users", "'build-users-group' is empty: builds run as root",
                 "remove the setting, and make build users: " + makeUsers("nixbld"), details}};
    }
    if (!facts.groupExists) {
        return {{Level::error, "build-users",
                 fmt::format("the group '{}' of build users does not exist: no build can run", facts.group),
                 makeUsers(facts.group), details}};
    }
    if (facts.members.empty()) {
        return {{Level::error, "build-users",
                 fmt::format("the group '{}' lists no members (those of whom it is the primary group do not "
                             "count): no build can run",
                             facts.group),
                 makeUsers(facts.group), details}};
    }
    Findings findings = judgePool(facts, builds);
    for (const BuildUserFacts &user : facts.members) {
        Finding finding = judgeMember(facts, user);
        if (finding.level != Level::ok) {
            findings.push_back(std::move(finding));
        }
    }
    return findings;
}

Findings judgeKernel(const KernelFacts &facts) {
    std::vector<std::string> present;
    Findings missing;
    std::map<std::string, std::string> details{{"name", facts.name}};
    for (const KernelFeature &feature : facts.features) {
        details[feature.name] = feature.present ? "true" : "false";
        if (feature.present) {
            present.push_back(feature.name);
        } else {
            missing.push_back({feature.level,
                               "kernel-feature",
                               describeMissing(feature),
                               feature.remedy,
                               {{"feature", feature.name}}});
        }
    }
    std::string list = present.empty() ? "" : fmt::format(" with {}", fmt::join(present, ", "));
    Findings findings{{Level::ok, "kernel", facts.name + list, "", details}};
    findings.insert(findings.end(), missing.begin(), missing.end());
    return findings;
}

Findings judgeSandboxPaths(const std::vector<SandboxPathFacts> &paths) {
    Findings findings;
    bool shell = false;
    for (const SandboxPathFacts &path : paths) {
        std::map<std::string, std::string> details{{"word", path.word}};
        shell = shell || path.target == "/bin/sh" || path.target == "/bin";
        if (!path.problem.empty()) {
            findings.push_back({Level::error, "sandbox-path", "'sandbox-paths': " + path.problem,
                                "correct it: sandboxed builds fail", details});
        } else if (path.error != 0 && !(path.optional && path.error == ENOENT)) {
            findings.push_back({Level::error, "sandbox-path",
                                fmt::format("'sandbox-paths' has '{}', which cannot be shown to builds: {}",
                                            path.source, strerror(path.error)),
                                "sandboxed builds fail: remove it, or end it in '?' if it may be missing",
                                details});
        }
    }
    if (!shell) {
        findings.push_back({Level::limit,
                            "sandbox-shell",
                            "sandboxed builds have no /bin/sh, which many (all of Nixpkgs' first ones) need",
                            "install a static busybox (Debian: busybox-static), or set 'sandbox-paths = "
                            "/bin/sh=<a static shell>'",
                            {}});
    } else if (findings.empty()) {
        auto found =
            std::find_if(paths.begin(), paths.end(), [](auto &path) { return path.target == "/bin/sh"; });
        std::string source = found == paths.end() ? "the host's /bin" : "'" + found->source + "'";
        findings.push_back({Level::ok,
                            "sandbox-path",
                            fmt::format("sandboxes have {} as /bin/sh, and {} more path{}", source,
                                        paths.size() - 1, paths.size() == 2 ? "" : "s"),
                            "",
                            {}});
    }
    return findings;
}

Findings judgeSandboxSettings(const Settings &settings) {
    Findings findings;
    if (settings.sandbox == SandboxMode::disabled) {
        findings.push_back({Level::limit,
                            "sandbox-setting",
                            "'sandbox = false': builds see the host's files, network and programs",
                            "remove it, unless the host cannot make sandboxes",
                            {{"sandbox", "false"}}});
    } else if (settings.sandbox == SandboxMode::relaxed) {
        findings.push_back(
            {Level::note,
             "sandbox-setting",
             "'sandbox = relaxed': builds that ask for it, and those of a fixed output, have no "
             "sandbox",
             "",
             {{"sandbox", "relaxed"}}});
    }
    if (!settings.filterSyscalls) {
        findings.push_back({Level::limit,
                            "syscall-filter",
                            "'filter-syscalls = false': builders can make setuid files and set attributes",
                            "remove it, unless the kernel lacks seccomp filters",
                            {}});
    }
    return findings;
}

} // namespace firn::doctor
