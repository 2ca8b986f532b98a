#include "firn/connection-process.hh"

#include <csignal>

#include <mach-o/dyld.h>
#include <spawn.h>
#include <sys/types.h>
#include <unistd.h>

#include "libutil/error.hh"

extern char **environ;

namespace firn {

namespace {

/// Owns the two descriptions that posix_spawn takes.
struct SpawnPlan {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;

    explicit SpawnPlan(int connection) {
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, connection, STDIN_FILENO);
        posix_spawnattr_init(&attributes);
        sigset_t defaults, mask;
        sigemptyset(&mask);
        sigemptyset(&defaults);
        for (int number : {SIGTERM, SIGINT, SIGHUP, SIGCHLD}) {
            sigaddset(&defaults, number);
        }
        posix_spawnattr_setsigdefault(&attributes, &defaults);
        posix_spawnattr_setsigmask(&attributes, &mask);
        posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK |
                                                  POSIX_SPAWN_SETSID | POSIX_SPAWN_CLOEXEC_DEFAULT);
        posix_spawn_file_actions_addinherit_np(&actions, STDOUT_FILENO);
        posix_spawn_file_actions_addinherit_np(&actions, STDERR_FILENO);
    }
    ~SpawnPlan() {
        posix_spawn_file_actions_destroy(&actions);
        posix_spawnattr_destroy(&attributes);
    }
};

} // namespace

void startConnectionProcess(int connection, const std::vector<int> &, const std::function<void(int)> &,
                            const std::vector<std::string> &selfCommand) {
    SpawnPlan plan(connection);
    std::vector<char *> arguments;
    for (const std::string &argument : selfCommand) {
        arguments.push_back(const_cast<char *>(argument.c_str()));
    }
    arguments.push_back(nullptr);
    pid_t pid = 0;
    int number =
        posix_spawn(&pid, selfCommand[0].c_str(), &plan.actions, &plan.attributes, arguments.data(), environ);
    if (number != 0) {
        throw SysError(number, "starting a process for a connection");
    }
}

std::string selfPath() {
    uint32_t size = 0;
    _NSGetExecutablePath(nullptr, &size);
    std::string path(size, '\0');
    if (_NSGetExecutablePath(path.data(), &size) != 0) {
        throw Error(ErrorKind::system, "finding the path of this program");
    }
    path.resize(path.find('\0'));
    return path;
}

} // namespace firn
