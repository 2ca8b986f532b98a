#include "libutil/descriptor-limit.hh"

#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>

#include "libutil/error.hh"
#include "libutil/file-descriptor.hh"

namespace firn {
namespace {

/// With a soft limit of 64, of which gtest has a handful.
class DescriptorLimitTest : public testing::Test {
  protected:
    static constexpr int limit = 64;

    void SetUp() override {
        ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before_), 0);
        setLimit(limit);
    }
    void TearDown() override { setrlimit(RLIMIT_NOFILE, &before_); }

    void setLimit(rlim_t soft) {
        struct rlimit changed {
            soft, before_.rlim_max
        };
        ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &changed), 0);
    }

    UniqueFd openAtLeast(int number) {
        UniqueFd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
        return UniqueFd(fcntl(null.get(), F_DUPFD_CLOEXEC, number));
    }

    /// Opens all but `left` of them.
    void leave(size_t left) {
        while (UniqueFd next{open("/dev/null", O_RDONLY | O_CLOEXEC)}) {
            taken_.push_back(std::move(next));
        }
        ASSERT_GE(taken_.size(), left);
        taken_.resize(taken_.size() - left);
    }

    int errorOf(size_t count) {
        try {
            requireDescriptors(count);
            return 0;
        } catch (const SysError &error) {
            return error.number();
        }
    }

  private:
    struct rlimit before_ {};
    std::vector<UniqueFd> taken_;
};

TEST_F(DescriptorLimitTest, AsManyAsAreFreeCanBeHad) {
    leave(10);
    EXPECT_EQ(errorOf(10), 0);
    EXPECT_EQ(errorOf(11), EMFILE);
    EXPECT_EQ(errorOf(limit + 1), EMFILE);
    // Nothing was kept.
    EXPECT_EQ(errorOf(10), 0);
}

TEST_F(DescriptorLimitTest, FreeOnesAreFoundBelowOnesInUse) {
    UniqueFd last = openAtLeast(limit - 1);
    ASSERT_EQ(last.get(), limit - 1);
    EXPECT_EQ(errorOf(16), 0);
    leave(10);
    EXPECT_EQ(errorOf(10), 0);
    EXPECT_EQ(errorOf(11), EMFILE);
}

TEST_F(DescriptorLimitTest, OnesAboveALoweredLimitDoNotCount) {
    setLimit(2 * limit);
    std::vector<UniqueFd> above;
    for (int number = limit; number < 2 * limit; number += 8) {
        above.push_back(openAtLeast(number));
        ASSERT_TRUE(above.back());
    }
    setLimit(limit);
    leave(10);
    EXPECT_EQ(errorOf(10), 0);
    EXPECT_EQ(errorOf(11), EMFILE);
}

TEST_F(DescriptorLimitTest, OnesThatArePathsAloneCount) {
    leave(11);
    UniqueFd path(open("/", O_PATH | O_CLOEXEC));
    ASSERT_TRUE(path);
    EXPECT_EQ(errorOf(10), 0);
    EXPECT_EQ(errorOf(11), EMFILE);
}

} // namespace
} // namespace firn
