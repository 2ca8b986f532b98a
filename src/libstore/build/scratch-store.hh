#pragma once

#include <optional>
#include <string>

#include <sys/types.h>

#include "libstore/model/store-path.hh"
#include "libutil/file-descriptor.hh"
#include "libutil/files.hh"
#include "libutil/logging.hh"

namespace firn {

/// A sandbox's own store directory, in which its builder makes the outputs:
/// `<store>/<derivation>.chroot/store`, on the store's file system, so that outputs can be moved out by
/// renaming. Only we can enter `<derivation>.chroot`. Its name starts with the derivation's hash part: a
/// collection by stock Nix leaves it alone as long as the derivation is a temporary root. Removed by the
/// destructor. For the holder of the outputs' locks, until it is set aside. `<derivation>.chroot` is locked
/// (flock) meanwhile, so what a killed daemon left behind can be told from what is in use.
class ScratchStore {
  public:
    /// What an earlier build left there is removed first. `group`: the builder's, which may write.
    ScratchStore(int storeDir, const StorePath &drvPath, std::optional<gid_t> group);
    ~ScratchStore();
    ScratchStore(const ScratchStore &) = delete;
    ScratchStore &operator=(const ScratchStore &) = delete;

    int fd() const { return fd_.get(); }

    /// Removes it if nothing is in it; returns whether it is gone.
    bool removeIfEmpty();
    /// Gives it a name under which nobody looks for it: the locks of the outputs need not be held any more,
    /// nor the store be open. Collections are kept off by a temporary root of that name.
    void setAside(const StorePath &name);
    /// A random name to set one aside under.
    static StorePath nameAside();
    /// Removes it now; errors are thrown.
    void remove(Awaited awaited = Awaited::yes);

  private:
    int storeDir_;
    UniqueFd ownStoreDir_; ///< from when it was set aside
    std::string name_;     ///< empty: removed
    UniqueFd lock_;
    UniqueFd fd_;
};

/// Removes the scratch stores in a store directory whose daemon is dead. Stock Nix's directories of that name
/// are left alone, as it does not lock them. What cannot be removed is a warning.
void sweepScratchStores(int storeDir, Logger &logger);

} // namespace firn
