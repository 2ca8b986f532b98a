#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include <sys/types.h>

#include "libstore/store/settings.hh"
#include "libutil/file-descriptor.hh"

// Where builds have their temporary directory. All lie in one directory of our own, `<base>/firn-<uid>` (or
// `firn-<uid>-<random>` where somebody else has that name), which no other user can enter: a build may open
// its own directory's permissions, or plant setuid programs in it, and nobody is the worse for it. The names
// in it are short, `<pid>-<N>`, as paths of Unix sockets may have 104 bytes (108 on Linux). Each build's
// directory is locked (flock) as long as its daemon lives, so what a killed daemon left behind can be told
// from what is in use, and is swept by the next one.

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

    /// Makes what an overlay needs in it, the directories lower, upper and work; the build's files are those
    /// in upper from here on. For builds as ourselves.
    void makeOverlay();
    /// Where the build's own files are: the directory itself, or the overlay's upper.
    int contentsFd() const { return upper_ ? upper_.get() : fd_.get(); }

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
    UniqueFd upper_; ///< of an overlay
};

/// The directory in which build directories are made, and what it was that said so.
struct BuildDirectoryBase {
    std::filesystem::path path;
    std::string origin; ///< "build-dir", "TMPDIR", or "" for the default
};

class BuildDirectories {
  public:
    enum class Sweep { yes, no };

    /// Opens, or makes, the common directory (mode 0700) and sweeps it. Refuses a base directory in which
    /// others could replace what is ours.
    explicit BuildDirectories(const std::filesystem::path &base, Sweep sweep = Sweep::yes);
    ~BuildDirectories();

    /// Lets a group, that of the build users, reach their directories by path (mode 0710): for builds
    /// without a sandbox. Never undone, since other processes have their builds there too.
    void openTo(gid_t builders);
    BuildDirectories(const BuildDirectories &) = delete;
    BuildDirectories &operator=(const BuildDirectories &) = delete;

    BuildDirectory make();

    /// Removes what dead daemons left in the common directory in `base`, if there is one.
    static void sweepLeftovers(const std::filesystem::path &base);

    /// The setting build-dir, else the daemon's TMPDIR, else `<state>/builds`.
    static BuildDirectoryBase findBase(const Locations &locations, const Settings &settings);
    static std::filesystem::path chooseBase(const Locations &locations, const Settings &settings);
    /// `<state>/builds`.
    static std::filesystem::path defaultBase(const Locations &locations);

    int fd() const { return own_.get(); }
    /// Canonical.
    const std::filesystem::path &base() const { return basePath_; }

  private:
    friend class BuildDirectory;
    void openOwn();
    static void sweep(int own);
    static void sweepAndRemove(int base, const std::string &name);
    static UniqueFd openLocked(int own, const std::string &name);
    std::string moveToBase(int from, const std::string &name, const std::string &wanted);

    std::filesystem::path basePath_;
    UniqueFd base_;
    std::string name_; ///< of the common directory in base
    UniqueFd own_;
    std::optional<gid_t> builders_;
    uint64_t count_ = 0; // of directories made, for their names
};

} // namespace firn
