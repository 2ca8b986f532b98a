#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "libstore/build/macho-jail-protocol.hh"
#include "libstore/build/patch.hh"
#include "libstore/build/reference-scanner.hh"
#include "libstore/darwin/macho-page-hashes.hh"

// A file as it is and as it will be, side by side, without writing it.

namespace firn::jail {

/// An open file, which nobody changes meanwhile. The descriptor stays the caller's. Keeps what was read last
/// in small pieces: what a parser asks for lies close together, and is asked for of the file before and after
/// a change. One thread.
class FileBytes : public MachoBytes {
  public:
    FileBytes(int fd, uint64_t size) : fd_(fd), size_(size) {}
    uint64_t size() const override { return size_; }
    /// Throws where the file cannot be read or is shorter than was said.
    void read(uint64_t offset, char *buffer, size_t size) const override;

    static constexpr size_t blockSize = 4096; ///< as most pages that are hashed; what is larger is not kept

  private:
    static constexpr size_t blocks = 16;

    const char *block(uint64_t index) const;

    int fd_;
    uint64_t size_;
    mutable std::unique_ptr<char[]> kept_;           ///< room for all blocks
    mutable std::array<uint64_t, blocks> numbers_{}; ///< of the blocks that are kept, from 1 on; 0: none
};

/// Bytes with patches laid over them. Both must outlive it.
class PatchedBytes : public MachoBytes {
  public:
    PatchedBytes(const MachoBytes &base, const std::vector<Patch> &patches)
        : base_(base), patches_(patches) {}
    uint64_t size() const override { return base_.size(); }
    void read(uint64_t offset, char *buffer, size_t size) const override;

  private:
    const MachoBytes &base_;
    const std::vector<Patch> &patches_;
};

/// Bytes in which every occurrence of some hash parts is replaced: of two that overlap the first counts, as
/// when the file is written. Whether one counts may depend on any number before it, so the bytes are read
/// once at the beginning, and for each block of them it is kept how far the last occurrence before it reaches
/// into it: one byte per block. `base` must outlive it. One thread.
class RewrittenBytes : public MachoBytes {
  public:
    RewrittenBytes(const MachoBytes &base, const std::vector<RewriteRule> &rules);
    uint64_t size() const override { return base_.size(); }
    void read(uint64_t offset, char *buffer, size_t size) const override;

    static constexpr size_t blockSize = 64 * 1024;

  private:
    /// Makes block `index` in the buffer; returns how far its last occurrence reaches into the next one.
    uint8_t load(uint64_t index) const;
    void replace(const PartHit &hit, uint64_t begin, size_t size) const;

    const MachoBytes &base_;
    HashPartSet parts_;
    std::vector<std::string> replacements_; ///< by number of the part
    std::vector<uint8_t> reach_;            ///< by number of the block
    mutable std::vector<char> window_;      ///< as it is, with margins
    mutable std::vector<char> block_;       ///< as it will be
    mutable uint64_t loaded_ = UINT64_MAX;  ///< number of the block in the buffer
};

} // namespace firn::jail
