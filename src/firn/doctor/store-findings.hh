#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include <sys/types.h>

#include "firn/doctor/finding.hh"
#include "libstore/build/build-directory-exec.hh"

namespace firn::doctor {

/// What a daemon finds where it needs a directory.
struct DirectoryFacts {
    std::filesystem::path path;
    bool exists = false;
    bool isDirectory = true;       ///< of `nearest`
    bool leadsNowhere = false;     ///< `nearest` is a symlink to nothing
    std::filesystem::path nearest; ///< itself, or the nearest parent that is there
    int accessError = 0;           ///< errno of asking whether we may make entries in `nearest`
    MountDescription mount;        ///< of `nearest`
    uint64_t freeBytes = 0, freeFiles = 0;
    bool countsFiles = false;      ///< the file system has a number of files that it can hold
    std::filesystem::path symlink; ///< the first component of the path that is one
};

/// One finding `id` about a directory that is made if it is missing; `name` as in "the store". `makeRoom`:
/// what to do where little is left.
Finding judgeDirectory(const std::string &id, const std::string &name, const DirectoryFacts &facts,
                       const std::string &otherPlace, const std::string &makeRoom = "make room");

/// The store: programs in it must be executable.
Findings judgeStore(const DirectoryFacts &facts);

/// `schema`: text of the database's file of that name, "" if there is none.
Findings judgeState(const DirectoryFacts &facts, const std::string &schema, bool useWal);

struct SocketFacts {
    enum class State { absent, stale, answered, notSocket, unreachable };
    std::filesystem::path path;
    State state = State::absent;
    int error = 0;            ///< for `unreachable`
    pid_t pid = -1;           ///< of who answers; −1: not known
    std::string program;      ///< its name; "" not known
    DirectoryFacts directory; ///< in which it lies
};

Finding judgeSocket(const SocketFacts &facts);

} // namespace firn::doctor
