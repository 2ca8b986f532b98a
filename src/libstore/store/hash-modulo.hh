#pragma once

#include <functional>
#include <optional>
#include <string>

#include "libutil/hash.hh"

namespace firn {

/// Writes a stream, the same one each time.
using StreamWriter = std::function<void(Sink &)>;

/// Hash of a stream in which a text (the hash part of the stream's own store path) counts as zeros: what
/// content addresses with self-references are made of. The two generations of Nix differ in whether zeros
/// that stand for a self-reference are told from real ones, and refuse each other's addresses. Bounded
/// memory: where the offsets are needed the stream is read once more.
class HashModulo {
  public:
    /// Reads the stream. `mark` is hashed behind the last offset.
    HashModulo(HashAlgorithm algorithm, std::string modulus, StreamWriter stream, std::string_view mark = {});
    /// As Nix 2.34 has it: the stream alone.
    const Hash &zeros() const { return zeros_; }
    /// As Nix 2.8 has it: then "|<offset>" for each occurrence. Reads the stream when first called.
    const Hash &zerosThenOffsets();

  private:
    std::string modulus_;
    StreamWriter stream_;
    std::string mark_;
    HashSink hash_;
    Hash zeros_;
    std::optional<Hash> zerosThenOffsets_;
};

} // namespace firn
