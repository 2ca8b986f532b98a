#include "libstore/build/private-group.hh"

#include <algorithm>
#include <cerrno>
#include <optional>

#include <grp.h>
#include <pwd.h>

namespace firn {

namespace {

/// Entries live in a buffer whose size nobody knows beforehand. `get` is one of the calls with "_r".
template<typename Entry, typename Get>
bool findEntry(Get get, Entry &entry, std::vector<char> &buffer) {
    constexpr size_t largest = 64 * 1024 * 1024;
    Entry *found = nullptr;
    while (get(&entry, buffer.data(), buffer.size(), &found) == ERANGE && buffer.size() < largest) {
        buffer.resize(buffer.size() * 2);
    }
    return found != nullptr;
}

std::optional<UserEntry> findUser(uid_t uid) {
    std::vector<char> buffer(16 * 1024);
    struct passwd entry;
    auto get = [uid](auto... rest) { return getpwuid_r(uid, rest...); };
    return findEntry(get, entry, buffer) ? std::optional(UserEntry{entry.pw_name, entry.pw_gid})
                                         : std::nullopt;
}

std::optional<GroupEntry> findGroup(gid_t gid) {
    std::vector<char> buffer(16 * 1024);
    struct group entry;
    auto get = [gid](auto... rest) { return getgrgid_r(gid, rest...); };
    if (!findEntry(get, entry, buffer)) {
        return std::nullopt;
    }
    GroupEntry group{entry.gr_name, entry.gr_gid, {}};
    for (char **member = entry.gr_mem; *member; member++) {
        group.members.emplace_back(*member);
    }
    return group;
}

} // namespace

bool isPrivateGroup(const UserEntry &user, const GroupEntry &group) {
    auto isUser = [&](const std::string &member) { return member == user.name; };
    return group.gid == user.primaryGroup && group.name == user.name &&
           std::all_of(group.members.begin(), group.members.end(), isUser);
}

bool isPrivateGroup(uid_t user, gid_t group) {
    if (user == 0) {
        return group == 0;
    }
    std::optional<UserEntry> itsUser = findUser(user);
    std::optional<GroupEntry> itsGroup = findGroup(group);
    return itsUser && itsGroup && isPrivateGroup(*itsUser, *itsGroup);
}

} // namespace firn
