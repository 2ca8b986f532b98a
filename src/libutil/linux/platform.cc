#include "libutil/platform.hh"

#include <charconv>
#include <cstdio>
#include <string_view>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libutil/error.hh"
#include "libutil/file-descriptor.hh"
#include "libutil/files.hh"
#include "libutil/mount-id.hh"

namespace firn {

Pipe makePipe() {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) {
        throwErrno("making a pipe");
    }
    return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

void syncFd(int fd) {
    while (fsync(fd) != 0) {
        if (errno != EINTR) {
            throwErrno("flushing a file to disk");
        }
    }
}

void adviseSequential(int fd, uint64_t size) {
    static constexpr uint64_t worthACall = 512 * 1024; // below, the kernel's own read-ahead has it all
    if (size >= worthACall) {
        posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    }
}

bool allocateFile(int fd, uint64_t size) {
    return posix_fallocate(fd, 0, static_cast<off_t>(size)) == 0 &&
           ftruncate(fd, static_cast<off_t>(size)) == 0;
}

std::optional<pid_t> parentProcess(pid_t pid) {
    UniqueFd fd(open(fmt::format("/proc/{}/stat", pid).c_str(), O_RDONLY | O_CLOEXEC));
    char text[1024];
    ssize_t size = fd ? read(fd.get(), text, sizeof text) : 0;
    if (size <= 0) {
        return std::nullopt;
    }
    // "pid (name) state parent …": the name may hold anything.
    std::string_view line(text, static_cast<size_t>(size));
    size_t afterName = line.rfind(')');
    pid_t parent = 0;
    if (afterName == line.npos || afterName + 4 > line.size()) {
        return std::nullopt;
    }
    std::from_chars(line.data() + afterName + 4, line.data() + line.size(), parent);
    return parent > 0 ? std::optional<pid_t>(parent) : std::nullopt;
}

UniqueFd makeUnixSocket() {
    UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!fd) {
        throwErrno("creating a socket");
    }
    return fd;
}

UniqueFd openWorkingDirectory() {
    return UniqueFd(open(".", O_PATH | O_DIRECTORY | O_CLOEXEC));
}

bool isMountRoot(int fd) {
    struct statx st;
    if (statx(fd, "", AT_EMPTY_PATH, 0, &st) != 0) {
        return false; // forbidden by an old container's filter
    }
    return st.stx_attributes & st.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT;
}

std::optional<uint64_t> mountId(int fd) {
    struct statx st;
    // From Linux 5.8 on, and not where an old container's filter forbids the call.
    if (statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &st) != 0 || !(st.stx_mask & STATX_MNT_ID)) {
        return std::nullopt;
    }
    return st.stx_mnt_id;
}

bool changeOwnerAt(int dir, const std::string &name, uid_t from, uid_t uid, gid_t gid, struct stat &st) {
    UniqueFd fd(openat(dir, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!fd && errno == ENOENT) {
        return false;
    }
    if (!fd || fstat(fd.get(), &st) != 0) {
        throwErrno("looking at '{}'", escapeForDisplay(name));
    }
    if (st.st_uid == from && fchownat(fd.get(), "", uid, gid, AT_EMPTY_PATH) != 0) {
        throwErrno("changing the owner of '{}'", escapeForDisplay(name));
    }
    return true;
}

struct timespec modificationTime(const struct stat &st) {
    return st.st_mtim;
}

bool exchangeEntries(int dirA, const std::string &nameA, int dirB, const std::string &nameB) {
    if (renameat2(dirA, nameA.c_str(), dirB, nameB.c_str(), RENAME_EXCHANGE) == 0) {
        return true;
    }
    if (errno == EINVAL || errno == ENOSYS) {
        return false;
    }
    throwErrno("exchanging '{}' and '{}'", escapeForDisplay(nameA), escapeForDisplay(nameB));
}

int renameToFreeName(int fromDir, const std::string &from, int toDir, const std::string &to) {
    if (renameat2(fromDir, from.c_str(), toDir, to.c_str(), RENAME_NOREPLACE) == 0) {
        return 0;
    }
    return errno == ENOSYS ? EINVAL : errno;
}

} // namespace firn
