#include "libstore/build/wait-graph.hh"

#include <memory>

#include <gtest/gtest.h>

#include "libutil/error.hh"
#include "libutil/hash.hh"

using namespace firn;

namespace {

const StoreDir store("/nix/store");

WaitGraph::Node node(const std::string &name, BuildMode mode = BuildMode::normal) {
    return {StorePath(hashString(HashAlgorithm::sha1, name).digest(), name + ".drv"), mode};
}

class WaitGraphTest : public testing::Test {
  protected:
    WaitGraphTest() {
        for (const char *name : {"a", "b", "c", "d"}) {
            graph_.begin(node(name));
        }
    }

    std::unique_ptr<WaitGraph::Wait> wait(const std::string &waiter, const std::string &awaited) {
        return std::make_unique<WaitGraph::Wait>(graph_, node(waiter), node(awaited));
    }

    WaitGraph graph_{store};
};

} // namespace

TEST_F(WaitGraphTest, isStuckWhenEveryGoalWaitsForAnother) {
    auto ab = wait("a", "b"), bc = wait("b", "c"), bd = wait("b", "d"), ca = wait("c", "a");
    EXPECT_FALSE(graph_.isStuck()); // 'd' goes on
    graph_.end(node("d"));
    EXPECT_TRUE(graph_.isStuck());
    std::string message = graph_.describeCircle();
    for (const char *name : {"-a.drv", "-b.drv", "-c.drv"}) {
        EXPECT_NE(message.find(name), std::string::npos) << message;
    }
    auto step = [&](const std::string &name) {
        return fmt::format("\n  which needs '{}'", store.print(node(name).first));
    };
    // Wherever it begins.
    std::string round = step("a") + step("b") + step("c") + step("a") + step("b");
    EXPECT_NE(round.find(message.substr(message.find('\n'))), std::string::npos) << message;
    EXPECT_EQ(message.find("-d.drv"), std::string::npos) << message;
}

TEST_F(WaitGraphTest, tellsOfTheCircleAloneAndNotOfTheWayToIt) {
    auto ab = wait("a", "b"), bc = wait("b", "c"), cd = wait("c", "d"), dc = wait("d", "c");
    ASSERT_TRUE(graph_.isStuck());
    std::string message = graph_.describeCircle();
    EXPECT_EQ(message.find("-a.drv"), std::string::npos) << message;
    EXPECT_EQ(message.find("-b.drv"), std::string::npos) << message;
}

TEST_F(WaitGraphTest, aGoalThatWaitsForItselfIsStuck) {
    WaitGraph graph(store);
    EXPECT_FALSE(graph.isStuck());
    graph.begin(node("a"));
    WaitGraph::Wait self(graph, node("a"), node("a"));
    EXPECT_TRUE(graph.isStuck());
    EXPECT_NE(graph.describeCircle().find("-a.drv"), std::string::npos);
}

TEST_F(WaitGraphTest, goalsOfAnotherModeAreOthers) {
    WaitGraph graph(store);
    graph.begin(node("a"));
    graph.begin(node("a", BuildMode::check));
    WaitGraph::Wait wait(graph, node("a", BuildMode::check), node("a"));
    EXPECT_FALSE(graph.isStuck());
}

TEST_F(WaitGraphTest, whoHasEndedIsWaitedForByNobody) {
    auto ab = wait("a", "b"), bc = wait("b", "c"), cd = wait("c", "d");
    graph_.end(node("d"));
    graph_.end(node("c"));
    graph_.end(node("b"));
    EXPECT_FALSE(graph_.isStuck());
    auto again = wait("a", "b"); // was over before
    EXPECT_FALSE(graph_.isStuck());
    graph_.end(node("a"));
    EXPECT_FALSE(graph_.isStuck());
}

TEST_F(WaitGraphTest, aWaitThatIsOverIsForgotten) {
    auto first = wait("a", "b"), second = wait("a", "b"), ba = wait("b", "a"), ca = wait("c", "a"),
         da = wait("d", "a");
    EXPECT_TRUE(graph_.isStuck());
    first.reset();
    EXPECT_TRUE(graph_.isStuck());
    second.reset();
    EXPECT_FALSE(graph_.isStuck());
}

TEST_F(WaitGraphTest, aLongWayIsCutShort) {
    WaitGraph graph(store);
    std::vector<std::unique_ptr<WaitGraph::Wait>> waits;
    for (int i = 0; i < 1000; ++i) {
        graph.begin(node(std::to_string(i)));
    }
    for (int i = 0; i < 1000; ++i) {
        waits.push_back(std::make_unique<WaitGraph::Wait>(graph, node(std::to_string(i)),
                                                          node(std::to_string((i + 1) % 1000))));
    }
    ASSERT_TRUE(graph.isStuck());
    EXPECT_LT(graph.describeCircle().size(), 2000u);
}
