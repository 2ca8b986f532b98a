#include "firn/daemon.hh"

#include <csignal>
#include <filesystem>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "firn/connection-process.hh"
#include "firn/listener.hh"
#include "firn/listening-socket.hh"
#include "firn/peer-policy.hh"
#include "firn/stdio-forward.hh"
#include "firn/store-uri.hh"
#include "libstore/build/build-bases.hh"
#include "libstore/build/build-directory-exec.hh"
#include "libstore/build/helper-program.hh"
#include "libstore/build/scratch-store.hh"
#include "libstore/protocol/server.hh"
#include "libutil/descriptor-limit.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"

namespace firn {

namespace {

Settings loadDaemonSettings(const DaemonOptions &options, const Locations &locations, Logger &logger) {
    Settings settings = loadSettings(locations, logger);
    for (const auto &[name, value] : options.settings) {
        if (applySetting(settings, name, value) == ApplyResult::unknown) {
            logger.warn(fmt::format("unknown setting '{}'", name));
        }
    }
    settings.machineMaxJobs = buildsAtOnce(settings);
    return settings;
}

/// One accepted connection, in its own process.
void serveSocket(int socket, const DaemonOptions &options, const Locations &locations,
                 const Settings &settings, Logger &logger) {
    raiseDescriptorLimit();
    PeerCredentials credentials = peerCredentials(socket);
    PeerDecision decision = decideAboutPeer(credentials, settings);
    if (!decision.allowed) {
        logger.warn(fmt::format("refused a connection by user '{}'", decision.peer.userName));
        refuseConnection(
            socket, socket,
            fmt::format("user '{}' is not allowed to connect to the Nix daemon", decision.peer.userName));
        return;
    }
    decision.peer.trusted = options.forceTrust.value_or(decision.peer.trusted);
    logger.log(Verbosity::info,
               fmt::format("accepted connection from pid {}, user {}{}", credentials.pid,
                           decision.peer.userName, decision.peer.trusted ? " (trusted)" : ""));
    serveConnection(socket, socket, decision.peer, locations, settings);
}

/// Takes standard input and output for the protocol; what else would read or print there gets nothing, or
/// goes to standard error.
Pipe takeStdio() {
    Pipe client{UniqueFd(fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)),
                UniqueFd(fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3))};
    UniqueFd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (!client.readEnd || !client.writeEnd || !null || dup2(null.get(), STDIN_FILENO) < 0 ||
        dup2(STDERR_FILENO, STDOUT_FILENO) < 0) {
        throwErrno("taking over standard input and output");
    }
    return client;
}

void serveStdio(const DaemonOptions &options, const StoreChoice &choice, const Settings &settings) {
    Pipe client = takeStdio();
    if (!choice.viaDaemon) {
        raiseDescriptorLimit();
        Peer peer;
        peer.trusted = options.forceTrust.value_or(true);
        peer.pid = getppid();
        serveConnection(client.readEnd.get(), client.writeEnd.get(), peer, choice.locations, settings);
        return;
    }
    if (options.processOps || options.forceTrust) {
        throw Error(ErrorKind::unsupported,
                    "The store is behind another daemon, to which connections can only be "
                    "passed on as they are; use --store local.");
    }
    UniqueFd daemon = connectToSocket(choice.locations.socketPath);
    forwardConnection(client.readEnd.get(), client.writeEnd.get(), daemon.get());
}

/// Removes what builds of killed daemons left behind, as far as that can be told from what is in use.
void sweepLeftovers(const Locations &locations, const Settings &settings, Logger &logger) {
    sweepBuildBases(locations, settings, logger);
    std::error_code absent;
    if (std::filesystem::is_directory(locations.storeDir.str(), absent)) {
        sweepScratchStores(openDirectory(locations.storeDir.str()).get(), logger);
    }
}

