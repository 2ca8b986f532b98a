#pragma once

#include <atomic>
#include <future>
#include <string>

#include "libstore/build/output-tree.hh"

namespace firn {

/// Whether an entry of a store directory looks as if this tree had been put there and nobody had written to
/// it since: the same names, types, targets, sizes and executability, and every regular file with the owner,
/// mode and time that a store gives it. Who writes to a file without meaning to hide it leaves another time
/// at least. No contents are read, no symlink is followed. `tree` is what collectOutput() made of such a one.
/// False as well for what is not there; throws where it cannot be looked at, and where throwIfInterrupted()
/// does.
bool looksUntouched(int dir, const std::string &entry, const OutputTree &tree);

/// The same in a thread of its own, while its owner does something else that changes neither.
class UntouchedLook {
  public:
    /// All must outlive it.
    UntouchedLook(int dir, std::string entry, const OutputTree &tree);
    /// Gives up, where it was not finished.
    ~UntouchedLook();
    UntouchedLook(const UntouchedLook &) = delete;
    UntouchedLook &operator=(const UntouchedLook &) = delete;

    /// Waits for what looksUntouched() says, or throws. Not valid where there was no thread to be had.
    std::shared_future<bool> finish();

  private:
    std::atomic<bool> givenUp_ = false;
    std::shared_future<bool> answer_;
};

} // namespace firn
