#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "libstore/build/build-result.hh"
#include "libstore/model/store-path.hh"

// The hash of a derivation has those of its inputs in it, so no derivation can need itself. Dynamic inputs
// are another matter: which derivations they are comes out while they are made, and may be one that waits for
// just that. Nothing would ever end such a wait.

namespace firn {

/// Who waits for whom among the goals of one request. One thread.
class WaitGraph {
  public:
    using Node = std::pair<StorePath, BuildMode>;

    explicit WaitGraph(const StoreDir &store) : store_(store) {}

    /// A wait, until it is destroyed; the graph must outlive it.
    class Wait {
      public:
        Wait(WaitGraph &graph, const Node &waiter, const Node &awaited);
        ~Wait();
        Wait(const Wait &) = delete;
        Wait &operator=(const Wait &) = delete;

      private:
        WaitGraph &graph_;
        Node waiter_, awaited_;
    };

    /// From now on circles are possible, and looked for.
    void expectCircles() { looking_ = true; }
    /// Throws Error(failure) with the way round if the wait would close a circle.
    void refuseCircle(const Node &waiter, const Node &awaited) const;

  private:
    std::vector<StorePath> wayTo(const Node &from, const Node &to) const;

    const StoreDir &store_;
    std::map<Node, std::multiset<Node>> waits_;
    bool looking_ = false;
};

} // namespace firn
