#pragma once

#include <compare>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "libutil/hash.hh"

namespace firn {

/// The base name of a store path: 32 digits in Nix's base-32, '-', a name of 1 to 211 characters out of
/// [A-Za-z0-9+-._?=] that is not ".", "..", and does not start with ".-" or "..-". Valid by construction.
class StorePath {
  public:
    static constexpr size_t hashPartLength = 32;
    static constexpr size_t maxNameLength = 211;

    /// From a base name. Throws badInput.
    explicit StorePath(std::string_view baseName);
    /// From 20 digest bytes and a name. Throws badInput for the name.
    StorePath(std::string_view digest20, std::string_view name);

    const std::string &baseName() const { return baseName_; }
    std::string_view hashPart() const { return std::string_view(baseName_).substr(0, hashPartLength); }
    std::string_view name() const { return std::string_view(baseName_).substr(hashPartLength + 1); }
    bool isDerivation() const { return baseName_.ends_with(".drv"); }

    auto operator<=>(const StorePath &) const = default;

  private:
    std::string baseName_;
};

using StorePathSet = std::set<StorePath>;

/// Throws badInput unless it is a valid name for a store path.
void checkStorePathName(std::string_view name);

/// The directory all store paths lie in, e.g. "/nix/store": absolute. It is part of every hash.
class StoreDir {
  public:
    /// Trailing slashes are dropped. Throws badInput for relative paths, "/" and "." or ".." in between.
    explicit StoreDir(std::string dir);
    const std::string &str() const { return dir_; }
    /// "/nix/store/<base name>"
    std::string print(const StorePath &path) const { return dir_ + "/" + path.baseName(); }
    /// Exactly a store path as print() writes it, nothing below it. Throws badInput.
    StorePath parse(std::string_view path) const;
    std::optional<StorePath> tryParse(std::string_view path) const;
    /// The store path that `path` is or lies in, with the rest (starting with '/' or empty). Throws badInput.
    std::pair<StorePath, std::string> parsePrefix(std::string_view path) const;

    /// hash part = fold to 20 bytes of sha256 of "<type>:sha256:<base-16 of inner>:<dir>:<name>".
    StorePath makePath(std::string_view type, const Hash &inner, std::string_view name) const;
    /// Output of a derivation: type "output:<outputName>", name "<drvName>" or "<drvName>-<outputName>".
    StorePath makeOutputPath(std::string_view outputName, const Hash &inner, std::string_view drvName) const;

  private:
    std::string dir_;
};

/// "<drvName>" for "out", else "<drvName>-<outputName>".
std::string outputPathName(std::string_view drvName, std::string_view outputName);

} // namespace firn
