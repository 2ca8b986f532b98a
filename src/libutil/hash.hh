#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "libutil/base-n.hh"
#include "libutil/stream.hh"

namespace firn {

enum class HashAlgorithm { md5, sha1, sha256, sha512 };

/// "md5", "sha1", "sha256", "sha512".
std::string_view hashAlgorithmName(HashAlgorithm algorithm);
std::optional<HashAlgorithm> parseHashAlgorithm(std::string_view name);
size_t hashSize(HashAlgorithm algorithm);

/// A digest with its algorithm. A plain value.
class Hash {
  public:
    /// All zero.
    explicit Hash(HashAlgorithm algorithm) : algorithm_(algorithm) {}
    /// `digest` must have hashSize(algorithm) bytes, else ErrorKind::bug.
    Hash(HashAlgorithm algorithm, std::string_view digest);

    HashAlgorithm algorithm() const { return algorithm_; }
    std::string_view digest() const {
        return {reinterpret_cast<const char *>(digest_.data()), hashSize(algorithm_)};
    }

    /// Digits only, e.g. "1b8m03r63zqh…".
    std::string digits(Encoding encoding) const { return encode(encoding, digest()); }
    /// "sha256:1b8m03…" in the given encoding.
    std::string prefixed(Encoding encoding) const;
    /// "sha256-…=" (base-64).
    std::string sri() const;

    /// Any of: "algo:digits", "algo-base64", or plain digits when `expected` names the algorithm; digits in
    /// base-16, Nix's base-32 or base-64 told apart by length. Throws badInput; also when the algorithm is
    /// not the expected one.
    static Hash parse(std::string_view text, std::optional<HashAlgorithm> expected = std::nullopt);

    bool operator==(const Hash &) const = default;
    std::strong_ordering operator<=>(const Hash &other) const {
        auto order = algorithm_ <=> other.algorithm_;
        return order != 0 ? order : digest() <=> other.digest();
    }

  private:
    HashAlgorithm algorithm_;
    std::array<uint8_t, 64> digest_{};
};

/// Hashes what is written to it (OpenSSL).
class HashSink : public Sink {
  public:
    explicit HashSink(HashAlgorithm algorithm);
    ~HashSink() override;
    HashSink(HashSink &&) noexcept;
    void write(std::string_view bytes) override;
    /// Digest of everything so far; the sink may go on afterwards.
    Hash current() const;
    uint64_t byteCount() const { return count_; }

  private:
    struct Context;
    std::unique_ptr<Context> context_;
    HashAlgorithm algorithm_;
    uint64_t count_ = 0;
};

Hash hashString(HashAlgorithm algorithm, std::string_view bytes);

/// XOR-folds a digest to `size` bytes (byte i goes to i mod size), as store paths are made.
std::string compressDigest(std::string_view digest, size_t size);

} // namespace firn
