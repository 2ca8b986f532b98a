#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "libstore/model/store-path.hh"
#include "libutil/hash.hh"

namespace firn {

/// How a content address is computed from a file-system object.
enum class ContentMethod { text, flat, nar, git };

/// "text:sha256:…", "fixed:sha256:…" (flat), "fixed:r:sha256:…" (NAR), "fixed:git:sha1:…", as in the
/// database, narinfo and the protocol.
struct ContentAddress {
    ContentMethod method;
    Hash hash;

    std::string print() const;
    static ContentAddress parse(std::string_view text);
    auto operator<=>(const ContentAddress &) const = default;
};

/// Method and algorithm as written in a derivation's output and in AddToStore: "r:sha256", "sha256",
/// "text:sha256", "git:sha1" (and in AddToStore "fixed:r:sha256" …).
struct ContentAddressMethod {
    ContentMethod method;
    HashAlgorithm algorithm;

    std::string print() const;         ///< derivation form
    std::string printPrefixed() const; ///< "text:sha256", "fixed:sha256", "fixed:r:sha256", "fixed:git:sha1"
    static ContentAddressMethod parse(std::string_view text); ///< either form
    auto operator<=>(const ContentAddressMethod &) const = default;
};

/// What a content-addressed path may refer to.
struct References {
    StorePathSet others;
    bool self = false;
    bool empty() const { return others.empty() && !self; }
};

/// The store path of content with this address. Flat and git content, and NAR content under another algorithm
/// than sha256, must not have references; text must be sha256 and must not refer to itself: else
/// ErrorKind::badInput.
StorePath makeContentAddressedPath(const StoreDir &store, std::string_view name,
                                   const ContentAddress &address, const References &references);

} // namespace firn
