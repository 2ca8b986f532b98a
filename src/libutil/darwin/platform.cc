#include "libutil/platform.hh"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "libutil/error.hh"
#include "libutil/file-descriptor.hh"
#include "libutil/files.hh"

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

UniqueFd makeUnixSocket() {
    UniqueFd fd(socket(AF_UNIX, SOCK_STREAM, 0));
    if (!fd) {
        throwErrno("creating a socket");
    }
    setCloseOnExec(fd.get());
    return fd;
}

bool isMountRoot(int) {
    return false; // no bind mounts here: st_dev tells mounts apart
}

} // namespace firn
