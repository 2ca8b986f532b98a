#pragma once

#include <string_view>

#include "libstore/store/impl.hh"
#include "libutil/nar.hh"
#include "libutil/stream.hh"

namespace firn {

/// A path on its way into the store: received once (hashed and made canonical in the same pass), then
/// committed. Gone without trace if it is not.
class IncomingPath {
  public:
    /// For a path that is known already, and a temporary root.
    IncomingPath(LocalStore::Impl &store, const StorePath &path)
        : store_(store), staged_(store, path.hashPart()) {}
    /// For one that will be known by its content.
    explicit IncomingPath(LocalStore::Impl &store) : store_(store), staged_(store) {}

    /// Exactly one NAR; content() is its hash under `algorithm`.
    void receiveNar(Source &nar, HashAlgorithm algorithm);
    /// Exactly one NAR; content() is git's hash of what is in it. Refuses what that does not say everything
    /// of.
    void receiveGitObject(Source &nar, std::string_view name, HashAlgorithm algorithm);
    /// A file's plain content, to the end of the source.
    void receiveContent(Source &content, HashAlgorithm algorithm);
    void receiveText(std::string_view text);

    const Hash &content() const { return content_; }
    const HashAndSize &nar() const { return nar_; }

    /// Who says that the contents are right, besides the content address.
    enum class Voucher { nobody, trusted };
    /// Throws unless NAR hash, size and content address are what `info` says.
    void check(const PathInfo &info, Voucher voucher) const;
    /// Throws unless the path follows from the contents, by LocalStore's AddressCheck.
    void requireAddress(const PathInfo &info) const;
    /// Moves it into place and registers it, with NAR hash and size as received; does nothing if the path is
    /// valid by now and this is no repair. Makes it a temporary root first.
    void commit(PathInfo info, Repair repair);

  private:
    void discardUnregistered(const StorePath &path) noexcept;
    /// By that rule of some Nix which gives the address, or else by the newest.
    /// `blanks`: of an archive, with its own path blanked.
    Hash contentHash(const ContentAddress &address, const PathInfo &info, bool blanks) const;
    void requirePlainFile(const ContentAddress &address, const PathInfo &info) const;
    bool isFullyHashedByGit() const;
    void requireFullAddress(const ContentAddress &address, const std::string &path, Voucher voucher) const;
    void checkAddress(const ContentAddress &address, const PathInfo &info, Voucher voucher) const;

    LocalStore::Impl &store_;
    StagedPath staged_;
    Hash content_{HashAlgorithm::sha256};
    HashAndSize nar_{Hash(HashAlgorithm::sha256), 0};
};

} // namespace firn
