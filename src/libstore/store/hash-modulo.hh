#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "libutil/hash.hh"

namespace firn {

/// What content addresses with self-references are made of. The two generations of Nix differ in whether
/// zeros that stand for a self-reference are told from real ones, and refuse each other's addresses.
struct ModuloHashes {
    Hash zeros;            ///< as Nix 2.34 has it: the stream alone
    Hash zerosThenOffsets; ///< as Nix 2.8 has it: then "|<offset>" for each occurrence
};

/// Hash of a stream in which a text (the hash part of the stream's own store path) counts as zeros. Bounded
/// memory but for eight bytes an occurrence.
class HashModuloSink : public Sink {
  public:
    HashModuloSink(HashAlgorithm algorithm, std::string modulus);
    void write(std::string_view bytes) override;
    /// Ends the stream. `mark` is hashed behind the last offset.
    ModuloHashes finish(std::string_view mark = {});

  private:
    void blankMatches();

    HashSink hash_;
    std::string modulus_, window_;
    uint64_t offset_ = 0; ///< of the window's start in the stream
    std::vector<uint64_t> matches_;
};

} // namespace firn
