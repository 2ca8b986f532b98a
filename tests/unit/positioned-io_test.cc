#include "libutil/positioned-io.hh"

#include <csignal>
#include <string>

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "libutil/file-descriptor.hh"
#include "unit/expect-error.hh"
#include "unit/temporary-directory.hh"

namespace firn {
namespace {

class PositionedIoTest : public testing::Test {
  protected:
    std::string read(uint64_t offset, size_t size) {
        std::string bytes(size, '?');
        readFullAt(file_.get(), offset, bytes.data(), size);
        return bytes;
    }

    TemporaryDirectory scratch_;
    UniqueFd file_{open((scratch_ / "file").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
};

TEST_F(PositionedIoTest, ReadsAndWritesAtAPlaceWithoutMovingTheFilesOwn) {
    writeFullAt(file_.get(), 3, "defg");
    writeFullAt(file_.get(), 0, "abcD");
    EXPECT_EQ(read(0, 7), "abcDefg");
    EXPECT_EQ(read(2, 3), "cDe");
    EXPECT_EQ(read(7, 0), "");
    EXPECT_EQ(lseek(file_.get(), 0, SEEK_CUR), 0);
}

TEST_F(PositionedIoTest, AFileThatEndsBeforeIsAnError) {
    writeFullAt(file_.get(), 0, "12345");
    EXPECT_EQ(read(1, 4), "2345");
    EXPECT_NE(expectError(ErrorKind::failure, [&] { read(1, 9); }).find("shorter than 10 bytes"),
              std::string::npos);
}

TEST_F(PositionedIoTest, WhatCannotBeWrittenIsAnErrorThatSaysHowMuchIsLeft) {
    rlimit before;
    ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
    auto handler = signal(SIGXFSZ, SIG_IGN);
    rlimit limit{4, before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    std::string message = expectError(ErrorKind::system, [&] { writeFullAt(file_.get(), 1, "12345"); });
    setrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, handler);
    EXPECT_EQ(message.find("writing 2 bytes at 4: "), 0u) << message;
    EXPECT_EQ(read(1, 3), "123");
}

} // namespace
} // namespace firn
