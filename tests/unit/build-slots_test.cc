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
    EXPECT_NE(first->name(), second->name());
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

TEST_F(BuildSlotsTest, aClientInsideABuildTakesThatBuildsSlot) {
    BuildSlots outer(state, 1);
    std::optional<SlotLease> slot = outer.tryAcquire();
    ASSERT_TRUE(slot);
    slot->setBuilder(getppid());
    BuildSlots inner(state, 1);
    EXPECT_FALSE(inner.tryAcquire());
    inner.setClient(getpid());
    std::optional<SlotLease> within = inner.tryAcquire();
    ASSERT_TRUE(within);
    EXPECT_EQ(within->name(), slot->name() + ".inner");
    EXPECT_FALSE(inner.tryAcquire()) << "one at a time";
    within->setBuilder(getpid());
    BuildSlots innermost(state, 1);
    innermost.setClient(getpid());
    EXPECT_EQ(innermost.tryAcquire()->name(), slot->name() + ".inner.inner");
}

TEST_F(BuildSlotsTest, whoeverHeldASlotBeforeLendsItToNobody) {
    BuildSlots outer(state, 1), inner(state, 1);
    outer.tryAcquire()->setBuilder(getppid());
    inner.setClient(getpid());
    std::optional<SlotLease> slot = outer.tryAcquire(); // by another build now, which has not started yet
    EXPECT_FALSE(inner.tryAcquire());
    inner.setClient(getpid());
    EXPECT_FALSE(inner.tryAcquire());
}

TEST_F(BuildSlotsTest, aClientThatHasEndedOrIsUnknownIsInNoBuild) {
    BuildSlots outer(state, 1), inner(state, 1);
    std::optional<SlotLease> slot = outer.tryAcquire();
    slot->setBuilder(getpid());
    pid_t child = fork();
    if (child == 0) {
        _exit(0);
    }
    waitpid(child, nullptr, 0);
    for (pid_t client : {child, -1, 0, 1}) {
        inner.setClient(client);
        EXPECT_FALSE(inner.tryAcquire()) << client;
    }
}

TEST_F(BuildSlotsTest, areAtLeastOne) {
    BuildSlots slots(state, 0);
    EXPECT_TRUE(slots.tryAcquire());
}

} // namespace
} // namespace firn
