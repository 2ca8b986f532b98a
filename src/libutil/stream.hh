#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace firn {

// Octets are passed as std::string_view throughout: they are bytes, not text.

/// Somewhere bytes go to. Throws on failure; nothing is ever dropped.
class Sink {
  public:
    virtual ~Sink() = default;
    virtual void write(std::string_view bytes) = 0;
};

/// Somewhere bytes come from.
class Source {
  public:
    virtual ~Source() = default;
    /// Reads between 1 and `size` bytes and returns how many; 0 only at the end (or if size is 0).
    virtual size_t read(char *buffer, size_t size) = 0;
    /// Reads exactly `size` bytes. Throws ErrorKind::badInput "unexpected end of ..." if there are fewer.
    void readExactly(char *buffer, size_t size);
};

class StringSink : public Sink {
  public:
    void write(std::string_view bytes) override { text.append(bytes); }
    std::string text;
};

/// Does not own the bytes.
class StringSource : public Source {
  public:
    explicit StringSource(std::string_view bytes) : rest_(bytes) {}
    size_t read(char *buffer, size_t size) override;
    std::string_view rest() const { return rest_; }

  private:
    std::string_view rest_;
};

class NullSink : public Sink {
  public:
    void write(std::string_view) override {}
};

/// Writes to both; owns neither.
class TeeSink : public Sink {
  public:
    TeeSink(Sink &first, Sink &second) : first_(first), second_(second) {}
    void write(std::string_view bytes) override {
        first_.write(bytes);
        second_.write(bytes);
    }

  private:
    Sink &first_, &second_;
};

/// Passes everything on and counts it.
class CountingSink : public Sink {
  public:
    explicit CountingSink(Sink &next) : next_(next) {}
    void write(std::string_view bytes) override {
        next_.write(bytes);
        count_ += bytes.size();
    }
    uint64_t count() const { return count_; }

  private:
    Sink &next_;
    uint64_t count_ = 0;
};

/// Hands on what it reads to a sink as well; owns neither.
class TeeSource : public Source {
  public:
    TeeSource(Source &source, Sink &copy) : source_(source), copy_(copy) {}
    size_t read(char *buffer, size_t size) override;

  private:
    Source &source_;
    Sink &copy_;
};

/// At most `limit` bytes of another source; then it ends.
class LimitedSource : public Source {
  public:
    LimitedSource(Source &source, uint64_t limit) : source_(source), left_(limit) {}
    size_t read(char *buffer, size_t size) override;
    uint64_t left() const { return left_; }

  private:
    Source &source_;
    uint64_t left_;
};

/// Buffered writing to a descriptor that it does not own. Call flush(); the destructor does not (it could not
/// report).
class FdSink : public Sink {
  public:
    explicit FdSink(int fd, size_t bufferSize = 64 * 1024);
    void write(std::string_view bytes) override;
    void flush();

  private:
    int fd_;
    size_t capacity_;
    std::string buffer_;
};

/// Buffered reading from a descriptor that it does not own.
class FdSource : public Source {
  public:
    explicit FdSource(int fd, size_t bufferSize = 64 * 1024);
    size_t read(char *buffer, size_t size) override;
    /// Bytes already read from the descriptor and not yet handed out.
    size_t buffered() const { return end_ - begin_; }

  private:
    int fd_;
    size_t begin_ = 0, end_ = 0;
    std::string buffer_;
};

/// Moves everything from source to sink in blocks of 64 KiB; returns the number of bytes.
uint64_t copyAll(Source &source, Sink &sink);

} // namespace firn
