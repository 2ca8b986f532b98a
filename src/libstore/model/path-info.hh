#pragma once

#include <cstdint>
#include <ctime>
#include <optional>
#include <set>
#include <string>

#include "libstore/model/content-address.hh"
#include "libstore/model/store-path.hh"

namespace firn {

/// What the store knows of a valid path.
struct PathInfo {
    StorePath path;
    Hash narHash{HashAlgorithm::sha256};
    uint64_t narSize = 0;      ///< bytes; 0: unknown
    StorePathSet references{}; ///< including itself where it refers to itself
    std::optional<StorePath> deriver{};
    time_t registrationTime = 0;        ///< seconds since the epoch
    bool ultimate = false;              ///< built here, or told so by a trusted client
    std::set<std::string> signatures{}; ///< "key name:base-64"
    std::optional<ContentAddress> contentAddress{};

    /// "1;<path>;<nar hash in base-32>;<nar size>;<references, comma separated>": what signatures sign.
    /// Throws badInput where the size is unknown.
    std::string fingerprint(const StoreDir &store) const;
    /// Whether the content address, with the references, gives this very path.
    bool isContentAddressed(const StoreDir &store) const;
};

/// An Ed25519 key as in Nix's key files: "name:base-64". Public: 32 bytes; secret: 64 (seed and public key).
/// parse() drops blanks at the end (key files end with a newline) and throws badInput, never quoting the key.
class PublicKey {
  public:
    static PublicKey parse(std::string_view text);
    const std::string &name() const { return name_; }
    /// Whether `signature` ("name:base-64") is by this key over `message`. False for other names and
    /// malformed ones.
    bool verify(std::string_view message, std::string_view signature) const;
    std::string print() const; ///< "name:base-64"

  private:
    std::string name_, key_;
};

class SecretKey {
  public:
    static SecretKey parse(std::string_view text);
    const std::string &name() const { return name_; }
    /// "name:base-64 of the signature".
    std::string sign(std::string_view message) const;
    PublicKey publicKey() const;

  private:
    std::string name_, seed_;
};

} // namespace firn
