#include "libstore/protocol/wire.hh"

#include <algorithm>

namespace firn {

namespace {

/// Bytes that one element of a list is charged for besides its text: what a container needs for it.
constexpr uint64_t elementCharge = 64;
/// Strings are read in steps of this size, so that memory follows what arrived, not what was claimed.
constexpr size_t readStep = 64 << 10;

uint64_t decodeNumber(const char (&bytes)[8]) {
    uint64_t value = 0;
    for (int i = 7; i >= 0; --i) {
        value = value << 8 | static_cast<unsigned char>(bytes[i]);
    }
    return value;
}

/// Stands for a path that could not be read until the message's deferred error is thrown.
StorePath placeholderPath() {
    return StorePath("00000000000000000000000000000000-unreadable");
}

} // namespace

void WireReader::beginMessage() {
    left_ = maxMessage;
    deferred_.reset();
}

void WireReader::defer(const Error &error) {
    if (!deferred_) {
        deferred_ = error;
    }
}

void WireReader::throwDeferred() {
    if (deferred_) {
        Error error = *deferred_;
        deferred_.reset();
        throw error;
    }
}

void WireReader::charge(uint64_t bytes) {
    if (bytes > left_) {
        throw Error(ErrorKind::badInput, "A protocol message is larger than {} bytes.", maxMessage);
    }
    left_ -= bytes;
}

uint64_t WireReader::number() {
    char bytes[8];
    source_.readExactly(bytes, sizeof bytes);
    return decodeNumber(bytes);
}

std::optional<uint64_t> WireReader::firstNumber() {
    char bytes[8];
    size_t got = source_.read(bytes, sizeof bytes);
    if (got == 0) {
        return std::nullopt;
    }
    source_.readExactly(bytes + got, sizeof bytes - got);
    return decodeNumber(bytes);
}

void WireReader::padding(uint64_t length) {
    char zeros[8] = {};
    size_t size = (8 - length % 8) % 8;
    source_.readExactly(zeros, size);
    if (std::any_of(zeros, zeros + size, [](char c) { return c != 0; })) {
        throw Error(ErrorKind::badInput,
                    "A string of {} bytes in a protocol message is not padded with zeros.", length);
    }
}

std::string WireReader::string(size_t limit) {
    uint64_t length = number();
    if (length > limit) {
        throw Error(ErrorKind::badInput,
                    "A string in a protocol message claims {} bytes; at most {} are allowed there.", length,
                    limit);
    }
    charge(length);
    std::string text;
    while (text.size() < length) {
        size_t have = text.size();
        text.resize(have + std::min<uint64_t>(readStep, length - have));
        source_.readExactly(text.data() + have, text.size() - have);
    }
    padding(length);
    return text;
}

uint64_t WireReader::count() {
    uint64_t count = number();
    if (count > maxCount) {
        throw Error(ErrorKind::badInput,
                    "A list in a protocol message claims {} elements; at most {} are allowed.", count,
                    maxCount);
    }
    charge(count * elementCharge);
    return count;
}

std::vector<std::string> WireReader::strings() {
    std::vector<std::string> list;
    for (uint64_t left = count(); left > 0; --left) {
        list.push_back(string());
    }
    return list;
}

std::set<std::string> WireReader::stringSet() {
    std::set<std::string> set;
    for (uint64_t left = count(); left > 0; --left) {
        set.insert(string());
    }
    return set;
}

StorePath WireReader::storePath(const StoreDir &store) {
    std::string text = name();
    return content<StorePath>([&] { return store.parse(text); }, placeholderPath());
}

std::optional<StorePath> WireReader::optionalStorePath(const StoreDir &store) {
    std::string text = name();
    if (text.empty()) {
        return std::nullopt;
    }
    return content<StorePath>([&] { return store.parse(text); }, placeholderPath());
}

StorePathSet WireReader::storePathSet(const StoreDir &store) {
    StorePathSet paths;
    for (uint64_t left = count(); left > 0; --left) {
        paths.insert(storePath(store));
    }
    return paths;
}

void WireWriter::number(uint64_t value) {
    char bytes[8];
    for (char &byte : bytes) {
        byte = static_cast<char>(value & 0xff);
        value >>= 8;
    }
    sink_.write({bytes, sizeof bytes});
}

void WireWriter::string(std::string_view text) {
    static constexpr char zeros[8] = {};
    number(text.size());
    sink_.write(text);
    sink_.write({zeros, (8 - text.size() % 8) % 8});
}

void WireWriter::strings(const std::vector<std::string> &list) {
    number(list.size());
    for (const std::string &text : list) {
        string(text);
    }
}

void WireWriter::strings(const std::set<std::string> &set) {
    number(set.size());
    for (const std::string &text : set) {
        string(text);
    }
}

void WireWriter::optionalStorePath(const StoreDir &store, const std::optional<StorePath> &path) {
    string(path ? store.print(*path) : "");
}

void WireWriter::storePathSet(const StoreDir &store, const StorePathSet &paths) {
    number(paths.size());
    for (const StorePath &path : paths) {
        storePath(store, path);
    }
}

} // namespace firn
