#include "libstore/build/build-slots.hh"

#include <fcntl.h>
#include <unistd.h>

#include "libstore/store/path-locks.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"

namespace firn {

namespace {

UniqueFd openSlot(int directory, unsigned number) {
    std::string name = std::to_string(number);
    UniqueFd fd(openat(directory, name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!fd) {
        throwErrno("opening build slot {}", name);
    }
    return fd;
}

} // namespace

BuildSlots::BuildSlots(const std::filesystem::path &stateDir, unsigned count) : count_(std::max(count, 1u)) {
    std::filesystem::path path = stateDir / "firn" / "slots";
    makeDirectories(path);
    directory_ = openDirectory(path);
    // Processes that start together should not all fight for the first slot.
    next_ = static_cast<unsigned>(getpid()) % count_;
}

std::optional<SlotLease> BuildSlots::tryAcquire() {
    for (unsigned i = 0; i < count_; i++) {
        unsigned number = (next_ + i) % count_;
        UniqueFd fd = openSlot(directory_.get(), number);
        if (lockFile(fd.get(), LockMode::exclusive, /*wait=*/false)) {
            next_ = number;
            return SlotLease(number, std::move(fd));
        }
    }
    return std::nullopt;
}

} // namespace firn
