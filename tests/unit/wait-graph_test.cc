#include "libstore/build/wait-graph.hh"

#include <memory>

#include <gtest/gtest.h>

#include "libutil/hash.hh"

using namespace firn;

namespace {

const StoreDir store("/nix/store");

WaitGraph::Node node(const std::string &name, BuildMode mode = BuildMode::normal) {
    return {StorePath(hashString(HashAlgorithm::sha1, name).digest(), name + ".drv"), mode};
}

std::string refusal(const WaitGraph &graph, const WaitGraph::Node &waiter, const WaitGraph::Node &awaited) {
    try {
        graph.refuseCircle(waiter, awaited);
        return "";
    } catch (const Error &error) {
        EXPECT_EQ(error.kind(), ErrorKind::failure);
        return error.message();
    }
}

} // namespace

TEST(WaitGraph, aWaitThatClosesACircleIsRefusedWithTheWayRound) {
    WaitGraph graph(store);
    graph.expectCircles();
    WaitGraph::Wait ab(graph, node("a"), node("b")), bc(graph, node("b"), node("c")),
        bd(graph, node("b"), node("d"));
    EXPECT_EQ(refusal(graph, node("a"), node("d")), "");
    std::string message = refusal(graph, node("c"), node("a"));
    size_t a = message.find("-a.drv"), b = message.find("-b.drv"), c = message.rfind("-c.drv");
    EXPECT_TRUE(a < b && b < c && c != std::string::npos) << message;
    EXPECT_EQ(message.find("-d.drv"), std::string::npos) << message;
}

TEST(WaitGraph, nobodyMayWaitForItself) {
    WaitGraph graph(store);
    graph.expectCircles();
    EXPECT_NE(refusal(graph, node("a"), node("a")), "");
    EXPECT_EQ(refusal(graph, node("a", BuildMode::check), node("a")), "");
}

TEST(WaitGraph, aWaitThatIsOverIsForgotten) {
    WaitGraph graph(store);
    graph.expectCircles();
    auto first = std::make_unique<WaitGraph::Wait>(graph, node("a"), node("b"));
    auto second = std::make_unique<WaitGraph::Wait>(graph, node("a"), node("b"));
    first.reset();
    EXPECT_NE(refusal(graph, node("b"), node("a")), "");
    second.reset();
    EXPECT_EQ(refusal(graph, node("b"), node("a")), "");
}

TEST(WaitGraph, aLongWayIsCutShort) {
    WaitGraph graph(store);
    graph.expectCircles();
    std::vector<std::unique_ptr<WaitGraph::Wait>> waits;
    for (int i = 0; i < 1000; ++i) {
        waits.push_back(
            std::make_unique<WaitGraph::Wait>(graph, node(std::to_string(i)), node(std::to_string(i + 1))));
    }
    std::string message = refusal(graph, node("1000"), node("0"));
    EXPECT_NE(message, "");
    EXPECT_LT(message.size(), 2000u);
}

TEST(WaitGraph, looksOnlyWhereCirclesAreExpected) {
    WaitGraph graph(store);
    WaitGraph::Wait wait(graph, node("a"), node("b"));
    EXPECT_EQ(refusal(graph, node("b"), node("a")), "");
}
