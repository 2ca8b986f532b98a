#pragma once

// Groups of one user alone. Many systems make such a group for each user, with the user's own name, and let
// the user's files be writable by it (umask 002): that lets nobody else write them.

#include <string>
#include <vector>

#include <sys/types.h>

namespace firn {

struct UserEntry {
    std::string name;
    uid_t uid = 0;
    gid_t primaryGroup = 0;
};

struct GroupEntry {
    std::string name;
    gid_t gid = 0;
    std::vector<std::string> members; ///< those whose primary group it is too, which no group's entry names
};

/// Whether a group is the user's primary one, has the user's name (root's is group 0, whatever its name), and
/// has no other member.
bool isPrivateGroup(const UserEntry &user, const GroupEntry &group);

/// Whether a group is the user's alone, as the system's databases have it. False for what they do not know,
/// and if they hold too many accounts to look at each. Databases on a network may not list their accounts
/// (LDAP with sssd does not unless told to): an account there whose primary group it is, and that the group's
/// entry does not name, is not seen. Not for two threads at once.
bool isPrivateGroup(uid_t user, gid_t group);

} // namespace firn
