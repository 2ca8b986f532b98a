#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "libstore/darwin/macho-page-hashes.hh"

struct evp_md_ctx_st;

namespace firn {

/// Digests of pieces of one file, of one of the hash types of code signatures (1 to 4).
class MachoDigest {
  public:
    /// Throws std::runtime_error where OpenSSL does not offer this digest.
    MachoDigest(const MachoBytes &file, uint8_t hashType);
    ~MachoDigest();
    MachoDigest(const MachoDigest &) = delete;
    MachoDigest &operator=(const MachoDigest &) = delete;

    /// Promises that everything up to this place is going to be asked for, in order: it may be read at once.
    void readAhead(uint64_t end) { aheadEnd_ = end; }

    /// Of a range that lies in the file; as long as a slot of this type. Good until the next call.
    std::string_view of(const ByteRange &range);

  private:
    std::string_view piece(uint64_t offset, uint64_t size);

    const MachoBytes &file_;
    size_t size_;
    evp_md_ctx_st *context_;
    std::unique_ptr<char[]> buffer_;
    uint64_t capacity_ = 0;
    ByteRange buffered_;
    uint64_t aheadEnd_ = 0;
    unsigned char digest_[64];
};

} // namespace firn
