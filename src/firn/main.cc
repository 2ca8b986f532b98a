#include <cstdio>
#include <exception>

#include "firn/command-line.hh"
#include "libutil/error.hh"

int main(int argc, char **argv) {
    try {
        firn::Command command = firn::parseCommandLine(argc, argv);
        if (command.action == firn::Command::Action::exit) {
            return command.exitStatus;
        }
        if (command.action == firn::Command::Action::macho) {
            return firn::runMacho(command.macho);
        }
        firn::runDaemon(command.daemon);
        return 0;
    } catch (const std::exception &error) {
        fmt::print(stderr, "error: {}\n", error.what());
        return 1;
    }
}
