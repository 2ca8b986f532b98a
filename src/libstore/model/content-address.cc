#include "libstore/model/content-address.hh"

#include "libutil/error.hh"
#include "libutil/git-hash.hh"

// The prefixes are Nix's; "r:" stands for recursive, which is what NAR hashing was called first, and flat
// hashing has none.

namespace firn {

namespace {

std::string_view fixedPrefix(ContentMethod method) {
    switch (method) {
    case ContentMethod::nar:
        return "r:";
    case ContentMethod::git:
        return "git:";
    case ContentMethod::flat:
    case ContentMethod::text:
        break;
    }
    return "";
}

bool consume(std::string_view &text, std::string_view prefix) {
    if (!text.starts_with(prefix)) {
        return false;
    }
    text.remove_prefix(prefix.size());
    return true;
}

ContentMethod consumeFixedMethod(std::string_view &text) {
    if (consume(text, "r:")) {
        return ContentMethod::nar;
    }
    return consume(text, "git:") ? ContentMethod::git : ContentMethod::flat;
}

HashAlgorithm parseAlgorithm(std::string_view name, ContentMethod method, std::string_view whole) {
    std::optional<HashAlgorithm> algorithm = parseHashAlgorithm(name);
    if (!algorithm) {
        throw Error(ErrorKind::badInput, "the content address '{}' has the unknown hash algorithm '{}'",
                    escapeForDisplay(whole), escapeForDisplay(name));
    }
    if (method == ContentMethod::text && *algorithm != HashAlgorithm::sha256) {
        throw Error(ErrorKind::badInput, "the content address '{}' is for text, which must use sha256",
                    escapeForDisplay(whole));
    }
    if (method == ContentMethod::git && !isGitAlgorithm(*algorithm)) {
        throw Error(ErrorKind::badInput, "the content address '{}' is for git, which must use sha1 or sha256",
                    escapeForDisplay(whole));
    }
    return *algorithm;
}

/// "source:<ref>:<ref>:self", as the store path's hash names references.
std::string withReferences(const StoreDir &store, std::string type, const References &references) {
    for (const StorePath &reference : references.others) {
        type += ':';
        type += store.print(reference);
    }
    if (references.self) {
        type += ":self";
    }
    return type;
}

StorePath makeTextPath(const StoreDir &store, std::string_view name, const Hash &hash,
                       const References &references) {
    if (references.self) {
        throw Error(ErrorKind::badInput, "the text '{}' cannot refer to its own store path", name);
    }
    if (hash.algorithm() != HashAlgorithm::sha256) {
        throw Error(ErrorKind::badInput, "the text '{}' must be hashed with sha256, not {}", name,
                    hashAlgorithmName(hash.algorithm()));
    }
    return store.makePath(withReferences(store, "text", references), hash, name);
}

} // namespace

std::string ContentAddress::print() const {
    ContentAddressMethod withoutHash{method, hash.algorithm()};
    return withoutHash.printPrefixed() + ":" + hash.digits(Encoding::nix32);
}

ContentAddress ContentAddress::parse(std::string_view text) {
    size_t colon = text.rfind(':');
    if (colon == std::string_view::npos || (!text.starts_with("text:") && !text.starts_with("fixed:"))) {
        throw Error(ErrorKind::badInput,
                    "'{}' is not a content address: it must begin with 'text:' or 'fixed:'",
                    escapeForDisplay(text));
    }
    ContentAddressMethod method = ContentAddressMethod::parse(text.substr(0, colon));
    std::string_view digits = text.substr(colon + 1);
    if (digits.find('-') != std::string_view::npos) {
        throw Error(ErrorKind::badInput, "the hash of the content address '{}' must be plain digits",
                    escapeForDisplay(text));
    }
    return ContentAddress{method.method, Hash::parse(digits, method.algorithm)};
}

std::string ContentAddressMethod::print() const {
    std::string_view prefix = method == ContentMethod::text ? "text:" : fixedPrefix(method);
    return std::string(prefix) + std::string(hashAlgorithmName(algorithm));
}

std::string ContentAddressMethod::printPrefixed() const {
    return method == ContentMethod::text ? print() : "fixed:" + print();
}

ContentAddressMethod ContentAddressMethod::parse(std::string_view text) {
    std::string_view rest = text;
    if (consume(rest, "text:")) {
        return {ContentMethod::text, parseAlgorithm(rest, ContentMethod::text, text)};
    }
    consume(rest, "fixed:");
    ContentMethod method = consumeFixedMethod(rest);
    return {method, parseAlgorithm(rest, method, text)};
}

StorePath makeContentAddressedPath(const StoreDir &store, std::string_view name,
                                   const ContentAddress &address, const References &references) {
    if (address.method == ContentMethod::text) {
        return makeTextPath(store, name, address.hash, references);
    }
    if (address.method == ContentMethod::nar && address.hash.algorithm() == HashAlgorithm::sha256) {
        return store.makePath(withReferences(store, "source", references), address.hash, name);
    }
    if (!references.empty()) {
        throw Error(ErrorKind::badInput,
                    "the content address '{}' of '{}' is of a kind that cannot have references to store "
                    "paths, but there are {}",
                    address.print(), name, references.others.size() + (references.self ? 1 : 0));
    }
    std::string inner =
        fmt::format("fixed:out:{}{}:", fixedPrefix(address.method), address.hash.prefixed(Encoding::base16));
    return store.makePath("output:out", hashString(HashAlgorithm::sha256, inner), name);
}

} // namespace firn
