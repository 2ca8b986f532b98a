#include "firn/command-line.hh"

#include <cstdlib>
#include <filesystem>
#include <set>

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

struct MachoWords {
    MachoOptions options;
    std::vector<std::string> replacements;
};

/// The subcommands of `firn macho`.
struct MachoCommands {
    CLI::App *all, *verify, *rewrite, *repair;
};

constexpr const char *machoRights =
    "They read files in this process and with your rights, as any tool of yours does:\n"
    "do not run them as root on files that you do not trust.";

CLI::App *addMachoCommand(CLI::App &macho, const char *name, const char *does, MachoWords &words) {
    CLI::App *command = macho.add_subcommand(name, does);
    command->add_option("PATH", words.options.paths, "Files and directories")->required();
    command->add_flag("--json", words.options.json, "Print the results as JSON; doc/macho.md describes it");
    return command;
}

MachoCommands addMacho(CLI::App &app, MachoWords &words) {
    CLI::App *macho = app.add_subcommand("macho", "Look after the code signatures of programs for macOS");
    macho->require_subcommand(1);
    macho->footer(fmt::format("{}\n\nMore: {}/macho.md", machoRights, FIRN_DOC_DIR));
    CLI::App *verify = addMachoCommand(
        *macho, "verify", "Say whether the hashes in code signatures are those of the files' bytes", words);
    verify->footer("Exit status: 0 all right, 1 something is stale, 2 something could not be judged.\n"
                   "Of directories only files with something to say are listed.");
    CLI::App *rewrite = addMachoCommand(
        *macho, "rewrite", "Replace the hash parts of store paths, and repair the signatures", words);
    rewrite
        ->add_option("--replace", words.replacements,
                     "OLD=NEW, each the 32 characters of a store path's hash; may be repeated")
        ->required()
        ->expected(1)
        ->allow_extra_args(false)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
        ->type_name("OLD=NEW");
    rewrite->footer("In contents of files, targets of symlinks and names below PATH.\n"
                    "Changed files are new ones, with the mode and time of the old.\n"
                    "Exit status: 0 all done, 2 something was refused or failed; that is as it was before.");
    CLI::App *repair = addMachoCommand(
        *macho, "repair", "Make every stale hash of ad-hoc signed programs right, outside of a store", words);
    repair->add_flag("--dry-run", words.options.dryRun,
                     "Only say what would be done (exit status 1 if anything)");
    repair->footer("Exit status: 0 all is right now, 2 something could not be repaired; that is as it was "
                   "before.");
    return {macho, verify, rewrite, repair};
}

void finishMacho(const MachoCommands &commands, MachoWords &words) {
    words.options.action = commands.verify->parsed()    ? MachoOptions::Action::verify
                           : commands.rewrite->parsed() ? MachoOptions::Action::rewrite
                                                        : MachoOptions::Action::repair;
    std::set<std::string> seen;
    for (const std::string &text : words.replacements) {
        try {
            words.options.replacements.push_back(parseReplacement(text));
        } catch (const Error &error) {
            throw CLI::ValidationError("--replace", error.message());
        }
        if (!seen.insert(words.options.replacements.back().first).second) {
            throw CLI::ValidationError("--replace", "one hash part is to become two");
        }
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
    MachoWords machoWords;
    MachoCommands macho = addMacho(app, machoWords);
    return parse(app, argc, argv, {}, [&](Command &result) {
        if (macho.all->parsed()) {
            finishMacho(macho, machoWords);
            result.action = Command::Action::macho;
            result.macho = machoWords.options;
            return;
        }
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
