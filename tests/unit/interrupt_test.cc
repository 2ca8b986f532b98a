#include "libutil/interrupt.hh"

#include <thread>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "libutil/file-descriptor.hh"
#include "libutil/files.hh"
#include "libutil/nar.hh"

using namespace firn;
using namespace std::chrono_literals;

namespace {

/// A file of 1 TiB without a byte in it: hashing it takes many minutes.
class Interrupt : public testing::Test {
  protected:
    void SetUp() override {
        char name[] = "/tmp/firn-interrupt-XXXXXX";
        ASSERT_NE(mkdtemp(name), nullptr);
        path_ = name;
        dir_.reset(open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        UniqueFd file(openat(dir_.get(), "sparse", O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
        ASSERT_EQ(ftruncate(file.get(), off_t(1) << 40), 0);
    }
    void TearDown() override {
        clearInterrupt();
        unlinkat(dir_.get(), "sparse", 0);
        rmdir(path_.c_str());
    }
    void hash() { hashNar(dir_.get(), "sparse"); }

    std::string path_;
    UniqueFd dir_;
};

} // namespace

TEST_F(Interrupt, stopsTheHashOfASparseFile) {
    std::thread other([] {
        std::this_thread::sleep_for(50ms);
        requestInterrupt();
    });
    try {
        hash();
        ADD_FAILURE() << "it ended";
    } catch (const Error &error) {
        EXPECT_EQ(error.kind(), ErrorKind::interrupted);
    }
    other.join();
}

TEST_F(Interrupt, aDeadlineStopsTheHashOfASparseFile) {
    WorkDeadline deadline(std::chrono::steady_clock::now() + 50ms);
    EXPECT_THROW(hash(), DeadlinePassed);
}

TEST_F(Interrupt, neitherIsThereAfterItsEnd) {
    requestInterrupt();
    clearInterrupt();
    { WorkDeadline deadline(std::chrono::steady_clock::now()); }
    EXPECT_NO_THROW(throwIfInterrupted());
    WorkDeadline never(std::chrono::steady_clock::time_point::max());
    EXPECT_NO_THROW(throwIfInterrupted());
}
