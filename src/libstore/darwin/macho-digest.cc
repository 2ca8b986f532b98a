#include "libstore/darwin/macho-digest.hh"

#include <algorithm>
#include <stdexcept>
#include <string>

#include <openssl/evp.h>

#include "libstore/darwin/code-signature.hh"

namespace firn {

namespace {

/// Stays in the second-level cache between reading and hashing.
constexpr uint64_t bufferSize = 256 * 1024;

/// Looking a digest up by its name takes longer than hashing a page does.
const EVP_MD *fetched(uint8_t hashType) {
    static const EVP_MD *const sha1 = EVP_MD_fetch(nullptr, "SHA1", nullptr);
    static const EVP_MD *const sha256 = EVP_MD_fetch(nullptr, "SHA256", nullptr);
    static const EVP_MD *const sha384 = EVP_MD_fetch(nullptr, "SHA384", nullptr);
    switch (hashType) {
    case 1:
        return sha1;
    case 2:
    case 3:
        return sha256;
    case 4:
        return sha384;
    default:
        return nullptr;
    }
}

void require(bool success) {
    if (!success) {
        throw std::runtime_error("OpenSSL cannot compute the digests of a code signature");
    }
}

} // namespace

MachoDigest::MachoDigest(const MachoBytes &file, uint8_t hashType)
    : file_(file), size_(digestSize(hashType)), context_(EVP_MD_CTX_new()) {
    const EVP_MD *digest = fetched(hashType);
    if (!context_ || !digest || EVP_DigestInit_ex2(context_, digest, nullptr) != 1) {
        EVP_MD_CTX_free(context_);
        require(false);
    }
}

MachoDigest::~MachoDigest() {
    EVP_MD_CTX_free(context_);
}

std::string_view MachoDigest::of(const ByteRange &range) {
    require(EVP_DigestInit_ex2(context_, nullptr, nullptr) == 1);
    for (uint64_t at = range.offset; at < range.end();) {
        std::string_view bytes = piece(at, range.end() - at);
        require(EVP_DigestUpdate(context_, bytes.data(), bytes.size()) == 1);
        at += bytes.size();
    }
    require(EVP_DigestFinal_ex(context_, digest_, nullptr) == 1);
    return {reinterpret_cast<const char *>(digest_), size_};
}

/// The bytes at `offset`, at most `size`; fewer where the buffer ends.
std::string_view MachoDigest::piece(uint64_t offset, uint64_t size) {
    if (offset < buffered_.offset || offset >= buffered_.end()) {
        uint64_t wanted = std::max(size, aheadEnd_ > offset ? aheadEnd_ - offset : 0);
        wanted = std::min(wanted, bufferSize);
        buffered_ = {}; // in case reading fails
        if (wanted > capacity_) {
            buffer_.reset(new char[wanted]);
            capacity_ = wanted;
        }
        file_.read(offset, buffer_.get(), wanted);
        buffered_ = {offset, wanted};
    }
    uint64_t inside = offset - buffered_.offset;
    return {buffer_.get() + inside, std::min(size, buffered_.size - inside)};
}

} // namespace firn
