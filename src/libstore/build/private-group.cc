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
    return findEntry(get, entry, buffer) ? std::optional(UserEntry{entry.pw_name, entry.pw_uid, entry.pw_gid})
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

/// Whether accounts cannot be listed, unlike the end of the list, where some databases leave an errno too.
bool isFailure(int error) {
    return error == EINTR || error == EIO || error == EMFILE || error == ENFILE || error == ENOMEM ||
           error == ERANGE;
}

/// The names of all other users whose primary group it is, as far as the databases list their accounts. None
/// if they cannot be listed.
std::optional<std::vector<std::string>> othersWithPrimaryGroup(gid_t group, uid_t user) {
    constexpr size_t most = 1'000'000;
    std::vector<std::string> others;
    setpwent();
    for (size_t count = 0; count < most; count++) {
        errno = 0;
        struct passwd *entry = getpwent();
        if (!entry) {
            bool failed = isFailure(errno);
            endpwent();
            return failed ? std::nullopt : std::optional(std::move(others));
        }
        if (entry->pw_gid == group && entry->pw_uid != user) {
            others.emplace_back(entry->pw_name);
        }
    }
    endpwent();
    return std::nullopt;
}

} // namespace

bool isPrivateGroup(const UserEntry &user, const GroupEntry &group) {
    auto isUser = [&](const std::string &member) { return member == user.name; };
    bool hasItsName = user.uid == 0 ? group.gid == 0 : group.name == user.name;
    return group.gid == user.primaryGroup && hasItsName &&
           std::all_of(group.members.begin(), group.members.end(), isUser);
}

bool isPrivateGroup(uid_t user, gid_t group) {
    std::optional<UserEntry> itsUser = findUser(user);
    std::optional<GroupEntry> itsGroup = findGroup(group);
    if (!itsUser || !itsGroup || !isPrivateGroup(*itsUser, *itsGroup)) {
        return false;
    }
    std::optional<std::vector<std::string>> others = othersWithPrimaryGroup(group, user);
    return others && others->empty();
}

} // namespace firn
