#include "libutil/platform.hh"

#include <cstdio>

#include <fcntl.h>
#include <libproc.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libutil/error.hh"
#include "libutil/file-descriptor.hh"
#include "libutil/files.hh"
#include "libutil/mount-id.hh"

namespace firn {

namespace {

void setCloseOnExec(int fd) {
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
        throwErrno("making a descriptor close on exec");
    }
}

} // namespace

Pipe makePipe() {
    int fds[2];
    if (pipe(fds) != 0) {
        throwErrno("making a pipe");
    }
    Pipe result{UniqueFd(fds[0]), UniqueFd(fds[1])};
    setCloseOnExec(fds[0]);
    setCloseOnExec(fds[1]);
    return result;
}

void syncFd(int fd) {
    // fsync() only hands the data to the drive; not every file system knows the full flush.
    if (fcntl(fd, F_FULLFSYNC) == 0) {
        return;
    }
    while (fsync(fd) != 0) {
        if (errno != EINTR) {
            throwErrno("flushing a file to disk");
        }
    }
}

void adviseSequential(int fd, uint64_t size) {
    if (size > 0) {
        fcntl(fd, F_RDAHEAD, 1);
    }
}

bool allocateFile(int fd, uint64_t size) {
    fstore_t wanted = {F_ALLOCATEALL, F_PEOFPOSMODE, 0, static_cast<off_t>(size), 0};
    return fcntl(fd, F_PREALLOCATE, &wanted) == 0 && ftruncate(fd, static_cast<off_t>(size)) == 0;
}

std::optional<pid_t> parentProcess(pid_t pid) {
    proc_bsdinfo info;
    if (proc_pidinfo(pid, PROC_PIDTBSDINFO, 0, &info, sizeof info) != static_cast<int>(sizeof info) ||
        info.pbi_ppid == 0) {
        return std::nullopt;
    }
    return static_cast<pid_t>(info.pbi_ppid);
}

UniqueFd makeUnixSocket() {
    UniqueFd fd(socket(AF_UNIX, SOCK_STREAM, 0));
    if (!fd) {
        throwErrno("creating a socket");
    }
    setCloseOnExec(fd.get());
    return fd;
}

UniqueFd openWorkingDirectory() {
    return UniqueFd(open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

bool isMountRoot(int) {
    return false; // no bind mounts here: st_dev tells mounts apart
}

std::optional<uint64_t> mountId(int) {
    return std::nullopt;
}

bool changeOwnerAt(int dir, const std::string &name, uid_t from, uid_t uid, gid_t gid, struct stat &st) {
    UniqueFd fd(openat(dir, name.c_str(), O_RDONLY | O_SYMLINK | O_NONBLOCK | O_CLOEXEC));
    if (!fd && errno == ENOENT) {
        return false;
    }
    // A socket cannot be opened; it is no danger either, having no further names that matter.
    bool byName = !fd && errno == EOPNOTSUPP;
    if (byName ? fstatat(dir, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0
               : !fd || fstat(fd.get(), &st) != 0) {
        throwErrno("looking at '{}'", escapeForDisplay(name));
    }
    if (st.st_uid != from) {
        return true;
    }
    if (byName ? fchownat(dir, name.c_str(), uid, gid, AT_SYMLINK_NOFOLLOW) != 0
               : fchown(fd.get(), uid, gid) != 0) {
        throwErrno("changing the owner of '{}'", escapeForDisplay(name));
    }
    return true;
}

struct timespec modificationTime(const struct stat &st) {
    return st.st_mtimespec;
}

bool exchangeEntries(int dirA, const std::string &nameA, int dirB, const std::string &nameB) {
    if (renameatx_np(dirA, nameA.c_str(), dirB, nameB.c_str(), RENAME_SWAP) == 0) {
        return true;
    }
    if (errno == EINVAL || errno == ENOSYS || errno == ENOTSUP) {
        return false;
    }
    throwErrno("exchanging '{}' and '{}'", escapeForDisplay(nameA), escapeForDisplay(nameB));
}

int renameToFreeName(int fromDir, const std::string &from, int toDir, const std::string &to) {
    if (renameatx_np(fromDir, from.c_str(), toDir, to.c_str(), RENAME_EXCL) == 0) {
        return 0;
    }
    return errno == ENOSYS || errno == ENOTSUP ? EINVAL : errno;
}

} // namespace firn
