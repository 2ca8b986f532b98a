#pragma once

#include <vector>

#include <sys/types.h>

#include "sandbox-init/description.hh"

namespace firn::sandbox {

/// The inputs that can be bound from one clone of the directory they all lie in. It has the flags that each
/// of them needs, and what is cloned from it takes them over: so no input has its flags set by itself, and
/// each is looked up in an open directory.
///
/// The clone is attached in the sandbox's mount namespace while the inputs are mounted, and nobody else is in
/// there then: it is gone with all that it shows before anything else is mounted.
///
/// Only directories and regular files that lie in the directory's own mount are mounted that way, and only as
/// far as the builder's user can look them up. The others (symlinks, mount points, what does not exist) are
/// left to openSource(), and so are all where there are few, or where the kernel cannot do this.
class InputDirectory {
  public:
    /// Clones the directory and looks the inputs up. With the daemon's rights in its mount namespace if it
    /// has any, else in the sandbox's. May clear the death signal (PR_SET_PDEATHSIG) and "dumpable".
    void open(const Description &description);

    /// Whether the operation's source is to be bound from the clone.
    bool has(size_t op) const { return op < modes_.size() && modes_[op] != 0; }
    mode_t mode(size_t op) const { return modes_[op]; }
    /// Some input was bound, and leave() was not called since.
    bool isAttached() const { return attached_; }

    /// Binds an input that it has to its mount point, which exists.
    void bind(int root, const SetupOp &op);

    /// After the last input, and while the host's root is still there: nothing of it stays in ours. Our
    /// working directory is `root`. May be called again.
    void leave(int root, const Description &description);

  private:
    void lookUp(int directory, const Description &description);
    void attach(int root);

    std::vector<mode_t> modes_; ///< for each operation; 0: not to be bound from here
    int clone_ = -1;            ///< none: nothing is to be bound from here
    bool attached_ = false;
};

} // namespace firn::sandbox
