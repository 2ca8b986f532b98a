#include <stdexcept>
#include <string>

#include <gtest/gtest.h>

#include "libstore/build/pipelined-sink.hh"

namespace firn {
namespace {

class FailingSink : public Sink {
  public:
    void write(std::string_view) override { throw std::runtime_error("full"); }
};

TEST(PipelinedSink, PassesEverythingOnInOrder) {
    for (size_t size : {0u, 1u, 262143u, 262144u, 262145u, 5000000u}) {
        std::string expected;
        StringSink end;
        PipelinedSink sink(end);
        for (size_t number = 0; expected.size() < size; ++number) {
            std::string piece = std::to_string(number) + std::string(number % 1000, 'x');
            expected += piece;
            sink.write(piece);
        }
        sink.finish();
        EXPECT_TRUE(end.text == expected) << size;
    }
}

TEST(PipelinedSink, ThrowsWhatTheOtherSideThrew) {
    FailingSink end;
    PipelinedSink sink(end);
    auto writeMuch = [&] {
        for (int i = 0; i < 100; ++i) {
            sink.write(std::string(1000000, 'x'));
        }
        sink.finish();
    };
    EXPECT_THROW(writeMuch(), std::runtime_error);
}

TEST(PipelinedSink, CanBeDroppedHalfWay) {
    StringSink end;
    {
        PipelinedSink sink(end);
        sink.write(std::string(3000000, 'x'));
    }
    EXPECT_LE(end.text.size(), 3000000u);
}

} // namespace
} // namespace firn
