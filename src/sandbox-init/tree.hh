#pragma once

#include <optional>
#include <string>

#include <sys/types.h>

#include "sandbox-init/description.hh"
#include "sandbox-init/fail.hh"

namespace firn::sandbox {

/// Which file something is, whatever its name.
struct FileIdentity {
    dev_t device = 0;
    ino_t number = 0;
    bool operator==(const FileIdentity &) const = default;
};

/// Of an open file. Fails the set-up when that cannot be asked.
FileIdentity identityOf(int fd, Step step, std::string_view name);

/// Where the operations' targets are. There are two kinds.
///
/// A root of our own holds what our own operations have made in it. Targets are looked up inside that root
/// alone, whatever symlinks a sandbox path brought along, and made where they are missing.
///
/// The host's tree (builds without a sandbox) is full of directories that others may change. Nothing is made
/// in it. What is mounted goes onto a directory that exists and was reached through no symlink; for the
/// build's working directory it is known to be the one that the daemon has open before anything is attached.
/// Files are made only in a mount that was attached just before.
class Tree {
  public:
    Tree(int root, const Description &description);

    int root() const { return root_; }
    bool isHosts() const { return hosts_; }

    struct Place {
        int parent;
        const char *name; ///< points into the operation's target
    };
    /// The open parent of a target that is made, or made anew. It stays open, since most operations come in
    /// runs (devices, store paths).
    Place placeOf(const SetupOp &op, Step step);

    /// A target that something is mounted on: a directory or (by its mode) another file. Made where it is
    /// missing, in a root of our own.
    void makeMountPoint(const SetupOp &op, mode_t mode);

    /// The same for one of many: those that are regular files are all links to one, since to make and remove
    /// a file costs a file system on a disk far more than a link. Once something is mounted on each, all that
    /// is seen of them is their inode number in the listing of their directory. That one has a name besides
    /// until removeSharedFile().
    void makeSharedMountPoint(const SetupOp &op, mode_t mode);
    void removeSharedFile();

    /// Attaches a detached mount to the target and closes it. Its late flags are as OpenSource has them.
    void attach(const SetupOp &op, int mount, unsigned long lateFlags = 0);

    /// Attaches a new file system that the next operations make files in.
    void attachNew(const SetupOp &op, int mount);

    /// In the host's tree, for calls that take a path: makes the target our working directory. The caller
    /// goes back to root().
    void changeToExisting(const SetupOp &op);

    /// After a mount: the open parent may now lie underneath it.
    void forgetParentBelow(const std::string &target);

    /// What the build's working directory must be; none where only our own operations could have made it.
    const std::optional<FileIdentity> &workingDirectory() const { return identity_; }

  private:
    int openInside(const std::string &path, Step step);
    int openExisting(const SetupOp &op, Step step);
    void forgetParent();

    int root_;
    bool hosts_;
    std::string workingPath_;
    std::optional<FileIdentity> identity_;
    int parentFd_ = -1;
    std::string parentPath_;
    int sharedIn_ = -1; ///< the directory with the shared file's own name
};

} // namespace firn::sandbox
