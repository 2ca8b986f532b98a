#include "libutil/file-descriptor.hh"

#include <cerrno>

#include <unistd.h>

#include "libutil/error.hh"

namespace firn {

void UniqueFd::reset(int fd) {
    int old = std::exchange(fd_, fd);
    if (old >= 0) {
        ::close(old); // also after EINTR the descriptor is gone: trying again could close a stranger's
    }
}

void UniqueFd::close() {
    int old = std::exchange(fd_, -1);
    if (old >= 0 && ::close(old) != 0 && errno != EINTR) {
        throwErrno("closing a file");
    }
}

} // namespace firn
