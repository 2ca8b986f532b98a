#pragma once

#include <string>

#include <sys/stat.h>

#include "libstore/darwin/macho-page-hashes.hh"
#include "libutil/file-descriptor.hh"

namespace firn {

/// The bytes of an open regular file. A file that ends early while it is read is an Error(failure), not a
/// signal as it would be with a mapping. Reading stops with Error(interrupted) after requestInterrupt().
class FileBytes : public MachoBytes {
  public:
    /// `fd` stays the caller's; `size` is the file's.
    FileBytes(int fd, uint64_t size) : fd_(fd), size_(size) {}
    uint64_t size() const override { return size_; }
    void read(uint64_t offset, char *buffer, size_t size) const override;

  private:
    int fd_;
    uint64_t size_;
};

/// A regular file that was opened for reading.
struct OpenFile {
    UniqueFd fd;
    struct stat st;

    uint64_t size() const { return static_cast<uint64_t>(st.st_size); }
    /// Whether it begins like a Mach-O file.
    bool canBeMacho() const;
    /// Throws Error(failure) if it was changed since it was opened.
    void requireUnchanged() const;
};

enum class LinkInPath { follow, refuse };

/// Opens a regular file without blocking on what is none. Throws SysError, badInput.
OpenFile openRegular(int dir, const std::string &name, LinkInPath link);

} // namespace firn
