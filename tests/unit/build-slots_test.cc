#include "libstore/build/build-slots.hh"

#include <csignal>
#include <cstdlib>
#include <vector>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libutil/file-descriptor.hh"

namespace firn {
namespace {

class BuildSlotsTest : public testing::Test {
  protected:
    void SetUp() override {
        char name[] = "/tmp/firn-build-slots-XXXXXX";
        ASSERT_NE(mkdtemp(name), nullptr);
        state = name;
    }
    void TearDown() override { std::filesystem::remove_all(state); }

    std::filesystem::path state;
};

TEST_F(BuildSlotsTest, areNoMoreThanTheyAre) {
    BuildSlots slots(state, 2);
    std::optional<SlotLease> first = slots.tryAcquire(), second = slots.tryAcquire();
    ASSERT_TRUE(first && second);
    EXPECT_NE(first->number(), second->number());
    EXPECT_FALSE(slots.tryAcquire());
    first.reset();
    EXPECT_TRUE(slots.tryAcquire());
}

TEST_F(BuildSlotsTest, areSharedByProcessesAndComeBackWhenOneIsKilled) {
    Pipe ready = makePipe();
    pid_t child = fork();
    if (child == 0) {
        BuildSlots theirs(state, 3);
        std::vector<SlotLease> leases;
        while (std::optional<SlotLease> lease = theirs.tryAcquire()) {
            leases.push_back(std::move(*lease));
        }
        char count = static_cast<char>(leases.size());
        _exit(write(ready.writeEnd.get(), &count, 1) == 1 && pause() ? 1 : 0);
    }
    char count = 0;
    ASSERT_EQ(read(ready.readEnd.get(), &count, 1), 1);
    EXPECT_EQ(count, 3);
    BuildSlots ours(state, 3);
    EXPECT_FALSE(ours.tryAcquire());
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    EXPECT_TRUE(ours.tryAcquire());
}

TEST_F(BuildSlotsTest, areAtLeastOne) {
    BuildSlots slots(state, 0);
    EXPECT_TRUE(slots.tryAcquire());
}

} // namespace
} // namespace firn
