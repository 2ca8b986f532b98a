#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include <sys/types.h>

#include "libutil/file-descriptor.hh"

// Build slots are leases on lock files, `<state>/firn/slots/0`, `1`, …: all connections of one machine
// together run at most as many builds as there are slots. The kernel gives a slot back when its holder dies.
//
// A build may be a client itself (it runs nix-build, say). It waits for what it asked for, and would do so
// for ever if that waited for a slot in turn; so what it asks for runs on its slot. For that, every slot
// comes with another one, `0.inner`, which only clients inside the build on slot `0` may take: one build of
// theirs at a time is sure to get on, further ones need slots like everybody's. Inside that build it is
// `0.inner.inner`, and so on.
//
// A client is inside a build if it descends from the build's first process, whose number is in the slot's
// file.

namespace firn {

/// One slot, given back by the destructor.
class SlotLease {
  public:
    const std::string &name() const { return name_; }

    /// Tells which process all processes of the build descend from.
    void setBuilder(pid_t pid) const;

  private:
    friend class BuildSlots;
    SlotLease(std::string name, UniqueFd lock) : name_(std::move(name)), lock_(std::move(lock)) {}

    std::string name_;
    UniqueFd lock_;
};

class BuildSlots {
  public:
    /// `count`: how many there are for all processes together, at least 1. Makes the directory if missing.
    BuildSlots(const std::filesystem::path &stateDir, unsigned count);

    /// From now on slots are taken for this process, which may be inside a build. −1: nobody known.
    void setClient(pid_t client);

    /// Never waits: nullopt when all are taken.
    std::optional<SlotLease> tryAcquire();

  private:
    std::optional<SlotLease> tryAcquire(const std::string &name);

    std::optional<std::string> parent_; ///< slot of the build in which the client is
    unsigned count_;
    unsigned next_ = 0; ///< where to look first
    UniqueFd directory_;
};

} // namespace firn
