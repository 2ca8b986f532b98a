#include "libstore/build/build-users.hh"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libutil/error.hh"

namespace firn {

namespace {

struct Group {
    gid_t gid;
    std::vector<std::string> members;
};

/// The entries of getgrnam_r live in a buffer whose size nobody knows beforehand.
std::optional<Group> findGroup(const std::string &name) {
    std::vector<char> buffer(16 * 1024);
    struct group entry, *found = nullptr;
    int error;
    while ((error = getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found)) == ERANGE &&
           buffer.size() < 64 * 1024 * 1024) {
        buffer.resize(buffer.size() * 2);
    }
    if (!found) {
        return std::nullopt;
    }
    Group group{entry.gr_gid, {}};
    for (char **member = entry.gr_mem; *member; member++) {
        group.members.emplace_back(*member);
    }
    return group;
}

struct User {
    uid_t uid;
    gid_t primaryGroup;
};

std::optional<User> findUser(const std::string &name) {
    std::vector<char> buffer(64 * 1024);
    struct passwd entry, *found = nullptr;
    getpwnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found);
    return found ? std::optional(User{entry.pw_uid, entry.pw_gid}) : std::nullopt;
}

std::vector<gid_t> supplementaryGroups(const std::string &name, gid_t primary, gid_t pool) {
#ifdef __APPLE__
    using Gid = int;
#else
    using Gid = gid_t;
#endif
    int count = 1024;
    std::vector<Gid> all(static_cast<size_t>(count));
    if (getgrouplist(name.c_str(), static_cast<Gid>(primary), all.data(), &count) < 0) {
        throw Error(ErrorKind::unsupported, "build user '{}' is in more than 1024 groups", name);
    }
    std::vector<gid_t> groups;
    for (int i = 0; i < count; i++) {
        auto group = static_cast<gid_t>(all[static_cast<size_t>(i)]);
        if (group != pool && group != primary) {
            groups.push_back(group);
        }
    }
    return groups;
}

pid_t spawnKiller(const std::string &initProgram, uid_t uid) {
    std::string program = "firn-sandbox-init", option = "--kill-uid", number = std::to_string(uid);
    char *args[] = {program.data(), option.data(), number.data(), nullptr};
    char *env[] = {nullptr};
    pid_t pid = -1;
    int error = posix_spawn(&pid, initProgram.c_str(), nullptr, nullptr, args, env);
    if (error != 0) {
        throw SysError(error, fmt::format("starting '{}'", initProgram));
    }
    return pid;
}

int awaitChild(pid_t pid) {
    int status = 0;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            throwErrno("waiting for process {}", pid);
        }
    }
    return status;
}

void makeDirectory(const std::filesystem::path &path) {
    if (mkdir(path.c_str(), 0755) < 0 && errno != EEXIST) {
        throwErrno("making the directory '{}'", path.string());
    }
}

} // namespace

void killUserProcesses(const std::string &initProgram, uid_t uid) {
    if (uid == 0) {
        throw Error(ErrorKind::bug, "refusing to kill the processes of root");
    }
    // The user's own processes may kill the helper while it is one of them; there is only so much of that
    // they can do.
    constexpr int attempts = 10;
    for (int i = 0; i < attempts; i++) {
        int status = awaitChild(spawnKiller(initProgram, uid));
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
            return;
        }
        if (WIFEXITED(status)) {
            throw Error(ErrorKind::failure, "killing the processes of user {} failed with exit code {}", uid,
                        WEXITSTATUS(status));
        }
    }
    throw Error(ErrorKind::failure, "killing the processes of user {}: the helper was killed {} times", uid,
                attempts);
}

BuildUser::BuildUser(std::string initProgram, uid_t uid, gid_t gid, std::vector<gid_t> groups, UniqueFd lock)
    : initProgram_(std::move(initProgram)),
      uid_(uid),
      gid_(gid),
      groups_(std::move(groups)),
      lock_(std::move(lock)) {}

BuildUser::BuildUser(BuildUser &&other) noexcept = default;

BuildUser::~BuildUser() {
    try {
        release();
    } catch (const std::exception &) {
        lock_.reset(); // see release() in the header: the next lease kills first, and tells
    }
}

void BuildUser::release() {
    if (lock_) {
        killUserProcesses(initProgram_, uid_);
        lock_.reset();
    }
}

BuildUserPool::BuildUserPool(std::filesystem::path stateDir, std::string group, std::string initProgram)
    : stateDir_(std::move(stateDir)), group_(std::move(group)), initProgram_(std::move(initProgram)) {}

std::optional<BuildUser> BuildUserPool::acquire() {
    std::optional<Group> group = findGroup(group_);
    if (!group) {
        throw Error(ErrorKind::unsupported,
                    "the group '{}' of build users does not exist: make it with members (groupadd -r {}; "
                    "useradd -r -g "
                    "{} -G {} nixbld1; ...), or name another in 'build-users-group'",
                    group_, group_, group_, group_);
    }
    if (group->members.empty()) {
        throw Error(
            ErrorKind::unsupported,
            "the group '{}' of build users has no members: add some (useradd -r -g {} -G {} nixbld1; ...)",
            group_, group_, group_);
    }
    makeDirectory(stateDir_ / "userpool");
    for (const std::string &name : group->members) {
        if (std::optional<BuildUser> user = tryUser(name, group->gid)) {
            return user;
        }
    }
    return std::nullopt;
}

std::optional<BuildUser> BuildUserPool::tryUser(const std::string &name, gid_t gid) {
    std::optional<User> user = findUser(name);
    if (!user) {
        throw Error(ErrorKind::unsupported,
                    "user '{}', a member of the group '{}' of build users, does not exist", name, group_);
    }
    if (user->uid == 0 || user->uid == getuid() || user->uid == geteuid()) {
        throw Error(ErrorKind::unsupported,
                    "user '{}' runs the daemon and cannot be a build user too: take it out of the "
                    "group '{}'",
                    name, group_);
    }
    std::filesystem::path path = stateDir_ / "userpool" / std::to_string(user->uid);
    UniqueFd lock(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!lock) {
        throwErrno("opening the lock file '{}' of a build user", path.string());
    }
    while (flock(lock.get(), LOCK_EX | LOCK_NB) < 0) {
        if (errno == EWOULDBLOCK) {
            return std::nullopt;
        }
        if (errno != EINTR) {
            throwErrno("locking '{}'", path.string());
        }
    }
    BuildUser lease(initProgram_, user->uid, gid, supplementaryGroups(name, user->primaryGroup, gid),
                    std::move(lock));
    killUserProcesses(initProgram_, user->uid);
    return lease;
}

} // namespace firn
