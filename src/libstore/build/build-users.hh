#pragma once

// Leases of build users. The users are the members of a group (`build-users-group`); a lease of user UID is
// an flock on `<state>/userpool/UID`, as stock Nix takes it, so daemons of both kinds share one pool. The
// kernel releases it when the process that holds it ends in any way.

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "libutil/file-descriptor.hh"

namespace firn {

/// Kills every process of a user with SIGKILL, by way of a helper that becomes that user. Needs root. Throws
/// Error for root itself or when the helper does not succeed.
void killUserProcesses(const std::string &initProgram, uid_t uid);

/// One leased user. Every process of the user has been killed when the lease was taken and is killed again
/// when it ends, before the lock is released. Should our process die in between, the next lease does it.
class BuildUser {
  public:
    BuildUser(BuildUser &&other) noexcept;
    BuildUser &operator=(BuildUser &&) = delete;
    ~BuildUser();

    uid_t uid() const { return uid_; }
    /// The group of the pool, not the user's own.
    gid_t gid() const { return gid_; }
    /// Groups that the user belongs to beside its primary one, such as kvm.
    const std::vector<gid_t> &groups() const { return groups_; }

    /// Kills again and releases. The destructor does the same but cannot tell of a failure; then the lock is
    /// released all the same, since whoever leases the user next kills first.
    void release();

  private:
    friend class BuildUserPool;
    BuildUser(std::string initProgram, uid_t uid, gid_t gid, std::vector<gid_t> groups, UniqueFd lock);

    std::string initProgram_;
    uid_t uid_;
    gid_t gid_;
    std::vector<gid_t> groups_;
    UniqueFd lock_;
};

class BuildUserPool {
  public:
    /// `initProgram` is firn-sandbox-init. Nothing is read before the first acquire().
    BuildUserPool(std::filesystem::path stateDir, std::string group, std::string initProgram);

    /// The first free user of the group, or nullopt when all are leased. Never waits. Throws
    /// Error(unsupported) when the group does not exist or has no members, saying how to make them, and
    /// SysError when a lock cannot be opened.
    std::optional<BuildUser> acquire();

  private:
    std::optional<BuildUser> tryUser(const std::string &name, gid_t gid);

    std::filesystem::path stateDir_;
    std::string group_;
    std::string initProgram_;
};

} // namespace firn
