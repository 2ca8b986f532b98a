#include "libstore/build/build-slots.hh"

#include <charconv>
#include <map>

#include <fcntl.h>
#include <unistd.h>

#include "libstore/store/path-locks.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/platform.hh"

namespace firn {

namespace {

/// More than any chain of processes is long; a chain that changes while it is followed may be a circle.
constexpr int mostAncestors = 1000;

UniqueFd openSlot(int directory, const std::string &name) {
    UniqueFd fd(openat(directory, name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!fd) {
        throwErrno("opening build slot {}", name);
    }
    return fd;
}

/// The process that the holder of a slot has named; nullopt if nobody holds it, or has named none yet.
std::optional<pid_t> builderOnSlot(int directory, const std::string &name) {
    UniqueFd fd(openat(directory, name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    char text[16];
    ssize_t size = fd ? pread(fd.get(), text, sizeof text, 0) : 0;
    pid_t pid = 0;
    if (size <= 0 || std::from_chars(text, text + size, pid).ec != std::errc() ||
        lockFile(fd.get(), LockMode::shared, /*wait=*/false)) {
        return std::nullopt;
    }
    return pid;
}

std::map<pid_t, std::string> slotsByBuilder(int directory) {
    std::map<pid_t, std::string> slots;
    for (const std::string &name : listDirectory(directory)) {
        if (std::optional<pid_t> builder = builderOnSlot(directory, name)) {
            slots.emplace(*builder, name);
        }
    }
    return slots;
}

} // namespace

void SlotLease::setBuilder(pid_t pid) const {
    std::string text = std::to_string(pid);
    if (pwrite(lock_.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) {
        throwErrno("noting the builder in build slot {}", name_);
    }
}

BuildSlots::BuildSlots(const std::filesystem::path &stateDir, unsigned count) : count_(std::max(count, 1u)) {
    std::filesystem::path path = stateDir / "firn" / "slots";
    makeDirectories(path);
    directory_ = openDirectory(path);
    // Processes that start together should not all fight for the first slot.
    next_ = static_cast<unsigned>(getpid()) % count_;
}

void BuildSlots::setClient(pid_t client) {
    std::map<pid_t, std::string> slots = slotsByBuilder(directory_.get());
    parent_.reset();
    std::optional<pid_t> process(client);
    // The innermost build is met first.
    for (int i = 0; i < mostAncestors && !slots.empty() && process && *process > 1 && !parent_; ++i) {
        if (auto found = slots.find(*process); found != slots.end()) {
            parent_ = found->second;
        }
        process = parentProcess(*process);
    }
}

std::optional<SlotLease> BuildSlots::tryAcquire(const std::string &name) {
    UniqueFd fd = openSlot(directory_.get(), name);
    if (!lockFile(fd.get(), LockMode::exclusive, /*wait=*/false)) {
        return std::nullopt;
    }
    if (ftruncate(fd.get(), 0) != 0) { // whoever held it before named another process
        throwErrno("taking build slot {}", name);
    }
    return SlotLease(name, std::move(fd));
}

std::optional<SlotLease> BuildSlots::tryAcquire() {
    if (parent_) {
        if (std::optional<SlotLease> lease = tryAcquire(*parent_ + ".inner")) {
            return lease;
        }
    }
    for (unsigned i = 0; i < count_; i++) {
        unsigned number = (next_ + i) % count_;
        if (std::optional<SlotLease> lease = tryAcquire(std::to_string(number))) {
            next_ = number;
            return lease;
        }
    }
    return std::nullopt;
}

} // namespace firn
