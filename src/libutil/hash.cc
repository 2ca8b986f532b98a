#include "libutil/hash.hh"

#include <algorithm>

#include <openssl/evp.h>

#include "libutil/error.hh"

namespace firn {

namespace {

struct AlgorithmFacts {
    HashAlgorithm algorithm;
    std::string_view name;
    const char *opensslName;
    size_t size;
};

constexpr AlgorithmFacts algorithms[] = {
    {HashAlgorithm::md5, "md5", "MD5", 16},
    {HashAlgorithm::sha1, "sha1", "SHA1", 20},
    {HashAlgorithm::sha256, "sha256", "SHA256", 32},
    {HashAlgorithm::sha512, "sha512", "SHA512", 64},
};

const AlgorithmFacts &factsOf(HashAlgorithm algorithm) {
    return algorithms[static_cast<size_t>(algorithm)];
}

/// Fetched once: OpenSSL would look the implementation up again for every digest.
const EVP_MD *implementationOf(HashAlgorithm algorithm) {
    static const std::array<EVP_MD *, std::size(algorithms)> fetched = [] {
        std::array<EVP_MD *, std::size(algorithms)> all{};
        for (const AlgorithmFacts &facts : algorithms) {
            all[static_cast<size_t>(facts.algorithm)] = EVP_MD_fetch(nullptr, facts.opensslName, nullptr);
        }
        return all;
    }();
    const EVP_MD *implementation = fetched[static_cast<size_t>(algorithm)];
    if (!implementation) {
        throw Error(ErrorKind::unsupported, "this host's OpenSSL does not offer the hash algorithm {}",
                    hashAlgorithmName(algorithm));
    }
    return implementation;
}

[[noreturn]] void throwOpenssl(std::string_view attempt) {
    throw Error(ErrorKind::failure, "OpenSSL failed {}", attempt);
}

struct ContextDeleter {
    void operator()(EVP_MD_CTX *context) const { EVP_MD_CTX_free(context); }
};
using ContextPtr = std::unique_ptr<EVP_MD_CTX, ContextDeleter>;

ContextPtr newContext() {
    ContextPtr context(EVP_MD_CTX_new());
    if (!context) {
        throwOpenssl("to make a hash context");
    }
    return context;
}

Hash finish(HashAlgorithm algorithm, EVP_MD_CTX *context) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    if (EVP_DigestFinal_ex(context, digest, &size) != 1) {
        throwOpenssl("to finish a hash");
    }
    return Hash(algorithm, {reinterpret_cast<const char *>(digest), size});
}

} // namespace

std::string_view hashAlgorithmName(HashAlgorithm algorithm) {
    return factsOf(algorithm).name;
}

size_t hashSize(HashAlgorithm algorithm) {
    return factsOf(algorithm).size;
}

std::optional<HashAlgorithm> parseHashAlgorithm(std::string_view name) {
    for (const AlgorithmFacts &facts : algorithms) {
        if (facts.name == name) {
            return facts.algorithm;
        }
    }
    return std::nullopt;
}

Hash::Hash(HashAlgorithm algorithm, std::string_view digest) : algorithm_(algorithm) {
    if (digest.size() != hashSize(algorithm)) {
        throw Error(ErrorKind::bug, "a {} digest has {} bytes, not {}", hashAlgorithmName(algorithm),
                    hashSize(algorithm), digest.size());
    }
    std::copy(digest.begin(), digest.end(), digest_.begin());
}

std::string Hash::prefixed(Encoding encoding) const {
    return fmt::format("{}:{}", hashAlgorithmName(algorithm_), digits(encoding));
}

std::string Hash::sri() const {
    return fmt::format("{}-{}", hashAlgorithmName(algorithm_), digits(Encoding::base64));
}

namespace {

struct HashText {
    std::optional<HashAlgorithm> algorithm; ///< none written
    bool sri = false;
    std::string_view digits;
};

HashText splitHashText(std::string_view text) {
    size_t separator = text.find_first_of(":-");
    if (separator == std::string_view::npos) {
        return {std::nullopt, false, text};
    }
    std::string_view name = text.substr(0, separator);
    std::optional<HashAlgorithm> algorithm = parseHashAlgorithm(name);
    if (!algorithm) {
        throw Error(ErrorKind::badInput, "the hash {} names an unknown algorithm", quoteForDisplay(text));
    }
    return {algorithm, text[separator] == '-', text.substr(separator + 1)};
}

/// No two encodings of one digest have the same length.
std::optional<Encoding> encodingByLength(size_t length, size_t digestSize) {
    for (Encoding encoding : {Encoding::base16, Encoding::nix32, Encoding::base64}) {
        if (length == encodedLength(encoding, digestSize)) {
            return encoding;
        }
    }
    return std::nullopt;
}

} // namespace

Hash Hash::parse(std::string_view text, std::optional<HashAlgorithm> expected) {
    HashText parts = splitHashText(text);
    if (parts.algorithm && expected && *parts.algorithm != *expected) {
        throw Error(ErrorKind::badInput, "the hash {} should be of algorithm {}", quoteForDisplay(text),
                    hashAlgorithmName(*expected));
    }
    std::optional<HashAlgorithm> algorithm = parts.algorithm ? parts.algorithm : expected;
    if (!algorithm) {
        throw Error(ErrorKind::badInput, "the hash {} does not say its algorithm", quoteForDisplay(text));
    }
    std::optional<Encoding> encoding = encodingByLength(parts.digits.size(), hashSize(*algorithm));
    bool fits = encoding && (!parts.sri || *encoding == Encoding::base64);
    std::string digest = fits ? decode(*encoding, parts.digits) : "";
    if (digest.size() != hashSize(*algorithm)) { // also base-64 without the padding that belongs there
        throw Error(ErrorKind::badInput, "the hash {} has the wrong length for {}", quoteForDisplay(text),
                    hashAlgorithmName(*algorithm));
    }
    return Hash(*algorithm, digest);
}

struct HashSink::Context {
    ContextPtr running = newContext();
    ContextPtr copy = newContext(); ///< for current(), which must leave `running` as it is
};

HashSink::HashSink(HashAlgorithm algorithm) : context_(std::make_unique<Context>()), algorithm_(algorithm) {
    if (EVP_DigestInit_ex(context_->running.get(), implementationOf(algorithm), nullptr) != 1) {
        throwOpenssl("to begin a hash");
    }
}

HashSink::~HashSink() = default;
HashSink::HashSink(HashSink &&) noexcept = default;

void HashSink::write(std::string_view bytes) {
    if (EVP_DigestUpdate(context_->running.get(), bytes.data(), bytes.size()) != 1) {
        throwOpenssl("to hash");
    }
    count_ += bytes.size();
}

Hash HashSink::current() const {
    if (EVP_MD_CTX_copy_ex(context_->copy.get(), context_->running.get()) != 1) {
        throwOpenssl("to copy a hash context");
    }
    return finish(algorithm_, context_->copy.get());
}

Hash hashString(HashAlgorithm algorithm, std::string_view bytes) {
    HashSink sink(algorithm);
    sink.write(bytes);
    return sink.current();
}

std::string compressDigest(std::string_view digest, size_t size) {
    if (size == 0) {
        throw Error(ErrorKind::bug, "a digest cannot be folded to nothing");
    }
    std::string folded(size, '\0');
    for (size_t i = 0; i < digest.size(); i++) {
        folded[i % size] ^= digest[i];
    }
    return folded;
}

} // namespace firn
