#include "firn/macho/file-bytes.hh"

#include <algorithm>

#include <fcntl.h>
#include <unistd.h>

#include "libutil/error.hh"
#include "libutil/interrupt.hh"
#include "libutil/platform.hh"
#include "libutil/positioned-io.hh"

namespace firn {

void FileBytes::read(uint64_t offset, char *buffer, size_t size) const {
    throwIfInterrupted();
    readFullAt(fd_, offset, buffer, size);
}

bool OpenFile::canBeMacho() const {
    char head[4];
    size_t size = std::min<uint64_t>(sizeof head, this->size());
    FileBytes(fd.get(), size).read(0, head, size);
    return firn::canBeMacho({head, size});
}

void OpenFile::requireUnchanged() const {
    struct stat now;
    if (fstat(fd.get(), &now) != 0) {
        throwErrno("looking at it again");
    }
    timespec before = modificationTime(st), after = modificationTime(now);
    if (now.st_size != st.st_size || before.tv_sec != after.tv_sec || before.tv_nsec != after.tv_nsec) {
        throw Error(ErrorKind::failure, "it was changed while it was read");
    }
}

OpenFile openRegular(int dir, const std::string &name, LinkInPath link) {
    int flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | (link == LinkInPath::refuse ? O_NOFOLLOW : 0);
    struct stat st;
    // Looked at before: opening a device can do something.
    if (fstatat(dir, name.c_str(), &st, link == LinkInPath::refuse ? AT_SYMLINK_NOFOLLOW : 0) != 0) {
        throwErrno("looking at it");
    }
    OpenFile file;
    if (S_ISREG(st.st_mode)) {
        file.fd.reset(openat(dir, name.c_str(), flags));
        if (!file.fd || fstat(file.fd.get(), &file.st) != 0) {
            throwErrno("opening it");
        }
    }
    if (!file.fd || !S_ISREG(file.st.st_mode)) {
        throw Error(ErrorKind::badInput, "it is neither a regular file nor a directory");
    }
    return file;
}

} // namespace firn
