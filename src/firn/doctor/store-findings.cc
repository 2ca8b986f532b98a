#include "firn/doctor/store-findings.hh"

#include <cerrno>
#include <cstring>
#include <optional>
#include <set>

#include "libstore/db/store-database.hh"
#include "libutil/error.hh"

namespace firn::doctor {

namespace {

constexpr uint64_t scarceBytes = 1024 * 1024 * 1024;
constexpr uint64_t scarceFiles = 10000;

std::string printSize(uint64_t bytes) {
    constexpr uint64_t mebibyte = 1024 * 1024;
    return bytes < 1024 * mebibyte
               ? fmt::format("{} MiB", bytes / mebibyte)
               : fmt::format("{:.1f} GiB", static_cast<double>(bytes) / (1024.0 * mebibyte));
}

std::map<std::string, std::string> detailsOf(const DirectoryFacts &facts) {
    return {{"path", facts.path.string()},          {"exists", facts.exists ? "true" : "false"},
            {"fileSystem", facts.mount.fileSystem}, {"mountPoint", facts.mount.mountPoint},
            {"options", facts.mount.options},       {"freeBytes", std::to_string(facts.freeBytes)}};
}

std::string describeMountOf(const DirectoryFacts &facts) {
    if (facts.mount.mountPoint.empty()) {
        return facts.mount.fileSystem.empty() ? "a file system" : facts.mount.fileSystem;
    }
    return fmt::format("{} on '{}'", facts.mount.fileSystem, facts.mount.mountPoint);
}

Finding notAllowed(const std::string &id, const std::string &name, const DirectoryFacts &facts,
                   const std::string &otherPlace) {
    std::string what = facts.exists ? fmt::format("cannot write to {} '{}'", name, facts.path.string())
                                    : fmt::format("cannot make {} '{}' (in '{}')", name, facts.path.string(),
                                                  facts.nearest.string());
    std::string remedy = facts.accessError == EROFS
                             ? fmt::format("mount '{}' writable, or {}", facts.mount.mountPoint, otherPlace)
                             : fmt::format("run the daemon as the owner of '{}' (root, as a rule), or {}",
                                           facts.nearest.string(), otherPlace);
    return {Level::error, id, fmt::format("{}: {}", what, strerror(facts.accessError)), remedy,
            detailsOf(facts)};
}

std::optional<Finding> judgeSpace(const std::string &id, const DirectoryFacts &facts,
                                  const std::string &remedy) {
    bool fewFiles = facts.countsFiles && facts.freeFiles < scarceFiles;
    if (facts.freeBytes >= scarceBytes && !fewFiles) {
        return std::nullopt;
    }
    std::string left = fewFiles ? fmt::format("{} more files", facts.freeFiles) : printSize(facts.freeBytes);
    return Finding{
        Level::limit, id,
        fmt::format("there is room for {} in '{}' ({})", left, facts.path.string(), describeMountOf(facts)),
        remedy, detailsOf(facts)};
}

} // namespace

Finding judgeDirectory(const std::string &id, const std::string &name, const DirectoryFacts &facts,
                       const std::string &otherPlace, const std::string &makeRoom) {
    if (!facts.isDirectory) {
        return {Level::error, id,
                fmt::format("'{}' is in the way of {} '{}': it is {}", facts.nearest.string(), name,
                            facts.path.string(),
                            facts.leadsNowhere ? "a symlink to nothing" : "no directory"),
                fmt::format("move it away, or {}", otherPlace), detailsOf(facts)};
    }
    if (facts.accessError != 0) {
        return notAllowed(id, name, facts, otherPlace);
    }
    if (std::optional<Finding> scarce =
            judgeSpace(id, facts, fmt::format("{}, or {}", makeRoom, otherPlace))) {
        return *scarce;
    }
    return {Level::ok, id,
            fmt::format("{} '{}'{}: {}, {} free", name, facts.path.string(),
                        facts.exists ? "" : " (made when the daemon is first used)", describeMountOf(facts),
                        printSize(facts.freeBytes)),
            "", detailsOf(facts)};
}

Findings judgeStore(const DirectoryFacts &facts) {
    static const std::string otherPlace = "choose another store (NIX_STORE_DIR, or --store local?store=…)";
    if (!facts.symlink.empty()) {
        return {{Level::error, "store-directory",
                 fmt::format("'{}' is a symlink, which no part of the store's path '{}' may be",
                             facts.symlink.string(), facts.path.string()),
                 "mount the store there instead (mount --bind), or " + otherPlace, detailsOf(facts)}};
    }
    Findings findings{judgeDirectory("store-directory", "the store", facts, otherPlace,
                                     "make room (nix-collect-garbage removes what no root needs)")};
    if (facts.mount.noexec) {
        std::string remount =
            facts.mount.mountPoint.empty()
                ? "mount its file system without noexec"
                : fmt::format("mount it without noexec (mount -o remount,exec '{}')", facts.mount.mountPoint);
        findings.push_back({Level::error, "store-noexec",
                            fmt::format("no program in the store '{}' can be executed: it is on {}",
                                        facts.path.string(), print(facts.mount)),
                            fmt::format("{}, or {}", remount, otherPlace), detailsOf(facts)});
    }
    return findings;
}

Findings judgeState(const DirectoryFacts &facts, const std::string &schema, bool useWal) {
    Findings findings{judgeDirectory("state-directory", "the state directory", facts,
                                     "choose another (NIX_STATE_DIR, or --store local?state=…)")};
    static const std::set<std::string> remote{"nfs",   "nfs4", "cifs", "smb3",
                                              "smbfs", "9p",   "afs",  "fuse.sshfs"};
    if (useWal && remote.contains(facts.mount.fileSystem)) {
        findings.push_back(
            {Level::limit, "state-remote",
             fmt::format("the database is on {}, where several machines must not use it at once",
                         describeMountOf(facts)),
             "set 'use-sqlite-wal = false', or keep the state directory on a local disk", detailsOf(facts)});
    }
    std::string number = schema.substr(0, schema.find('\n'));
    if (!number.empty() && number != std::to_string(StoreDatabase::schemaVersion)) {
        findings.push_back({Level::error,
                            "database-schema",
                            fmt::format("the store's database has schema '{}'; Firn knows {} only", number,
                                        StoreDatabase::schemaVersion),
                            "let stock Nix (2.8 or later) bring an older one up to date; a newer one needs a "
                            "newer Firn",
                            {{"schema", number}}});
    }
    return findings;
}

Finding judgeSocket(const SocketFacts &facts) {
    std::string path = facts.path.string();
    std::map<std::string, std::string> details{{"path", path}};
    switch (facts.state) {
    case SocketFacts::State::absent:
        if (facts.directory.accessError != 0 || !facts.directory.isDirectory) {
            Finding finding = judgeDirectory("socket", "the socket's directory", facts.directory,
                                             "choose another path (NIX_DAEMON_SOCKET_PATH, or --socket)");
            return finding;
        }
        return {Level::ok, "socket", fmt::format("nobody listens on '{}' yet", path), "", details};
    case SocketFacts::State::stale:
        return {Level::ok, "socket",
                fmt::format("'{}' is left from a daemon that ended; the next one replaces it", path), "",
                details};
    case SocketFacts::State::notSocket:
        return {Level::error, "socket", fmt::format("'{}' is in the way: it is no socket", path),
                "remove it, or choose another path (NIX_DAEMON_SOCKET_PATH, or --socket)", details};
    case SocketFacts::State::unreachable:
        return {Level::note, "socket",
                fmt::format("cannot tell whether a daemon listens on '{}': {}", path, strerror(facts.error)),
                "root can", details};
    case SocketFacts::State::answered:
        break;
    }
    std::string who = facts.program.empty() ? "an unknown program" : "'" + facts.program + "'";
    if (facts.pid > 0) {
        who += fmt::format(" (process {})", facts.pid);
        details["pid"] = std::to_string(facts.pid);
    }
    details["program"] = facts.program;
    return {Level::note, "socket", fmt::format("a daemon listens on '{}': {}", path, who),
            "stop it before you start another one there (firn may also listen elsewhere: --socket)", details};
}

} // namespace firn::doctor
