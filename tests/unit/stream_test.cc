#include "libutil/stream.hh"

#include <thread>

#include <fcntl.h>
#include <unistd.h>

#include "libutil/file-descriptor.hh"
#include "libutil/files.hh"
#include "unit/expect-error.hh"

namespace firn {
namespace {

std::string pattern(size_t size) {
    std::string text(size, '\0');
    for (size_t i = 0; i < size; i++) {
        text[i] = static_cast<char>(i * 31 + i / 251);
    }
    return text;
}

/// Gives at most `step` bytes at a time, as a socket may.
class SlowSource : public Source {
  public:
    SlowSource(std::string_view bytes, size_t step) : rest_(bytes), step_(step) {}
    size_t read(char *buffer, size_t size) override { return rest_.read(buffer, std::min(size, step_)); }

  private:
    StringSource rest_;
    size_t step_;
};

TEST(Source, ReadExactlyGathersShortReads) {
    SlowSource source("hello world", 3);
    std::string text(11, '\0');
    source.readExactly(text.data(), text.size());
    EXPECT_EQ(text, "hello world");
}

TEST(Source, ReadExactlyTellsAnEarlyEnd) {
    StringSource source("abc");
    char buffer[5];
    std::string message = expectError(ErrorKind::badInput, [&] { source.readExactly(buffer, 5); });
    EXPECT_NE(message.find("2 more bytes"), std::string::npos) << message;
}

TEST(LimitedSource, EndsAtItsLimit) {
    StringSource whole("abcdef");
    LimitedSource source(whole, 4);
    StringSink sink;
    EXPECT_EQ(copyAll(source, sink), 4);
    EXPECT_EQ(sink.text, "abcd");
    EXPECT_EQ(source.left(), 0);
    EXPECT_EQ(whole.rest(), "ef");
}

TEST(TeeSource, CopiesExactlyWhatWasRead) {
    StringSource whole("abcdef");
    StringSink copy;
    TeeSource source(whole, copy);
    char buffer[4];
    source.readExactly(buffer, 4);
    EXPECT_EQ(copy.text, "abcd");
}

TEST(TeeSink, WritesToBothAndCountingSinkCounts) {
    StringSink first, second;
    TeeSink tee(first, second);
    CountingSink sink(tee);
    sink.write("ab");
    sink.write("c");
    EXPECT_EQ(first.text, "abc");
    EXPECT_EQ(second.text, "abc");
    EXPECT_EQ(sink.count(), 3);
}

class PipeTest : public testing::Test {
  protected:
    /// Everything that comes out of the pipe while `write` runs.
    template<typename Write>
    std::string collect(Write &&write) {
        std::string result;
        std::thread reader([&] {
            char buffer[1000];
            while (ssize_t count = ::read(pipe_.readEnd.get(), buffer, sizeof buffer)) {
                result.append(buffer, count);
            }
        });
        write(pipe_.writeEnd.get());
        pipe_.writeEnd.reset();
        reader.join();
        return result;
    }

    Pipe pipe_ = makePipe();
};

TEST_F(PipeTest, EndsAreClosedOnExec) {
    EXPECT_TRUE(fcntl(pipe_.readEnd.get(), F_GETFD) & FD_CLOEXEC);
    EXPECT_TRUE(fcntl(pipe_.writeEnd.get(), F_GETFD) & FD_CLOEXEC);
}

TEST_F(PipeTest, SinkKeepsOrderOfSmallAndLargeWrites) {
    std::string large = pattern(300000);
    std::string result = collect([&](int fd) {
        FdSink sink(fd, 16);
        sink.write("small");
        sink.write(large);
        sink.write("0123456789");
        sink.write("abcdefgh"); // does not fit with the ten before
        sink.write(std::string_view(large).substr(0, 16));
        sink.flush();
    });
    EXPECT_EQ(result, "small" + large + "0123456789abcdefgh" + large.substr(0, 16));
}

TEST_F(PipeTest, SinkHoldsSmallWritesBackUntilFlushed) {
    FdSink sink(pipe_.writeEnd.get(), 16);
    sink.write("abc");
    fcntl(pipe_.readEnd.get(), F_SETFL, O_NONBLOCK);
    char buffer[8];
    EXPECT_EQ(::read(pipe_.readEnd.get(), buffer, sizeof buffer), -1);
    sink.flush();
    EXPECT_EQ(::read(pipe_.readEnd.get(), buffer, sizeof buffer), 3);
}

TEST_F(PipeTest, SinkWaitsWhereTheDescriptorDoesNotBlock) {
    std::string large = pattern(1000000);
    EXPECT_EQ(collect([&](int fd) {
                  fcntl(fd, F_SETFL, O_NONBLOCK);
                  FdSink sink(fd);
                  sink.write(large);
                  sink.flush();
              }),
              large);
}

TEST_F(PipeTest, SourceGivesSmallAndLargeReadsInOrder) {
    std::string all = pattern(200000);
    std::thread writer([&] {
        writeFull(pipe_.writeEnd.get(), all);
        pipe_.writeEnd.reset();
    });
    FdSource source(pipe_.readEnd.get(), 64);
    std::string result(all.size(), '\0');
    size_t done = 0;
    for (size_t size = 1; done < all.size(); size = size * 3 % 5003) {
        size_t count = std::min(size, all.size() - done);
        source.readExactly(result.data() + done, count);
        done += count;
    }
    EXPECT_EQ(result, all);
    char end;
    EXPECT_EQ(source.read(&end, 1), 0);
    writer.join();
}

TEST_F(PipeTest, SourceReadsLargeBlocksStraightIntoTheCallersMemory) {
    writeFull(pipe_.writeEnd.get(), pattern(1000));
    FdSource source(pipe_.readEnd.get(), 64);
    std::string result(1000, '\0');
    EXPECT_EQ(source.read(result.data(), 1000), 1000);
    EXPECT_EQ(source.buffered(), 0);
}

TEST_F(PipeTest, SourceSaysWhatItHoldsBuffered) {
    writeFull(pipe_.writeEnd.get(), "abcdef");
    FdSource source(pipe_.readEnd.get(), 64);
    char c;
    EXPECT_EQ(source.read(&c, 1), 1);
    EXPECT_EQ(source.buffered(), 5);
}

TEST(FdSource, FailsOnABadDescriptor) {
    FdSource source(-1);
    char c;
    expectError(ErrorKind::system, [&] { source.read(&c, 1); });
}

TEST(FdSink, LosesNothingSilently) {
    UniqueFd full(open("/dev/full", O_WRONLY | O_CLOEXEC));
    if (!full) {
        GTEST_SKIP() << "this system has no /dev/full";
    }
    FdSink sink(full.get());
    sink.write("abc");
    expectError(ErrorKind::system, [&] { sink.flush(); });
}

} // namespace
} // namespace firn
