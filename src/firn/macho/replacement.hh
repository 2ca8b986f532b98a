#pragma once

#include <string>
#include <string_view>

#include <sys/stat.h>

#include "firn/macho/file-bytes.hh"
#include "libutil/file-descriptor.hh"

// Changing what lies in a directory of the user's. No byte of an existing inode is written: a changed file is
// a new one, complete before it takes the old one's name.

namespace firn {

/// A directory that is open for changes: while this lives it is writable for its owner (trees copied from a
/// store are not), then it has its mode and its times again.
class ChangingDirectory {
  public:
    enum class Keep { everything, nothing };
    /// `self` must stay open. `nothing`: a directory that was not named to be worked on, only something in
    /// it; it is left as it is.
    ChangingDirectory(int self, Keep keep);
    ~ChangingDirectory();
    ChangingDirectory(const ChangingDirectory &) = delete;
    ChangingDirectory &operator=(const ChangingDirectory &) = delete;

  private:
    int self_;
    Keep keep_;
    struct stat st_ {};
};

/// A copy of a file that is to take its place. If it is not committed it vanishes.
class Replacement {
  public:
    /// Copies `old`, entry `name` of `dir`, sharing its data where the file system can. `dir` must stay open
    /// and writable, `old` must outlive this.
    Replacement(int dir, std::string name, const OpenFile &old);
    ~Replacement();
    Replacement(const Replacement &) = delete;
    Replacement &operator=(const Replacement &) = delete;

    void writeAt(std::string_view bytes, uint64_t offset);
    /// Its bytes now.
    FileBytes bytes() const { return {fd_.get(), old_.size()}; }
    /// Gives it owner, mode and times of the old file, and its name. Throws Error(failure) if that is another
    /// file by now, or was changed.
    void commit();

  private:
    void copy();
    void takeOver();

    int dir_;
    std::string name_;
    const OpenFile &old_;
    std::string temporary_; ///< empty once committed
    UniqueFd fd_;
};

/// Puts a symlink with the times of the old one and another target in its place. `dir` must be writable.
void replaceSymlink(int dir, const std::string &name, const std::string &target);

/// A name that no entry of `dir` has.
std::string unusedName(int dir);

} // namespace firn
