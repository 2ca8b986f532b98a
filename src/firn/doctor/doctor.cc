#include "firn/doctor/doctor.hh"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include <pwd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "firn-config.hh"
#include "firn/doctor/facts.hh"
#include "firn/doctor/host.hh"
#include "firn/doctor/report.hh"
#include "firn/doctor/settings-findings.hh"
#include "firn/store-uri.hh"
#include "libstore/build/helper-program.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"

namespace firn::doctor {

namespace {

void append(Findings &findings, Findings more) {
    std::move(more.begin(), more.end(), std::back_inserter(findings));
}

// ---- which daemon

/// Where its store is; a daemon that listens serves a local one only.
Locations findLocations(const DaemonOptions &options, Findings &findings) {
    Locations defaults = Locations::fromEnvironment();
    if (options.socketPath) {
        defaults.socketPath = *options.socketPath;
    }
    try {
        StoreChoice choice = chooseStore(options.storeUri, defaults);
        if (choice.viaDaemon && options.storeUri != "auto") {
            findings.push_back(
                {Level::error,
                 "store-uri",
                 fmt::format("the store '{}' is behind another daemon, and a daemon that listens "
                             "serves a local one",
                             options.storeUri),
                 "use --store local",
                 {{"store", options.storeUri}}});
        }
        return choice.locations;
    } catch (const Error &error) {
        findings.push_back(
            {Level::error, "store-uri", error.message(), "use --store local", {{"store", options.storeUri}}});
        return defaults;
    }
}

std::vector<ConfigEntry> readEntries(const Locations &locations, Findings &findings) {
    std::string file = (locations.confDir / "nix.conf").string();
    std::map<std::string, std::string> details{{"path", file}};
    try {
        std::vector<ConfigEntry> entries = readConfiguration(locations);
        bool there = access(file.c_str(), F_OK) == 0;
        findings.push_back({Level::ok, "configuration",
                            there ? fmt::format("read from '{}'", file)
                                  : fmt::format("there is no '{}', so they are the defaults", file),
                            "", details});
        return entries;
    } catch (const Error &error) {
        findings.push_back(
            {Level::error, "configuration",
             "the configuration cannot be read, so that what follows goes by the defaults: " +
                 error.message(),
             "correct it, or let the daemon's user read it; NIX_CONF_DIR names another directory", details});
        return {};
    }
}

Settings findSettings(const DaemonOptions &options, const Locations &locations, Findings &findings) {
    std::vector<ConfigEntry> entries = readEntries(locations, findings);
    for (const auto &[name, value] : options.settings) {
        entries.push_back({name, value, "the command line"});
    }
    AppliedSettings applied = applyAll(defaultSettings(locations), entries);
    append(findings, std::move(applied.findings));
    applied.settings.machineMaxJobs = buildsAtOnce(applied.settings);
    append(findings, judgeSettings(applied.settings, std::max(1u, std::thread::hardware_concurrency())));
    return applied.settings;
}

// ---- the sections

std::string readSchema(const Locations &locations) {
    try {
        return readFile(locations.stateDir / "db" / "schema", 4096);
    } catch (const Error &) {
        return ""; // no store yet, or not for us to read, which the directory's finding says
    }
}

Findings findStore(const Locations &locations, const Settings &settings) {
    Findings findings = judgeStore(lookAtDirectory(locations.storeDir.str()));
    append(findings,
           judgeState(lookAtDirectory(locations.stateDir), readSchema(locations), settings.useSqliteWal));
    findings.push_back(judgeDirectory("log-directory", "the log directory", lookAtDirectory(locations.logDir),
                                      "choose another (NIX_LOG_DIR, or --store local?log=…)"));
    findings.push_back(judgeSocket(lookAtSocket(locations.socketPath)));
    return findings;
}

std::string describeUser() {
    const struct passwd *entry = getpwuid(geteuid());
    std::string name = entry ? entry->pw_name : "nobody known";
    return fmt::format("{} (uid {})", name, geteuid());
}

/// A program that only some builds need.
struct Helper {
    std::string id, program, variable;
    std::string without; ///< what becomes of those builds where it is missing
    std::string use;
};

Finding findHelper(const Helper &helper) {
    std::map<std::string, std::string> details{{"path", helper.program}};
    if (access(helper.program.c_str(), X_OK) != 0) {
        return {Level::limit, helper.id,
                fmt::format("{} without '{}': {}", helper.without, helper.program, strerror(errno)),
                fmt::format("install Firn as a whole (meson install), or name the program in {}",
                            helper.variable),
                details};
    }
    return {Level::ok, helper.id, fmt::format("{} by '{}'", helper.use, helper.program), "", details};
}

Findings findHelpers() {
    return {findHelper({"macho-jail", machoJailProgram(), "FIRN_MACHO_JAIL",
                        "builds that rewrite store paths in a program for macOS fail",
                        "rewritten programs for macOS are looked at"}),
            findHelper({"builtin", builtinBuilderProgram(), "FIRN_BUILTIN",
                        "builds by builtin builders ('builtin:fetchurl' …) fail",
                        "the work of builtin builders is done"})};
}

Report examine(const DaemonOptions &options) {
    Findings store, settingsFindings, sandbox;
    Locations locations = findLocations(options, store);
    Settings settings = findSettings(options, locations, settingsFindings);
    append(store, findStore(locations, settings));
    std::string initProgram = findHelperProgram(sandbox);
    append(sandbox, findHelpers());
    append(sandbox, judgeKernel(lookAtKernel()));
    append(sandbox, judgeSandbox(settings, initProgram));
    Findings directory = judgeBuildDirectory(lookAtBuildDirectory(locations, settings, initProgram));
    Findings users = judgeBuildUsers(lookAtBuildUsers(settings), settings.machineMaxJobs);
    return {FIRN_VERSION,
            describeUser(),
            {{"store", "Store", std::move(store)},
             {"build-directory", "Build directory", std::move(directory)},
             {"sandbox", "Sandbox", std::move(sandbox)},
             {"build-users", "Build users", std::move(users)},
             {"settings", "Settings", std::move(settingsFindings)}}};
}

// ---- the terminal

size_t terminalWidth() {
    struct winsize size {};
    if (!isatty(STDOUT_FILENO)) {
        return 0;
    }
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

bool wantsColours() {
    const char *none = std::getenv("NO_COLOR"), *terminal = std::getenv("TERM");
    return isatty(STDOUT_FILENO) && (!none || !*none) && terminal && std::string(terminal) != "dumb";
}

} // namespace

int runDoctor(const DoctorOptions &options) {
    constexpr int broken = 2;
    signal(SIGPIPE, SIG_IGN);
    umask(022); // as the daemon
    try {
        Report report = examine(options.daemon);
        writeFull(STDOUT_FILENO,
                  options.json ? printAsJson(report) : printAsText(report, terminalWidth(), wantsColours()));
        return exitStatus(report);
    } catch (const std::exception &error) {
        fmt::print(stderr, "error: {}\n", error.what());
        return broken;
    }
}

} // namespace firn::doctor
