#include "libutil/directory-stack.hh"

#include <fcntl.h>

#include "libutil/error.hh"

namespace firn {

void DirectoryStack::enter(const std::string &name) {
    Level level{name, {}, openDirectoryAt(current(), name)};
    if (fstat(level.fd.get(), &level.st) != 0) {
        throwErrno("looking at directory {}", describe(name));
    }
    levels_.push_back(std::move(level));
    if (levels_.size() > maxOpen_) {
        levels_[levels_.size() - 1 - maxOpen_].fd.reset();
    }
}

std::string DirectoryStack::leave() {
    if (levels_.empty()) {
        throw Error(ErrorKind::bug, "a directory is left that was not entered");
    }
    if (levels_.size() > 1 && !levels_[levels_.size() - 2].fd) {
        reopenParent();
    }
    std::string name = std::move(levels_.back().name);
    levels_.pop_back();
    return name;
}

void DirectoryStack::reopenParent() {
    Level &parent = levels_[levels_.size() - 2];
    UniqueFd fd(openat(current(), "..", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    struct stat st;
    if (!fd || fstat(fd.get(), &st) != 0) {
        throwErrno("going back up from directory {}", describe());
    }
    if (st.st_dev != parent.st.st_dev || st.st_ino != parent.st.st_ino) {
        throw Error(ErrorKind::refused, "directory {} was moved elsewhere while it was worked in",
                    describe());
    }
    parent.fd = std::move(fd);
}

std::string DirectoryStack::describe(const std::string &name) const {
    static constexpr size_t enough = 512;
    std::string path = name;
    for (size_t i = levels_.size(); i-- > 0 && path.size() < enough;) {
        path = path.empty() ? levels_[i].name : levels_[i].name + "/" + path;
        if (i > 0 && path.size() >= enough) {
            path = "…/" + path;
        }
    }
    return quoteForDisplay(path);
}

} // namespace firn
