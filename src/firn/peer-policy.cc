#include "firn/peer-policy.hh"

#include <string>
#include <vector>

#include <grp.h>
#include <pwd.h>
#include <unistd.h>

namespace firn {

namespace {

/// getgrouplist() has its own idea of a group number's type on each system.
template<typename Id>
Id groupIdOf(int (*)(const char *, Id, Id *, int *));
using GroupId = decltype(groupIdOf(getgrouplist));

std::string userName(uid_t uid) {
    const passwd *entry = getpwuid(uid);
    return entry ? entry->pw_name : std::to_string(uid);
}

std::string groupName(gid_t gid) {
    const group *entry = getgrgid(gid);
    return entry ? entry->gr_name : std::to_string(gid);
}

/// The peer's primary group and those that list the user as a member.
std::vector<std::string> groupNames(const std::string &user, gid_t gid) {
    std::vector<GroupId> ids(64);
    int count = static_cast<int>(ids.size());
    while (getgrouplist(user.c_str(), static_cast<GroupId>(gid), ids.data(), &count) < 0) {
        ids.resize(ids.size() * 2);
        count = static_cast<int>(ids.size());
    }
    std::vector<std::string> names;
    for (int i = 0; i < count; ++i) {
        names.push_back(groupName(static_cast<gid_t>(ids[i])));
    }
    return names;
}

} // namespace

PeerDecision decideAboutPeer(const PeerCredentials &credentials, const Settings &settings) {
    std::string user = userName(credentials.uid);
    std::vector<std::string> groups = groupNames(user, credentials.gid);
    bool trusted = matchesUserList(settings.trustedUsers, user, groups);
    bool isBuildUser =
        !settings.buildUsersGroup.empty() && groupName(credentials.gid) == settings.buildUsersGroup;
    bool allowed = !isBuildUser && (trusted || matchesUserList(settings.allowedUsers, user, groups));
    Peer peer{.userName = user,
              .uid = credentials.uid,
              .gid = credentials.gid,
              .pid = credentials.pid,
              .trusted = trusted};
    return {peer, allowed};
}

} // namespace firn
