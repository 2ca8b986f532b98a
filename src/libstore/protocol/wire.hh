#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "libstore/model/store-path.hh"
#include "libutil/error.hh"
#include "libutil/stream.hh"

// The primitives of Nix's worker protocol. Everything is a 64-bit little-endian number or a string: its
// length as a number, the bytes, zero padding to a multiple of 8. Lists and sets are a number of elements and
// the elements. Store paths travel as full paths, "no path" as the empty string.
//
// Two sorts of bad input must be told apart. When the bytes are not the protocol's (a length out of bounds,
// padding that is not zero, an early end) nobody knows where the next message starts: that is thrown at once
// and ends the connection. When a whole string arrived but does not mean what it should (no store path, no
// hash), the reader knows where it is: the error is kept until the message has been read and thrown then, and
// the connection goes on.

namespace firn {

/// Output of a connection. write() may buffer; flush() sends.
class FlushingSink : public Sink {
  public:
    virtual void flush() = 0;
};

class WireReader {
  public:
    /// Largest string, in bytes, where a caller does not say less (a derivation's text, an environment
    /// variable).
    static constexpr size_t maxString = size_t(256) << 20;
    /// Largest string that names something: a path, a key, an algorithm.
    static constexpr size_t maxName = 64 << 10;
    /// Most elements in one list.
    static constexpr uint64_t maxCount = uint64_t(1) << 22;
    /// All strings and list elements of one message together, in bytes.
    static constexpr uint64_t maxMessage = uint64_t(1) << 30;

    /// The source must outlive the reader.
    explicit WireReader(Source &source) : source_(source) {}

    /// Forgets the last message's deferred error and gives the next one its full allowance.
    void beginMessage();
    /// Keeps the first error about content; see above.
    void defer(const Error &error);
    /// Throws what was deferred, if anything.
    void throwDeferred();

    uint64_t number();
    /// The first number of a message; nothing if the peer has hung up.
    std::optional<uint64_t> firstNumber();
    bool boolean() { return number() != 0; }
    std::string string(size_t limit = maxString);
    std::string name() { return string(maxName); }
    /// Number of elements that follow, at most maxCount.
    uint64_t count();
    std::vector<std::string> strings();
    std::set<std::string> stringSet();

    /// What `parse` makes of bytes already read; `fallback`, and the error deferred, if it throws.
    template<typename T>
    T content(const std::function<T()> &parse, T fallback) {
        try {
            return parse();
        } catch (const Error &error) {
            defer(error);
            return fallback;
        }
    }

    StorePath storePath(const StoreDir &store);
    std::optional<StorePath> optionalStorePath(const StoreDir &store);
    StorePathSet storePathSet(const StoreDir &store);

    /// For payloads that are not made of these primitives.
    Source &source() { return source_; }

  private:
    void charge(uint64_t bytes);
    void padding(uint64_t length);

    Source &source_;
    uint64_t left_ = maxMessage;
    std::optional<Error> deferred_;
};

class WireWriter {
  public:
    /// The sink must outlive the writer.
    explicit WireWriter(Sink &sink) : sink_(sink) {}

    void number(uint64_t value);
    void boolean(bool value) { number(value ? 1 : 0); }
    void string(std::string_view text);
    void strings(const std::vector<std::string> &list);
    void strings(const std::set<std::string> &set);
    void storePath(const StoreDir &store, const StorePath &path) { string(store.print(path)); }
    void optionalStorePath(const StoreDir &store, const std::optional<StorePath> &path);
    void storePathSet(const StoreDir &store, const StorePathSet &paths);

  private:
    Sink &sink_;
};

} // namespace firn
