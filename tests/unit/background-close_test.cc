#include "libutil/background-close.hh"

#include <gtest/gtest.h>
#include <unistd.h>

namespace firn {
namespace {

TEST(CloseInBackground, ClosesEveryDescriptor) {
    std::vector<UniqueFd> readEnds, writeEnds;
    for (int i = 0; i < 5; ++i) {
        Pipe pipe = makePipe();
        readEnds.push_back(std::move(pipe.readEnd));
        writeEnds.push_back(std::move(pipe.writeEnd));
    }
    closeInBackground(std::move(writeEnds));
    for (const UniqueFd &end : readEnds) {
        char byte;
        EXPECT_EQ(read(end.get(), &byte, 1), 0); // waits for it
    }
    closeInBackground({});
}

} // namespace
} // namespace firn
