#include "libstore/build/diff-hook.hh"

#include <fcntl.h>
#include <gtest/gtest.h>

#include "libutil/files.hh"

namespace firn {
namespace {

Pipe nonBlockingPipe() {
    Pipe pipe = makePipe();
    EXPECT_EQ(fcntl(pipe.readEnd.get(), F_SETFL, O_NONBLOCK), 0);
    return pipe;
}

TEST(DiffHook, TheRestOfWhatItWroteIsReadToTheEnd) {
    Pipe pipe = nonBlockingPipe();
    std::string text(50000, 'x'), got;
    writeFull(pipe.writeEnd.get(), text);
    pipe.writeEnd.reset();
    readRestOfPipe(pipe.readEnd.get(), [&](std::string_view bytes) { got += bytes; });
    EXPECT_EQ(got, text);
}

TEST(DiffHook, WhoStillHasItsOutputIsNotWaitedFor) {
    Pipe pipe = nonBlockingPipe();
    std::string got;
    writeFull(pipe.writeEnd.get(), "last words");
    readRestOfPipe(pipe.readEnd.get(), [&](std::string_view bytes) { got += bytes; });
    EXPECT_EQ(got, "last words");
}

TEST(DiffHook, WhoGoesOnWritingIsHeardForAPipefulAndNoMore) {
    Pipe pipe = nonBlockingPipe();
    size_t got = 0;
    constexpr size_t farTooMuch = 1 << 26;
    writeFull(pipe.writeEnd.get(), "x");
    readRestOfPipe(pipe.readEnd.get(), [&](std::string_view bytes) {
        got += bytes.size();
        if (got < farTooMuch) {
            writeFull(pipe.writeEnd.get(), std::string(30000, 'x')); // as another process would
        }
    });
    EXPECT_GT(got, 64u * 1024);
    EXPECT_LE(got, 2u * 1024 * 1024);
}

} // namespace
} // namespace firn
