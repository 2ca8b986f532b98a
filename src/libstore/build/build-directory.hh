#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <sys/types.h>

#include "libstore/store/settings.hh"
#include "libutil/file-descriptor.hh"

// Where builds have their temporary directory. Each has `<base>/firn-<uid>/<pid>-<N>/b`, made of three parts:
//
// * `firn-<uid>`, common to all processes of ours, which no other user can enter (mode 0700). A build without
//   a sandbox that runs as a build user must find its way by path: it lies in a second common directory,
//   `firn-<uid>-open` (mode 0711), so that those in a sandbox never lie where another user gets to, as long
//   as they build.
// * `<pid>-<N>`, of one build, locked (flock) as long as its daemon lives, so that what a killed daemon left
//   behind can be told from what is in use, and is swept by the next one. It is ours, and as no other user
//   can read it none can open and lock it (mode 0700). In `firn-<uid>-open` one may pass (mode 0711): there
//   it has one more part in it, `o`, which is handed to the build's user (mode 0500).
// * `b`, the build's own. A build may open its permissions to all, on purpose or by an archive with an entry
//   for ".", or plant setuid programs in it: others are stopped by the parts before. (Without a sandbox it
//   can also open `o` to the world, as it can put what it has into /tmp.)
//
// The names are short, as paths of Unix sockets may have 104 bytes (108 on Linux). Where somebody else has
// the name of a common directory it gets another, `<name>-<random>`.

namespace firn {

class BuildDirectories;

/// A directory in the base that build directories are made in, by all processes of ours.
struct CommonDirectory {
    std::string wanted; ///< its name, if nobody else has that
    mode_t mode;
    std::string name = {}; ///< the one that it has
    UniqueFd fd = {};      ///< none as long as nobody needs it
};

/// One build's directory, removed with all it contains by the destructor unless kept. Must not outlive its
/// BuildDirectories.
class BuildDirectory {
  public:
    BuildDirectory(BuildDirectory &&other) noexcept;
    BuildDirectory &operator=(BuildDirectory &&) = delete;
    ~BuildDirectory();

    int fd() const { return own_.get(); }
    const std::filesystem::path &path() const { return path_; }

    /// Makes what an overlay needs in it, the directories lower, upper and work; the build's files are those
    /// in upper from here on. For builds as ourselves.
    void makeOverlay();
    /// Where the build's own files are: the directory itself, or the overlay's upper.
    int contentsFd() const { return upper_ ? upper_.get() : own_.get(); }

    /// Makes a user its owner, and the only one who can reach it by path if it is reachable at all.
    void giveTo(uid_t uid, gid_t gid);

    /// For a directory of a user, no process of whose build is alive: that user reaches it by path from here
    /// on, which is another one.
    void makeReachable(uid_t uid, gid_t gid);

    /// From here on nobody else reaches it by path. No process of the build may be alive.
    void takeBack();

    /// Leaves it to a user, moved to `<base>/nix-build-<name>-<N>` with mode 0700, whatever the build made of
    /// that; returns that path. Only what belonged to `builder` changes hands. No process of the build may be
    /// alive. What is left of the directory, and its lock, are still ours.
    std::filesystem::path keep(const std::string &name, uid_t builder, uid_t uid, gid_t gid);

    /// Removes it now. Errors are thrown, unlike by the destructor.
    void remove();

  private:
    friend class BuildDirectories;
    BuildDirectory(BuildDirectories &all, CommonDirectory &common, std::string name, UniqueFd locked);
    void makeOwn();
    UniqueFd makePart(int dir, const char *part) const;
    int parentOfOwn() const { return gate_ ? gate_.get() : locked_.get(); }

    BuildDirectories *all_; ///< null: moved from or removed
    CommonDirectory *common_;
    std::string name_;           ///< in the common directory
    std::filesystem::path path_; ///< of the build's own
    UniqueFd locked_;            ///< of that name
    UniqueFd gate_;              ///< `o`; none where no other user needs to pass
    UniqueFd own_;
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

    /// Opens, or makes, the common directory and sweeps what is ours in the base, as far as it goes. Refuses
    /// a base directory in which others could replace what is ours: one of another user's, or that others, or
    /// a group which is not our own user's alone, or whom an ACL names, may write, unless it has a sticky
    /// bit. The base is noted for later sweeps if it is said where (see build-bases.hh).
    explicit BuildDirectories(const std::filesystem::path &base, Sweep sweep = Sweep::yes,
                              const Locations *notes = nullptr);
    ~BuildDirectories();
    BuildDirectories(const BuildDirectories &) = delete;
    BuildDirectories &operator=(const BuildDirectories &) = delete;

    /// For a build that gets it as a mount or a descriptor, or runs as ourselves: no other user can reach it.
    BuildDirectory make();
    /// For a build that must reach it by path as another user: the one that it is given to.
    BuildDirectory makeReachable();

    /// Removes what dead daemons left in `base`, if that is there. Refuses what the constructor refuses;
    /// what cannot be removed is an error when all else is swept.
    static void sweepLeftovers(const std::filesystem::path &base);
    /// Whether there is anything of ours in `base`, of builds that go on or were killed.
    static bool hasBuilds(const std::filesystem::path &base);

    /// The setting build-dir, else the daemon's TMPDIR, else `<state>/builds`.
    static BuildDirectoryBase findBase(const Locations &locations, const Settings &settings);
    /// `<state>/builds`.
    static std::filesystem::path defaultBase(const Locations &locations);

    /// Every directory in which builds may have theirs with these settings.
    static std::vector<std::filesystem::path> possibleBases(const Locations &locations,
                                                            const Settings &settings);

    /// The common directory that nobody else can enter.
    int fd() const { return closed_.fd.get(); }
    /// Canonical.
    const std::filesystem::path &base() const { return basePath_; }

  private:
    friend class BuildDirectory;
    void open(CommonDirectory &common) const;
    BuildDirectory makeIn(CommonDirectory &common);
    std::filesystem::path moveToBase(int from, const std::string &name, const std::string &wanted);

    std::filesystem::path basePath_;
    UniqueFd base_, note_;
    CommonDirectory closed_, reachable_;
    uint64_t count_ = 0; // of directories made, for their names
};

} // namespace firn
