#include "firn/doctor/facts.hh"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <optional>
#include <set>

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <utmpx.h>

#include "firn/doctor/host.hh"
#include "firn/listening-socket.hh"
#include "libstore/build/reachability.hh"
#include "libstore/protocol/peer-credentials.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"

namespace firn::doctor {

namespace {

namespace fs = std::filesystem;

/// A symlink to nothing is: no directory can be made in its place.
bool isThere(const fs::path &path) {
    struct stat st;
    return lstat(path.c_str(), &st) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

fs::path nearestExisting(const fs::path &path) {
    fs::path nearest = path;
    while (!isThere(nearest) && nearest.has_parent_path() && nearest != nearest.parent_path()) {
        nearest = nearest.parent_path();
    }
    return nearest;
}

fs::path firstSymlink(const fs::path &path) {
    fs::path part;
    for (const fs::path &component : path) {
        part /= component;
        struct stat st;
        if (lstat(part.c_str(), &st) == 0 && S_ISLNK(st.st_mode)) {
            return part;
        }
    }
    return {};
}

void lookAtFileSystem(DirectoryFacts &facts) {
    struct statvfs space;
    if (statvfs(facts.nearest.c_str(), &space) == 0) {
        facts.freeBytes = uint64_t{space.f_bavail} * space.f_frsize;
        facts.freeFiles = space.f_favail;
        facts.countsFiles = space.f_files > 0;
    }
    try {
        if (UniqueFd fd = openForLooking(facts.nearest)) {
            facts.mount = describeMount(fd.get());
        }
    } catch (const Error &) {
        facts.mount = {}; // no /proc: the mount then has no name in the findings
    }
}

/// Directories that a probe makes on its way are removed when it is over, as far as they are empty.
class MissingDirectories {
  public:
    void add(const fs::path &path) {
        for (fs::path missing = path; !isThere(missing) && missing.has_parent_path();
             missing = missing.parent_path()) {
            paths_.insert(missing);
        }
    }
    MissingDirectories() = default;
    MissingDirectories(const MissingDirectories &) = delete;
    MissingDirectories &operator=(const MissingDirectories &) = delete;
    ~MissingDirectories() {
        for (auto path = paths_.rbegin(); path != paths_.rend(); ++path) {
            rmdir(path->c_str());
        }
    }

  private:
    std::set<fs::path> paths_; ///< a directory comes before what is in it
};

std::set<std::string> loggedInUsers() {
    std::set<std::string> names;
    setutxent();
    while (const struct utmpx *entry = getutxent()) {
        if (entry->ut_type == USER_PROCESS) {
            names.emplace(entry->ut_user, strnlen(entry->ut_user, sizeof entry->ut_user));
        }
    }
    endutxent();
    return names;
}

BuildUserFacts lookAtUser(const std::string &name, const std::set<std::string> &loggedIn) {
    BuildUserFacts facts{.name = name, .shell = "", .loggedIn = loggedIn.contains(name)};
    if (const struct passwd *entry = getpwnam(name.c_str())) {
        facts.exists = true;
        facts.uid = entry->pw_uid;
        facts.shell = entry->pw_shell;
    }
    return facts;
}

std::string unusedTmpdir() {
    const char *value = getenv("TMPDIR");
    return value && *value && *value != '/' ? value : "";
}

/// Only root has build users, and can see all that is closed to them.
fs::path closedToBuildUsers(const fs::path &path, const Settings &settings) {
    const struct group *users = geteuid() == 0 && !settings.buildUsersGroup.empty()
                                    ? getgrnam(settings.buildUsersGroup.c_str())
                                    : nullptr;
    return users ? firstClosedDirectory(path, users->gr_gid) : fs::path();
}

} // namespace

DirectoryFacts lookAtDirectory(const fs::path &path) {
    DirectoryFacts facts;
    facts.path = path;
    facts.nearest = nearestExisting(path);
    facts.exists = facts.nearest == path;
    struct stat st;
    bool known = stat(facts.nearest.c_str(), &st) == 0;
    facts.leadsNowhere = !known && errno == ENOENT;
    facts.isDirectory = known ? S_ISDIR(st.st_mode) : !facts.leadsNowhere;
    bool may = faccessat(AT_FDCWD, facts.nearest.c_str(), W_OK | X_OK, AT_EACCESS) == 0;
    facts.accessError = may ? 0 : errno;
    facts.symlink = firstSymlink(path);
    lookAtFileSystem(facts);
    return facts;
}

SocketFacts lookAtSocket(const fs::path &path) {
    SocketFacts facts;
    facts.path = path;
    facts.directory = lookAtDirectory(path.parent_path());
    struct stat st;
    if (stat(path.c_str(), &st) != 0) {
        bool absent = errno == ENOENT || errno == ENOTDIR;
        facts.state = absent ? SocketFacts::State::absent : SocketFacts::State::unreachable;
        facts.error = errno;
        return facts;
    }
    if (!S_ISSOCK(st.st_mode)) {
        facts.state = SocketFacts::State::notSocket;
        return facts;
    }
    try {
        UniqueFd daemon = connectToSocket(path);
        facts.state = SocketFacts::State::answered;
        facts.pid = peerCredentials(daemon.get()).pid;
        facts.program = facts.pid > 0 ? programOf(facts.pid) : "";
    } catch (const SysError &error) {
        facts.error = error.number();
        if (facts.state != SocketFacts::State::answered) {
            facts.state =
                error.number() == ECONNREFUSED ? SocketFacts::State::stale : SocketFacts::State::unreachable;
        }
    } catch (const Error &) {
        facts.state = SocketFacts::State::unreachable; // nothing else than its length is wrong with a path
        facts.error = ENAMETOOLONG;
    }
    return facts;
}

BuildDirectoryFacts lookAtBuildDirectory(const Locations &locations, const Settings &settings,
                                         const std::string &initProgram) {
    BuildDirectoryBase base = BuildDirectories::findBase(locations, settings);
    BuildDirectoryFacts facts{.directory = lookAtDirectory(base.path),
                              .origin = base.origin,
                              .choice = {},
                              .refusal = "",
                              .mayMount = hasMountRights(),
                              .unusedTmpdir = unusedTmpdir(),
                              .closed = closedToBuildUsers(base.path, settings),
                              .sandbox = settings.sandbox};
    if (initProgram.empty() || facts.directory.accessError != 0 || !facts.directory.isDirectory) {
        return facts;
    }
    MissingDirectories made;
    made.add(base.path);
    made.add(BuildDirectories::defaultBase(locations));
    std::optional<BuildDirectories> directories;
    try {
        directories.emplace(base.path, BuildDirectories::Sweep::no);
    } catch (const Error &error) {
        facts.unusable = error.message();
        return facts;
    }
    try {
        facts.choice = chooseExecMechanism(*directories, base.origin, locations, settings, initProgram);
    } catch (const Error &error) {
        facts.refusal = error.message();
    }
    return facts;
}

BuildUsersFacts lookAtBuildUsers(const Settings &settings) {
    BuildUsersFacts facts{.daemonUid = geteuid(), .group = settings.buildUsersGroup, .members = {}};
    const struct group *entry = facts.group.empty() ? nullptr : getgrnam(facts.group.c_str());
    if (!entry) {
        return facts;
    }
    facts.groupExists = true;
    std::vector<std::string> names;
    for (char **member = entry->gr_mem; *member; ++member) {
        names.emplace_back(*member);
    }
    std::set<std::string> loggedIn = loggedInUsers();
    for (const std::string &name : names) {
        facts.members.push_back(lookAtUser(name, loggedIn));
    }
    return facts;
}

} // namespace firn::doctor
