#include "libstore/protocol/tunnel-logger.hh"

#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace firn {
namespace {

class MemorySink : public FlushingSink {
  public:
    void write(std::string_view bytes) override { text.append(bytes); }
    void flush() override { ++flushes; }
    std::string text;
    int flushes = 0;
};

class BrokenSink : public FlushingSink {
  public:
    void write(std::string_view) override { throw SysError(EPIPE, "writing"); }
    void flush() override {}
};

constexpr uint64_t next = 0x6f6c6d67, last = 0x616c7473, error = 0x63787470;
constexpr uint64_t start = 0x53545254, stop = 0x53544f50, result = 0x52534c54;

/// Bytes of numbers and strings in a row.
class Expected {
  public:
    Expected &operator<<(uint64_t value) {
        WireWriter(sink_).number(value);
        return *this;
    }
    Expected &operator<<(int value) { return *this << static_cast<uint64_t>(value); }
    Expected &operator<<(const char *text) {
        WireWriter(sink_).string(text);
        return *this;
    }
    const std::string &bytes() const { return sink_.text; }

  private:
    StringSink sink_;
};

TEST(TunnelLogger, KeepsMessagesUntilAnOperationWorks) {
    MemorySink sink;
    TunnelLogger logger(sink, 38);
    logger.log(Verbosity::info, "early");
    EXPECT_EQ(sink.text, "");
    logger.startWork();
    logger.log(Verbosity::info, "late");
    logger.stopWork();
    logger.log(Verbosity::info, "between");
    EXPECT_EQ(sink.text, (Expected() << next << "early\n" << next << "late\n" << last).bytes());
}

TEST(TunnelLogger, DropsMessagesAboveTheVerbosity) {
    MemorySink sink;
    TunnelLogger logger(sink, 38);
    logger.setVerbosity(Verbosity::notice);
    logger.startWork();
    logger.log(Verbosity::info, "too much");
    logger.log(Verbosity::notice, "shown");
    EXPECT_EQ(sink.text, (Expected() << next << "shown\n").bytes());
}

TEST(TunnelLogger, SendsActivitiesWithTheirFields) {
    MemorySink sink;
    TunnelLogger logger(sink, 38);
    logger.startWork();
    logger.startActivity(5, Verbosity::info, ActivityType::build, "building",
                         {std::string("a.drv"), uint64_t(1)}, 4);
    logger.result(5, ResultType::buildLogLine, {std::string("line")});
    logger.stopActivity(5);
    EXPECT_EQ(sink.text, (Expected() << start << 5 << 3 << 105 << "building" << 2 << 1 << "a.drv" << 0 << 1
                                     << 4 << result << 5 << 101 << 1 << 1 << "line" << stop << 5)
                             .bytes());
}

TEST(TunnelLogger, TellsClientsBefore120InPlainMessages) {
    MemorySink sink;
    TunnelLogger logger(sink, 19);
    logger.startWork();
    logger.startActivity(5, Verbosity::info, ActivityType::build, "building", {}, 0);
    logger.result(5, ResultType::buildLogLine, {std::string("line")});
    logger.stopActivity(5);
    EXPECT_EQ(sink.text, (Expected() << next << "building...\n" << next << "line\n").bytes());
}

TEST(TunnelLogger, SendsAFailureAtOnce) {
    MemorySink sink;
    TunnelLogger logger(sink, 38);
    logger.startWork();
    logger.stopWork(Error(ErrorKind::failure, "it broke"));
    EXPECT_EQ(sink.text, (Expected() << error << "Error" << 0 << "Error"
                                     << "it broke" << 0 << 0)
                             .bytes());
    EXPECT_GT(sink.flushes, 0);
    EXPECT_FALSE(logger.working());
}

TEST(TunnelLogger, RemembersThatTheClientIsGone) {
    BrokenSink sink;
    TunnelLogger logger(sink, 38);
    logger.startWork();
    EXPECT_FALSE(logger.clientGone());
    logger.log(Verbosity::info, "nobody hears");
    EXPECT_TRUE(logger.clientGone());
    try {
        logger.stopWork();
        ADD_FAILURE();
    } catch (const Error &failure) {
        EXPECT_EQ(failure.kind(), ErrorKind::interrupted);
    }
}

TEST(TunnelLogger, BoundsWhatItKeepsAndSaysWhatItDropped) {
    MemorySink sink;
    TunnelLogger logger(sink, 38);
    std::string kilobyte(1024, 'x');
    for (int i = 0; i < 3000; ++i) {
        logger.log(Verbosity::info, kilobyte);
    }
    logger.startWork();
    EXPECT_LT(sink.text.size(), 2u << 20);
    EXPECT_NE(sink.text.find("messages were dropped"), std::string::npos);
}

TEST(TunnelLogger, KeepsMessagesOfSeveralThreadsWhole) {
    MemorySink sink;
    TunnelLogger logger(sink, 38);
    logger.startWork();
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&, i] {
            for (int j = 0; j < 200; ++j) {
                logger.log(Verbosity::info, std::string((i + 1) * 7, static_cast<char>('a' + i)));
            }
        });
    }
    for (std::thread &thread : threads) {
        thread.join();
    }
    StringSource source(sink.text);
    WireReader in(source);
    for (int i = 0; i < 800; ++i) {
        ASSERT_EQ(in.number(), next);
        std::string line = in.string();
        ASSERT_EQ(line.find_first_not_of(line[0]), line.size() - 1);
    }
    EXPECT_EQ(source.rest(), "");
}

} // namespace
} // namespace firn
