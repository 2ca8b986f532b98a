#include "libstore/build/wait-graph.hh"

#include <algorithm>

#include "libutil/error.hh"

namespace firn {

namespace {

constexpr size_t longestWayShown = 8;

} // namespace

/// One of them, if there is any.
void WaitGraph::remove(Edges &edges, const Node &from, const Node &to) {
    auto found = edges.find(from);
    if (found == edges.end()) {
        return;
    }
    if (auto edge = found->second.find(to); edge != found->second.end()) {
        found->second.erase(edge);
    }
    if (found->second.empty()) {
        edges.erase(found);
    }
}

void WaitGraph::removeAll(Edges &edges, Edges &reversed, const Node &from) {
    if (auto found = edges.extract(from)) {
        for (const Node &to : found.mapped()) {
            remove(reversed, to, from);
        }
    }
}

void WaitGraph::end(const Node &goal) {
    unfinished_.erase(goal);
    removeAll(waits_, awaitedBy_, goal);
    removeAll(awaitedBy_, waits_, goal);
}

WaitGraph::Wait::Wait(WaitGraph &graph, const Node &waiter, const Node &awaited)
    : graph_(graph), waiter_(waiter), awaited_(awaited) {
    if (graph_.unfinished_.contains(waiter) && graph_.unfinished_.contains(awaited)) {
        graph_.waits_[waiter].insert(awaited);
        graph_.awaitedBy_[awaited].insert(waiter);
    }
}

WaitGraph::Wait::~Wait() {
    remove(graph_.waits_, waiter_, awaited_);
    remove(graph_.awaitedBy_, awaited_, waiter_);
}

std::string WaitGraph::describeCircle() const {
    std::vector<StorePath> way;
    std::map<Node, size_t> places;
    const Node *node = &waits_.begin()->first;
    while (places.emplace(*node, way.size()).second) {
        way.push_back(node->first);
        node = &*waits_.at(*node).begin();
    }
    way.erase(way.begin(), way.begin() + static_cast<std::ptrdiff_t>(places.at(*node)));
    way.push_back(node->first);
    std::string round;
    for (size_t i = 1; i < std::min(way.size(), longestWayShown); ++i) {
        round += fmt::format("\n  which needs '{}'", store_.print(way[i]));
    }
    return fmt::format("cannot build '{}': what it needs needs it in turn, so that neither could ever be "
                       "built:{}{}",
                       store_.print(way.front()), round, way.size() > longestWayShown ? "\n  ..." : "");
}

} // namespace firn
