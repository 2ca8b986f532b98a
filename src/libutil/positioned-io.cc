#include "libutil/positioned-io.hh"

#include <cerrno>

#include <unistd.h>

#include "libutil/error.hh"

namespace firn {

void readFullAt(int fd, uint64_t offset, char *buffer, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t count = pread(fd, buffer + done, size - done, static_cast<off_t>(offset + done));
        if (count == 0) {
            throw Error(ErrorKind::failure, "the file became shorter than {} bytes while it was read",
                        offset + size);
        }
        if (count > 0) {
            done += static_cast<size_t>(count);
        } else if (errno != EINTR) {
            throwErrno("reading {} bytes at {}", size - done, offset + done);
        }
    }
}

void writeFullAt(int fd, uint64_t offset, std::string_view bytes) {
    while (!bytes.empty()) {
        ssize_t count = pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
        if (count >= 0) {
            bytes.remove_prefix(static_cast<size_t>(count));
            offset += static_cast<uint64_t>(count);
        } else if (errno != EINTR) {
            throwErrno("writing {} bytes at {}", bytes.size(), offset);
        }
    }
}

} // namespace firn
