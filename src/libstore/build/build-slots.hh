#pragma once

#include <filesystem>
#include <optional>

#include "libutil/file-descriptor.hh"

// Build slots are leases on lock files, `<state>/firn/slots/0`, `1`, …: all connections of one machine
// together run at most as many builds as there are slots. The kernel gives a slot back when its holder dies.

namespace firn {

/// One slot, given back by the destructor.
class SlotLease {
  public:
    unsigned number() const { return number_; }

  private:
    friend class BuildSlots;
    SlotLease(unsigned number, UniqueFd lock) : number_(number), lock_(std::move(lock)) {}

    unsigned number_;
    UniqueFd lock_;
};

class BuildSlots {
  public:
    /// `count`: how many there are for all processes together, at least 1. Makes the directory if missing.
    BuildSlots(const std::filesystem::path &stateDir, unsigned count);

    /// Never waits: nullopt when all are taken.
    std::optional<SlotLease> tryAcquire();

  private:
    unsigned count_;
    unsigned next_ = 0; ///< where to look first
    UniqueFd directory_;
};

} // namespace firn
