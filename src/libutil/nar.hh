#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "libutil/hash.hh"
#include "libutil/stream.hh"

// NAR, Nix's archive format: one file-system object (regular file with an executable bit, directory with
// sorted entries, or symlink), nothing else: no owners, no times. Strings are a 64-bit little-endian length,
// the bytes, zero padding to 8.

namespace firn {

/// Limits for archives from outside. Nix itself stops at a depth of 64 directories since 2.34.7; older
/// archives may be deeper.
struct NarLimits {
    unsigned maxDepth = 1024;      ///< directories inside each other; the parser does not recurse
    size_t maxNameLength = 255;    ///< bytes in an entry's name
    size_t maxTargetLength = 4095; ///< bytes in a symlink's target
};

/// Receives the parts of an archive in order.
class NarVisitor {
  public:
    virtual ~NarVisitor() = default;
    /// The root has the empty name. Entry names were checked: not empty, ".", "..", no '/', no NUL, strictly
    /// ascending.
    virtual void beginDirectory(const std::string &name) = 0;
    virtual void endDirectory() = 0;
    virtual void beginFile(const std::string &name, bool executable, uint64_t size) = 0;
    virtual void fileContents(std::string_view bytes) = 0;
    virtual void endFile() = 0;
    virtual void symlink(const std::string &name, const std::string &target) = 0;
};

/// Reads exactly one archive (no byte past its end is consumed, except what a buffered source holds).
/// Iterative; memory is bounded. Throws ErrorKind::badInput, and whatever source and visitor throw. Only the
/// canonical form is taken: what parses is byte for byte what NarWriter writes for the same calls. (Stock Nix
/// never writes another.) Contents come in blocks of up to 256 KiB.
void parseNar(Source &source, NarVisitor &visitor, const NarLimits &limits = {});

/// Reads exactly one archive, checks its format and keeps nothing. Throws like parseNar().
void discardNar(Source &source);

/// Writes the archive of entry `name` in directory `dir` (AT_FDCWD and a path for a path from outside a
/// build's reach). One pass; no symlink followed; any other file type is ErrorKind::badInput. A file that
/// changes size under it is an error.
void dumpNar(int dir, const std::string &name, Sink &sink);

/// The archive of a single regular file with this content.
void dumpNarOfString(std::string_view content, Sink &sink, bool executable = false);

/// Parts for whoever streams an archive of its own making. Calls must come in the archive's order, entries
/// sorted bytewise: neither is checked. A file of another size than announced is ErrorKind::bug.
class NarWriter {
  public:
    explicit NarWriter(Sink &sink);
    /// Must be called first.
    void begin();
    void beginDirectory();
    void beginEntry(std::string_view name);
    void endEntry();
    void endDirectory();
    /// Then exactly `size` bytes through contents(), then endFile().
    void beginFile(bool executable, uint64_t size);
    void contents(std::string_view bytes);
    void endFile();
    void symlink(std::string_view target);

  private:
    void string(std::string_view text);
    Sink &sink_;
    uint64_t fileSize_ = 0, fileLeft_ = 0;
};

/// Unpacks below `dir` as new entry `name` (which must not exist, nor be a symlink), modes 0444/0555 and 0755
/// for directories less the umask, times left to canonicalisation. openat-relative throughout. On failure
/// what was made so far stays: the caller removes it.
void restoreNar(Source &source, int dir, const std::string &name, const NarLimits &limits = {});

struct HashAndSize {
    Hash hash;
    uint64_t size; ///< bytes of the archive
};
HashAndSize hashNar(int dir, const std::string &name, HashAlgorithm algorithm = HashAlgorithm::sha256);

} // namespace firn
