#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include <sys/types.h>

#include "libstore/store/settings.hh"
#include "libutil/file-descriptor.hh"

// Where builds have their temporary directory. All lie in one directory of our own, `<base>/firn-<uid>`,
// which no other user can enter: a build may open its own directory's permissions, or plant setuid programs
// in it, and nobody is the worse for it. Each build's directory is locked (flock) as long as its daemon
// lives, so what a killed daemon left behind can be told from what is in use, and is swept by the next one.

namespace firn {

class BuildDirectories;

/// One build's directory, removed with all it contains by the destructor unless kept. Must not outlive its
/// BuildDirectories.
class BuildDirectory {
  public:
    BuildDirectory(BuildDirectory &&other) noexcept;
    BuildDirectory &operator=(BuildDirectory &&) = delete;
    ~BuildDirectory();

    int fd() const { return fd_.get(); }
    const std::filesystem::path &path() const { return path_; }

    /// Makes a user its owner.
    void giveTo(uid_t uid, gid_t gid);

    /// Leaves it to a user, moved to `<base>/nix-build-<name>-<N>`; returns that path. Only what belonged to
    /// `builder` changes hands. No process of the build may be alive.
    std::filesystem::path keep(const std::string &name, uid_t builder, uid_t uid, gid_t gid);

    /// Removes it now. Errors are thrown, unlike by the destructor.
    void remove();

  private:
    friend class BuildDirectories;
    BuildDirectory(BuildDirectories &parent, std::string name, UniqueFd fd);

    BuildDirectories *parent_; ///< null: moved from, kept or removed
    std::string name_;
    std::filesystem::path path_;
    UniqueFd fd_;
};

class BuildDirectories {
  public:
    /// Opens, or makes, the common directory and sweeps it. `builders`: the group of build users, who must be
    /// able to reach their directories by path when they are not sandboxed; nullopt: builds run as ourselves.
    /// Refuses a base directory in which others could replace what is ours.
    BuildDirectories(const std::filesystem::path &base, std::optional<gid_t> builders);
    ~BuildDirectories();
    BuildDirectories(const BuildDirectories &) = delete;
    BuildDirectories &operator=(const BuildDirectories &) = delete;

    BuildDirectory make();

    /// Removes what dead daemons left in the common directory in `base`, if there is one.
    static void sweepLeftovers(const std::filesystem::path &base);

    /// The setting build-dir, else the daemon's TMPDIR, else `<state>/builds`.
    static std::filesystem::path chooseBase(const Locations &locations, const Settings &settings);

  private:
    friend class BuildDirectory;
    void openOwn(std::optional<gid_t> builders);
    static void sweep(int own);
    static UniqueFd openLocked(int own, const std::string &name);
    std::string moveToBase(const std::string &name, const std::string &wanted);

    std::filesystem::path basePath_;
    UniqueFd base_;
    std::string name_; ///< of the common directory in base
    UniqueFd own_;
    std::optional<gid_t> builders_;
    uint64_t count_ = 0;
};

} // namespace firn
