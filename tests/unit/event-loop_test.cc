#include "libstore/build/event-loop.hh"
#include "libutil/hang-up-watch.hh"

#include <atomic>

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "libutil/error.hh"
#include "libutil/file-descriptor.hh"

namespace firn {
namespace {

using namespace std::chrono_literals;

TEST(EventLoop, runsUntilEverybodyIsDoneAndThrowsTheFirstFailure) {
    EventLoop loop;
    bool slept = false;
    loop.spawn([&]() -> Task<> {
        Clock::time_point deadline = Clock::now() + 5ms;
        co_await loop.sleepUntil(deadline);
        slept = true;
    });
    loop.run();
    EXPECT_TRUE(slept);

    loop.spawn([]() -> Task<> {
        throw Error(ErrorKind::bug, "first");
        co_return;
    });
    EXPECT_THROW(loop.run(), Error);
}

TEST(PollTimes, lieFurtherApartUpToALimit) {
    PollTimes polls(10s, 35s);
    Clock::time_point begin = Clock::now();
    for (auto pause : {10s, 20s, 35s, 35s}) {
        Clock::time_point next = polls.next();
        EXPECT_GE(next, begin + pause);
        EXPECT_LE(next, Clock::now() + pause);
    }
}

TEST(EventLoop, endsEveryWaitWhenStopped) {
    EventLoop loop;
    Event never(loop);
    int unwound = 0;
    for (int i = 0; i < 3; i++) {
        loop.spawn([&]() -> Task<> {
            struct Guard {
                int &count;
                ~Guard() { count++; }
            } guard{unwound};
            co_await never.wait();
        });
    }
    loop.spawn([&]() -> Task<> {
        Clock::time_point deadline = Clock::now() + 5ms;
        co_await loop.sleepUntil(deadline);
        loop.stop("enough");
    });
    loop.run(); // what was stopped on purpose is no failure
    EXPECT_EQ(unwound, 3);
}

TEST(Event, letsEverybodyGoOnWhoWaitsNowOrLater) {
    EventLoop loop;
    Event event(loop);
    int woken = 0;
    auto waiter = [&]() -> Task<> {
        co_await event.wait();
        woken++;
    };
    loop.spawn(waiter);
    loop.spawn(waiter);
    loop.spawn([&]() -> Task<> {
        event.set();
        co_await event.wait();
        woken++;
    });
    loop.run();
    EXPECT_EQ(woken, 3);
}

TEST(Event, needsNoStackForAChainOfTenThousandWaiters) {
    EventLoop loop;
    std::deque<Event> events;
    for (int i = 0; i <= 10000; i++) {
        events.emplace_back(loop);
    }
    for (int i = 0; i < 10000; i++) {
        loop.spawn([&events, i]() -> Task<> {
            co_await events[i].wait();
            events[i + 1].set();
        });
    }
    events[0].set();
    loop.run();
    EXPECT_TRUE(events[10000].isSet());
}

TEST(Semaphore, handsOutPermitsInTheOrderOfAsking) {
    EventLoop loop;
    Semaphore semaphore(loop, 2);
    int running = 0, most = 0;
    std::vector<int> order;
    for (int i = 0; i < 6; i++) {
        loop.spawn([&, i]() -> Task<> {
            Semaphore::Permit permit = co_await semaphore.acquire();
            order.push_back(i);
            most = std::max(most, ++running);
            Clock::time_point deadline = Clock::now() + 2ms;
            co_await loop.sleepUntil(deadline);
            running--;
        });
    }
    loop.run();
    EXPECT_EQ(most, 2);
    EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4, 5}));
}

TEST(DescriptorWatch, wakesForDataForTheEndAndForTheDeadline) {
    EventLoop loop;
    Pipe one = makePipe(), two = makePipe();
    std::vector<std::string> seen;
    loop.spawn([&]() -> Task<> {
        DescriptorWatch watch(loop);
        watch.add(one.readEnd.get());
        watch.add(two.readEnd.get());
        Clock::time_point soon = Clock::now() + 5ms, never = Clock::time_point::max();
        co_await watch.wait(soon);
        seen.push_back("deadline");
        EXPECT_EQ(write(one.writeEnd.get(), "ab", 2), 2);
        for (int i = 0; i < 2; i++) { // what is left unread wakes again
            co_await watch.wait(never);
            char byte;
            EXPECT_EQ(read(one.readEnd.get(), &byte, 1), 1);
            seen.push_back(std::string(1, byte));
        }
        two.writeEnd.reset();
        co_await watch.wait(never);
        seen.push_back("end");
    });
    loop.run();
    EXPECT_EQ(seen, (std::vector<std::string>{"deadline", "a", "b", "end"}));
}

TEST(HangUpWatch, tellsOfAClientThatClosedAndLeavesItsBytesAlone) {
    int pair[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    UniqueFd ours(pair[0]), theirs(pair[1]);
    EventLoop loop;
    std::atomic<int> calls = 0;
    loop.spawn([&]() -> Task<> {
        Event never(loop);
        HangUpWatch watch(ours.get(), [&] {
            calls++;
            loop.stopFromThread("gone");
        });
        EXPECT_EQ(write(theirs.get(), "x", 1), 1);
        Clock::time_point deadline = Clock::now() + 20ms;
        co_await loop.sleepUntil(deadline);
        EXPECT_EQ(calls, 0); // bytes are no hang-up
        theirs.reset();
        co_await never.wait();
    });
    loop.run();
    EXPECT_EQ(calls, 1);
    char byte;
    EXPECT_EQ(read(ours.get(), &byte, 1), 1);
}

TEST(HangUpWatch, endsAtOnceWhenNobodyHangsUp) {
    Pipe pipe = makePipe();
    HangUpWatch socket(pipe.readEnd.get(), [] { ADD_FAILURE() << "nobody hung up"; });
    HangUpWatch none(-1, [] { ADD_FAILURE() << "nobody is there"; });
    SUCCEED();
}

} // namespace
} // namespace firn