/// The command that starts this daemon's program for another task (--connection: to serve standard input).
std::vector<std::string> selfCommand(const DaemonOptions &options, const std::string &task) {
    std::vector<std::string> command{selfPath(), "daemon", task, "--store", options.storeUri};
    if (options.forceTrust) {
        command.push_back(*options.forceTrust ? "--force-trusted" : "--force-untrusted");
    }
    for (const auto &[name, value] : options.settings) {
        command.insert(command.end(), {"--option", name, value});
    }
    return command;
}

/// In a process of its own: there may be much to remove, and clients do not wait for it.
void startSweep(const UniqueFd &socket, const DaemonOptions &options, const Locations &locations,
                const Settings &settings, Logger &logger) {
    try {
        UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
        startConnectionProcess(
            null.get(), {socket.get()}, [&](int) { sweepLeftovers(locations, settings, logger); },
            selfCommand(options, "--sweep"));
    } catch (const Error &error) {
        logger.warn(error.message());
    }
}

/// Keeps back, as long as it lives, the signals that end a daemon which does not listen yet.
class EndingPostponed {
  public:
    EndingPostponed() {
        sigset_t ending;
        sigemptyset(&ending);
        for (int number : {SIGTERM, SIGINT, SIGHUP}) {
            sigaddset(&ending, number);
        }
        sigprocmask(SIG_BLOCK, &ending, &before_);
    }
    EndingPostponed(const EndingPostponed &) = delete;
    EndingPostponed &operator=(const EndingPostponed &) = delete;
    ~EndingPostponed() { sigprocmask(SIG_SETMASK, &before_, nullptr); }

  private:
    sigset_t before_;
};

/// Finds out whether programs can be executed in the build directory, so that it is known in the processes of
/// connections. The default directory is made for that; where another one is not there yet, each connection
/// will find out. A daemon that is stopped meanwhile ends after it, so that the probe's directory does not
/// stay behind.
void probeBuildDirectory(const Locations &locations, const Settings &settings, Logger &logger) {
    EndingPostponed untilProbed;
    std::error_code absent;
    try {
        BuildDirectoryBase base = BuildDirectories::findBase(locations, settings);
        bool isDefault = base.path == BuildDirectories::defaultBase(locations);
        if (isDefault || std::filesystem::is_directory(base.path, absent)) {
            ExecChoice choice = chooseExecMechanism(locations, settings, sandboxInitProgram());
            if (!choice.warning.empty()) {
                logger.warn(choice.warning);
            }
        }
    } catch (const Error &error) {
        logger.warn(error.message());
    }
}

void listenOnSocket(const DaemonOptions &options, const Locations &locations, const Settings &settings,
                    Logger &logger) {
    UniqueFd socket = openListeningSocket(locations.socketPath);
    startSweep(socket, options, locations, settings, logger);
    probeBuildDirectory(locations, settings, logger);
    auto serve = [&](int connection) { serveSocket(connection, options, locations, settings, logger); };
    Listener(std::move(socket), serve, selfCommand(options, "--connection"), logger).run();
}

} // namespace

void runDaemon(const DaemonOptions &options) {
    signal(SIGPIPE, SIG_IGN);
    umask(022); // what the store holds is for everybody to read, whoever started us
    std::unique_ptr<Logger> logger = makeStderrLogger(options.verbosity);
    Locations defaults = Locations::fromEnvironment();
    if (options.socketPath) {
        defaults.socketPath = *options.socketPath;
    }
    StoreChoice choice = chooseStore(options.storeUri, defaults);
    Settings settings = loadDaemonSettings(options, choice.locations, *logger);
    if (options.sweep) {
        sweepLeftovers(choice.locations, settings, *logger);
    } else if (options.stdio) {
        serveStdio(options, choice, settings);
    } else if (options.connection) {
        serveSocket(STDIN_FILENO, options, choice.locations, settings, *logger);
    } else if (choice.viaDaemon && options.storeUri != "auto") {
        throw Error(ErrorKind::unsupported, "A daemon that listens serves a local store; use --store local.");
    } else {
        listenOnSocket(options, choice.locations, settings, *logger);
    }
}

} // namespace firn
