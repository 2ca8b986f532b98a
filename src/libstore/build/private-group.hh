#pragma once

// Groups of one user alone. Many systems make such a group for each user, with the user's own name, and let
// the user's files be writable by it (umask 002): that lets nobody else write them.

#include <string>
#include <vector>

#include <sys/types.h>

namespace firn {

struct UserEntry {
    std::string name;
    gid_t primaryGroup = 0;
};

struct GroupEntry {
    std::string name;
    gid_t gid = 0;
    std::vector<std::string>
        members; ///< that the group's entry names; those whose primary group it is need not be
};

/// Whether a group is the user's primary one, has the user's name, and names no other member.
bool isPrivateGroup(const UserEntry &user, const GroupEntry &group);

/// Whether a group is the user's alone, as the system's databases have it. Root's is group 0. False for what
/// the databases do not know.
bool isPrivateGroup(uid_t user, gid_t group);

} // namespace firn
