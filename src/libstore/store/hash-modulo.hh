#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "libutil/hash.hh"

namespace firn {

/// Hash of a stream in which a text (the hash part of the stream's own store path) counts as zeros. Its
/// occurrences are hashed afterwards, as "|<offset>" each, so that they cannot be confused with real zeros:
/// how content addresses with self-references are defined. Bounded memory but for eight bytes an occurrence.
class HashModuloSink : public Sink {
  public:
    HashModuloSink(HashAlgorithm algorithm, std::string modulus);
    void write(std::string_view bytes) override;
    /// Ends the stream.
    Hash finish();

  private:
    void blankMatches();

    HashSink hash_;
    std::string modulus_, window_;
    uint64_t offset_ = 0; ///< of the window's start in the stream
    std::vector<uint64_t> matches_;
};

} // namespace firn
