#include "libstore/model/path-info.hh"

#include <memory>

#include <openssl/err.h>
#include <openssl/evp.h>

#include "libutil/error.hh"

// Signatures are plain Ed25519 (RFC 8032) over the fingerprint. Nix makes its keys with libsodium, whose
// secret key is the 32-byte seed followed by the 32-byte public key; OpenSSL wants the seed alone.

namespace firn {

namespace {

constexpr size_t publicKeySize = 32;
constexpr size_t seedSize = 32;
constexpr size_t signatureSize = 64;

using Pkey = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
using DigestContext = std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)>;

struct NamedBytes {
    std::string name, bytes;
};

const unsigned char *octets(std::string_view bytes) {
    return reinterpret_cast<const unsigned char *>(bytes.data());
}

[[noreturn]] void throwCryptoError(std::string_view attempt) {
    char text[256];
    ERR_error_string_n(ERR_get_error(), text, sizeof text);
    throw Error(ErrorKind::failure, "{}: {}", attempt, text);
}

/// Splits "name:base-64". Key files end with a newline or not, so blanks at the end are dropped.
NamedBytes parseNamedBytes(std::string_view text) {
    size_t end = text.find_last_not_of(" \t\r\n");
    text = text.substr(0, end == std::string_view::npos ? 0 : end + 1);
    size_t colon = text.find(':');
    if (colon == std::string_view::npos || colon == 0) {
        throw Error(ErrorKind::badInput, "it must be NAME:BASE64");
    }
    return {std::string(text.substr(0, colon)), decode(Encoding::base64, text.substr(colon + 1))};
}

/// The text is not shown: it may be secret.
NamedBytes parseKey(std::string_view text, size_t size, std::string_view what) {
    NamedBytes key;
    try {
        key = parseNamedBytes(text);
    } catch (const Error &) { // base-64's message would quote the key
        throw Error(ErrorKind::badInput, "a {} key is damaged: it must be NAME:BASE64", what);
    }
    if (key.bytes.size() != size) {
        throw Error(ErrorKind::badInput, "the {} key '{}' has {} bytes instead of {}", what,
                    escapeForDisplay(key.name), key.bytes.size(), size);
    }
    return key;
}

Pkey loadSeed(std::string_view seed) {
    Pkey key(EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, octets(seed), seed.size()),
             EVP_PKEY_free);
    if (!key) {
        throwCryptoError("loading a secret Ed25519 key");
    }
    return key;
}

std::string publicBytes(std::string_view seed) {
    std::string bytes(publicKeySize, '\0');
    size_t size = bytes.size();
    Pkey key = loadSeed(seed);
    if (EVP_PKEY_get_raw_public_key(key.get(), reinterpret_cast<unsigned char *>(bytes.data()), &size) != 1) {
        throwCryptoError("computing the public half of an Ed25519 key");
    }
    return bytes;
}

DigestContext makeDigestContext() {
    DigestContext context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
    if (!context) {
        throw std::bad_alloc();
    }
    return context;
}

bool verifyBytes(std::string_view key, std::string_view message, std::string_view signature) {
    Pkey loaded(EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, octets(key), key.size()),
                EVP_PKEY_free);
    DigestContext context = makeDigestContext();
    bool good = loaded && EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, loaded.get()) == 1 &&
                EVP_DigestVerify(context.get(), octets(signature), signature.size(), octets(message),
                                 message.size()) == 1;
    ERR_clear_error(); // "bad signature" is an answer, not an error for whoever looks at the queue next
    return good;
}

std::string signBytes(std::string_view seed, std::string_view message) {
    Pkey key = loadSeed(seed);
    DigestContext context = makeDigestContext();
    std::string signature(signatureSize, '\0');
    size_t size = signature.size();
    if (EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, key.get()) != 1 ||
        EVP_DigestSign(context.get(), reinterpret_cast<unsigned char *>(signature.data()), &size,
                       octets(message), message.size()) != 1) {
        throwCryptoError("signing with an Ed25519 key");
    }
    return signature;
}

} // namespace

std::string PathInfo::fingerprint(const StoreDir &store) const {
    if (narSize == 0) {
        throw Error(ErrorKind::badInput, "the fingerprint of '{}' needs its NAR size, which is not known",
                    store.print(path));
    }
    std::string text =
        fmt::format("1;{};{};{};", store.print(path), narHash.prefixed(Encoding::nix32), narSize);
    std::string_view separator = "";
    for (const StorePath &reference : references) {
        text += separator;
        text += store.print(reference);
        separator = ",";
    }
    return text;
}

bool PathInfo::isContentAddressed(const StoreDir &store) const {
    if (!contentAddress) {
        return false;
    }
    References split{references, false};
    split.self = split.others.erase(path) > 0;
    try {
        return makeContentAddressedPath(store, path.name(), *contentAddress, split) == path;
    } catch (const Error &error) {
        if (error.kind() != ErrorKind::badInput) {
            throw;
        }
        return false; // no path at all comes of this address with these references
    }
}

PublicKey PublicKey::parse(std::string_view text) {
    NamedBytes parsed = parseKey(text, publicKeySize, "public");
    PublicKey key;
    key.name_ = std::move(parsed.name);
    key.key_ = std::move(parsed.bytes);
    return key;
}

std::string PublicKey::print() const {
    return name_ + ":" + encode(Encoding::base64, key_);
}

bool PublicKey::verify(std::string_view message, std::string_view signature) const {
    if (!signature.starts_with(name_) || !signature.substr(name_.size()).starts_with(':')) {
        return false;
    }
    try {
        NamedBytes parsed = parseNamedBytes(signature);
        return parsed.name == name_ && parsed.bytes.size() == signatureSize &&
               verifyBytes(key_, message, parsed.bytes);
    } catch (const Error &error) {
        if (error.kind() != ErrorKind::badInput) {
            throw;
        }
        return false; // not a signature
    }
}

SecretKey SecretKey::parse(std::string_view text) {
    NamedBytes parsed = parseKey(text, seedSize + publicKeySize, "secret");
    SecretKey key;
    key.name_ = std::move(parsed.name);
    key.seed_ = parsed.bytes.substr(0, seedSize);
    if (publicBytes(key.seed_) != parsed.bytes.substr(seedSize)) {
        throw Error(ErrorKind::badInput, "the two halves of the secret key '{}' do not belong together",
                    escapeForDisplay(key.name_));
    }
    return key;
}

PublicKey SecretKey::publicKey() const {
    return PublicKey::parse(name_ + ":" + encode(Encoding::base64, publicBytes(seed_)));
}

std::string SecretKey::sign(std::string_view message) const {
    return name_ + ":" + encode(Encoding::base64, signBytes(seed_, message));
}

} // namespace firn
