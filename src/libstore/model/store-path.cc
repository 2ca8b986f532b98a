#include "libstore/model/store-path.hh"

#include <algorithm>

#include "libutil/error.hh"

// A store path's digest is 160 bits: a sha256 folded by XOR, written as 32 digits. Everything that a path
// depends on (its kind, content or derivation, the store directory, its name) goes into that one hash, so a
// path of one store directory means nothing in another.

namespace firn {

namespace {

constexpr size_t digestSize = 20;

bool isNameCharacter(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           std::string_view("+-._?=").find(c) != std::string_view::npos;
}

bool startsWithDots(std::string_view name) {
    return name == "." || name == ".." || name.starts_with(".-") || name.starts_with("..-");
}

void checkName(std::string_view name, std::string_view whole) {
    if (name.empty()) {
        throw Error(ErrorKind::badInput, "the store path name in '{}' is empty", escapeForDisplay(whole));
    }
    if (name.size() > StorePath::maxNameLength) {
        throw Error(ErrorKind::badInput, "the store path name '{}' has {} characters; at most {} are allowed",
                    escapeForDisplay(name), name.size(), StorePath::maxNameLength);
    }
    if (startsWithDots(name)) {
        throw Error(ErrorKind::badInput,
                    "the store path name '{}' is not allowed: it is, or has before its first dash, "
                    "nothing but one or two dots",
                    escapeForDisplay(name));
    }
    auto bad = std::find_if_not(name.begin(), name.end(), isNameCharacter);
    if (bad != name.end()) {
        throw Error(ErrorKind::badInput,
                    "the store path name '{}' contains the character '{}'; only letters, digits and "
                    "+-._?= are allowed",
                    escapeForDisplay(name), escapeForDisplay(std::string_view(&*bad, 1)));
    }
}

void checkBaseName(std::string_view baseName) {
    if (baseName.size() <= StorePath::hashPartLength || baseName[StorePath::hashPartLength] != '-') {
        throw Error(ErrorKind::badInput, "'{}' is not a store path's name: it must be {} digits, '-', a name",
                    escapeForDisplay(baseName), StorePath::hashPartLength);
    }
    std::string_view hashPart = baseName.substr(0, StorePath::hashPartLength);
    if (!std::all_of(hashPart.begin(), hashPart.end(), isNix32Digit)) {
        throw Error(ErrorKind::badInput, "'{}' does not begin with {} digits of Nix's base-32",
                    escapeForDisplay(baseName), StorePath::hashPartLength);
    }
    checkName(baseName.substr(StorePath::hashPartLength + 1), baseName);
}

bool hasDotComponent(std::string_view dir) {
    std::string padded = std::string(dir) + "/";
    return padded.find("/./") != std::string::npos || padded.find("/../") != std::string::npos ||
           padded.find("//") != std::string::npos;
}

} // namespace

StorePath::StorePath(std::string_view baseName) : baseName_(baseName) {
    checkBaseName(baseName);
}

StorePath::StorePath(std::string_view digest20, std::string_view name) {
    if (digest20.size() != digestSize) {
        throw Error(ErrorKind::bug, "a store path is made of {} digest bytes, not {}", digestSize,
                    digest20.size());
    }
    checkStorePathName(name);
    baseName_ = encode(Encoding::nix32, digest20) + "-" + std::string(name);
}

void checkStorePathName(std::string_view name) {
    checkName(name, name);
}

StoreDir::StoreDir(std::string dir) : dir_(std::move(dir)) {
    while (dir_.size() > 1 && dir_.ends_with('/')) {
        dir_.pop_back();
    }
    if (!dir_.starts_with('/') || dir_ == "/" || hasDotComponent(dir_) ||
        dir_.find('\0') != std::string::npos) {
        throw Error(ErrorKind::badInput,
                    "the store directory '{}' must be an absolute path below '/' without '.', '..' and "
                    "empty components",
                    escapeForDisplay(dir_));
    }
}

StorePath StoreDir::parse(std::string_view path) const {
    auto [storePath, rest] = parsePrefix(path);
    if (!rest.empty()) {
        throw Error(ErrorKind::badInput, "'{}' lies in a store path but is none", escapeForDisplay(path));
    }
    return storePath;
}

std::optional<StorePath> StoreDir::tryParse(std::string_view path) const {
    if (!path.starts_with(dir_)) {
        return std::nullopt; // the most common answer, for which an exception is too dear
    }
    try {
        return parse(path);
    } catch (const Error &error) {
        if (error.kind() != ErrorKind::badInput) {
            throw;
        }
        return std::nullopt; // that is the answer
    }
}

std::pair<StorePath, std::string> StoreDir::parsePrefix(std::string_view path) const {
    if (!path.starts_with(dir_) || path.size() <= dir_.size() + 1 || path[dir_.size()] != '/') {
        throw Error(ErrorKind::badInput, "the path '{}' is not in the store directory '{}'",
                    escapeForDisplay(path), dir_);
    }
    std::string_view inStore = path.substr(dir_.size() + 1);
    size_t end = std::min(inStore.find('/'), inStore.size());
    return {StorePath(inStore.substr(0, end)), std::string(inStore.substr(end))};
}

StorePath StoreDir::makePath(std::string_view type, const Hash &inner, std::string_view name) const {
    checkStorePathName(name);
    std::string text = fmt::format("{}:{}:{}:{}", type, inner.prefixed(Encoding::base16), dir_, name);
    Hash hash = hashString(HashAlgorithm::sha256, text);
    return StorePath(compressDigest(hash.digest(), digestSize), name);
}

StorePath StoreDir::makeOutputPath(std::string_view outputName, const Hash &inner,
                                   std::string_view drvName) const {
    return makePath("output:" + std::string(outputName), inner, outputPathName(drvName, outputName));
}

std::string outputPathName(std::string_view drvName, std::string_view outputName) {
    if (outputName == "out") {
        return std::string(drvName);
    }
    return fmt::format("{}-{}", drvName, outputName);
}

} // namespace firn
