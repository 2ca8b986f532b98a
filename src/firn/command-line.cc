#include "firn/command-line.hh"

#include <cstdlib>
#include <filesystem>

#include <CLI/CLI.hpp>

#include "firn-config.hh"
#include "libstore/protocol/server.hh"
#include "libstore/store/settings.hh"
#include "libutil/error.hh"

namespace firn {

namespace {

struct DaemonWords {
    bool forceTrusted = false, forceUntrusted = false, defaultTrust = false, daemonise = false, debug = false;
    int verbose = 0, quiet = 0;
    std::string features, socket;
};

void addDaemonOptions(CLI::App &app, DaemonOptions &options, DaemonWords &words) {
    app.add_flag("--daemon", words.daemonise,
                 "Accepted for compatibility; the daemon stays in the foreground");
    app.add_flag("--stdio", options.stdio, "Serve standard input and output instead of a socket");
    app.add_flag("--connection", options.connection)->group("");
    app.add_flag("--sweep", options.sweep)->group("");
    app.add_option("--socket", words.socket, "Path of the socket");
    app.add_option("--store", options.storeUri, "auto, local, local?store=…&state=…&log=…, daemon");
    auto *trusted = app.add_flag("--force-trusted", words.forceTrusted, "Trust every client");
    auto *untrusted = app.add_flag("--force-untrusted", words.forceUntrusted, "Trust no client");
    auto *byDefault = app.add_flag("--default-trust", words.defaultTrust, "Trust clients by trusted-users");
    trusted->excludes(untrusted)->excludes(byDefault);
    untrusted->excludes(byDefault);
    app.add_flag("--process-ops", options.processOps, "With --stdio: do not pass on to another daemon");
    app.add_option("--option", options.settings, "Set a setting of nix.conf: --option NAME VALUE");
    app.add_flag("-v,--verbose", words.verbose, "Say more; may be repeated");
    app.add_flag("--quiet", words.quiet, "Say less; may be repeated");
    app.add_flag("--debug", words.debug, "Say everything");
    app.footer("Every setting of nix.conf can be given as --NAME VALUE too.");
    app.allow_extras();
}

/// What CLI11 did not know: settings as "--name value", or "--name" for true and "--no-name" for false.
void takeSettings(const std::vector<std::string> &words, DaemonOptions &options) {
    for (size_t i = 0; i < words.size(); ++i) {
        if (!words[i].starts_with("--")) {
            throw CLI::ExtrasError(std::vector<std::string>{words[i]});
        }
        std::string name = words[i].substr(2), value = "true";
        if (i + 1 < words.size() && !words[i + 1].starts_with("--")) {
            value = words[++i];
        } else if (name.starts_with("no-")) {
            name = name.substr(3);
            value = "false";
        }
        Settings scratch;
        bool feature = name.ends_with("experimental-features");
        if (!feature && applySetting(scratch, name, value) == ApplyResult::unknown) {
            throw CLI::ExtrasError(std::vector<std::string>{"--" + name});
        }
        options.settings.emplace_back(name, value);
    }
}

Verbosity chosenVerbosity(const DaemonWords &words) {
    if (words.debug) {
        return Verbosity::debug;
    }
    int level = static_cast<int>(Verbosity::info) + words.verbose - words.quiet;
    return static_cast<Verbosity>(std::clamp(level, 0, static_cast<int>(Verbosity::vomit)));
}

void finishDaemonOptions(const CLI::App &app, DaemonOptions &options, const DaemonWords &words) {
    takeSettings(app.remaining(), options);
    options.verbosity = chosenVerbosity(words);
    if (words.forceTrusted || words.forceUntrusted) {
        options.forceTrust = words.forceTrusted;
    }
    if (!words.socket.empty()) {
        options.socketPath = words.socket;
    }
    const char *remote = std::getenv("NIX_REMOTE");
    if (options.stdio && remote && *remote && app.get_option("--store")->empty()) {
        options.storeUri = remote;
    }
}

/// Runs CLI11; nothing to do if it printed help, the version or an error.
template<typename Finish>
Command parse(CLI::App &app, int argc, char **argv, Command command, Finish finish) {
    try {
        app.parse(argc, argv);
        finish(command);
    } catch (const CLI::ParseError &error) {
        command.action = Command::Action::exit;
        command.exitStatus = app.exit(error);
    }
    return command;
}

Command parseAsNixDaemon(int argc, char **argv) {
    CLI::App app("Serves a Nix store to Nix clients (firn).", "nix-daemon");
    app.set_version_flag("--version", fmt::format("nix-daemon (Nix) {}", matchedNixVersion));
    Command command;
    DaemonWords words;
    addDaemonOptions(app, command.daemon, words);
    return parse(app, argc, argv, {}, [&](Command &result) {
        result.action = Command::Action::daemon;
        finishDaemonOptions(app, command.daemon, words);
        result.daemon = command.daemon;
    });
}

Command parseAsFirn(int argc, char **argv) {
    CLI::App app("A build daemon for Nix users.", "firn");
    app.set_version_flag("--version", fmt::format("firn {} (Nix {})", FIRN_VERSION, matchedNixVersion));
    app.require_subcommand(1);
    app.footer("Documents: " FIRN_DOC_DIR);
    CLI::App *daemon = app.add_subcommand("daemon", "Serve a Nix store to Nix clients");
    daemon->set_version_flag("--version", app.version());
    Command command;
    DaemonWords words;
    addDaemonOptions(*daemon, command.daemon, words);
    return parse(app, argc, argv, {}, [&](Command &result) {
        result.action = Command::Action::daemon;
        finishDaemonOptions(*daemon, command.daemon, words);
        result.daemon = command.daemon;
    });
}

} // namespace

Command parseCommandLine(int argc, char **argv) {
    bool asNixDaemon = argc > 0 && std::filesystem::path(argv[0]).filename() == "nix-daemon";
    return asNixDaemon ? parseAsNixDaemon(argc, argv) : parseAsFirn(argc, argv);
}

} // namespace firn
