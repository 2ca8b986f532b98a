#include "libutil/stream.hh"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <poll.h>
#include <unistd.h>

#include "libutil/error.hh"
#include "libutil/files.hh"

namespace firn {

void Source::readExactly(char *buffer, size_t size) {
    size_t done = 0;
    while (done < size) {
        size_t count = read(buffer + done, size - done);
        if (count == 0) {
            throw Error(ErrorKind::badInput, "unexpected end of input: {} more bytes were expected",
                        size - done);
        }
        done += count;
    }
}

size_t StringSource::read(char *buffer, size_t size) {
    size_t count = rest_.copy(buffer, size);
    rest_.remove_prefix(count);
    return count;
}

size_t TeeSource::read(char *buffer, size_t size) {
    size_t count = source_.read(buffer, size);
    copy_.write({buffer, count});
    return count;
}

size_t LimitedSource::read(char *buffer, size_t size) {
    size_t count = source_.read(buffer, std::min<uint64_t>(size, left_));
    left_ -= count;
    return count;
}

FdSink::FdSink(int fd, size_t bufferSize) : fd_(fd), capacity_(bufferSize) {}

void FdSink::write(std::string_view bytes) {
    if (bytes.size() > capacity_ - buffer_.size()) {
        flush();
        if (bytes.size() >= capacity_) {
            writeFull(fd_, bytes);
            return;
        }
    }
    if (buffer_.capacity() < capacity_) {
        buffer_.reserve(capacity_);
    }
    buffer_.append(bytes);
}

void FdSink::flush() {
    // Emptied first: after a failure the same bytes must not go out a second time.
    std::string pending = std::exchange(buffer_, {});
    writeFull(fd_, pending);
    pending.clear();
    buffer_ = std::move(pending);
}

FdSource::FdSource(int fd, size_t bufferSize) : fd_(fd), buffer_(bufferSize, '\0') {}

namespace {

size_t readSome(int fd, char *buffer, size_t size) {
    while (true) {
        ssize_t count = ::read(fd, buffer, size);
        if (count >= 0) {
            return count;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK) {
            struct pollfd ready {
                fd, POLLIN, 0
            };
            poll(&ready, 1, -1);
        } else if (errno != EINTR) {
            throwErrno("reading from a file descriptor");
        }
    }
}

} // namespace

size_t FdSource::read(char *buffer, size_t size) {
    if (size == 0) {
        return 0;
    }
    if (begin_ == end_) {
        if (size >= buffer_.size()) {
            return readSome(fd_, buffer, size);
        }
        begin_ = end_ = 0; // also if the read throws
        end_ = readSome(fd_, buffer_.data(), buffer_.size());
    }
    size_t count = std::min(size, end_ - begin_);
    std::memcpy(buffer, buffer_.data() + begin_, count);
    begin_ += count;
    return count;
}

uint64_t copyAll(Source &source, Sink &sink) {
    static constexpr size_t blockSize = 64 * 1024;
    auto block = std::make_unique_for_overwrite<char[]>(blockSize);
    uint64_t total = 0;
    while (size_t count = source.read(block.get(), blockSize)) {
        sink.write({block.get(), count});
        total += count;
    }
    return total;
}

} // namespace firn
