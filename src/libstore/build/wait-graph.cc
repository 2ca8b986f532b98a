#include "libstore/build/wait-graph.hh"

#include <algorithm>

#include "libutil/error.hh"

namespace firn {

namespace {

constexpr size_t longestWayShown = 8;

} // namespace

WaitGraph::Wait::Wait(WaitGraph &graph, const Node &waiter, const Node &awaited)
    : graph_(graph), waiter_(waiter), awaited_(awaited) {
    graph_.waits_[waiter_].insert(awaited_);
}

WaitGraph::Wait::~Wait() {
    auto waits = graph_.waits_.find(waiter_);
    waits->second.erase(waits->second.find(awaited_));
    if (waits->second.empty()) {
        graph_.waits_.erase(waits);
    }
}

/// Both ends included; empty if there is none.
std::vector<StorePath> WaitGraph::wayTo(const Node &from, const Node &to) const {
    std::map<Node, const Node *> cameFrom{{from, nullptr}};
    std::vector<const Node *> pending{&cameFrom.begin()->first};
    while (!pending.empty() && !cameFrom.contains(to)) {
        const Node *node = pending.back();
        pending.pop_back();
        auto waits = waits_.find(*node);
        if (waits == waits_.end()) {
            continue;
        }
        for (const Node &next : waits->second) {
            if (auto [added, isNew] = cameFrom.emplace(next, node); isNew) {
                pending.push_back(&added->first);
            }
        }
    }
    std::vector<StorePath> way;
    auto end = cameFrom.find(to);
    for (const Node *node = end == cameFrom.end() ? nullptr : &end->first; node; node = cameFrom.at(*node)) {
        way.push_back(node->first);
    }
    std::ranges::reverse(way);
    return way;
}

void WaitGraph::refuseCircle(const Node &waiter, const Node &awaited) const {
    if (!looking_) {
        return;
    }
    std::vector<StorePath> way = wayTo(awaited, waiter);
    if (way.empty()) {
        return;
    }
    std::string round;
    for (size_t i = 0; i < std::min(way.size(), longestWayShown); ++i) {
        round += fmt::format("\n  which needs '{}'", store_.print(way[i]));
    }
    throw Error(
        ErrorKind::failure,
        "cannot build '{}': a derivation that was made for it needs it in turn, so that neither could "
        "ever be built:{}{}",
        store_.print(waiter.first), round, way.size() > longestWayShown ? "\n  ..." : "");
}

} // namespace firn
