#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "libstore/build/build-result.hh"
#include "libstore/model/store-path.hh"

// The hash of a derivation mostly has those of its inputs in it, so that none can need itself. But the hash
// of a fixed or an impure one leaves its inputs out, and a builder that makes a derivation can put its own
// output into that; of dynamic inputs it comes out while they are made which derivations they are. Nothing
// would ever end the wait of goals that wait for each other.

namespace firn {

/// Who waits for whom among the goals of one request. One thread.
class WaitGraph {
  public:
    using Node = std::pair<StorePath, BuildMode>;

    explicit WaitGraph(const StoreDir &store) : store_(store) {}

    void begin(const Node &goal) { unfinished_.insert(goal); }
    /// Nobody waits for it any more, nor does it.
    void end(const Node &goal);

    /// A wait, until it is destroyed or either of the two ends; the graph must outlive it.
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

    /// Every goal waits for another one, so that there is a circle of them. (Where there is one, everything
    /// else comes to its end some time.)
    bool isStuck() const { return !unfinished_.empty() && waits_.size() == unfinished_.size(); }
    /// For an error; only if stuck.
    std::string describeCircle() const;

  private:
    using Edges = std::map<Node, std::multiset<Node>>;
    static void remove(Edges &edges, const Node &from, const Node &to);
    static void removeAll(Edges &edges, Edges &reversed, const Node &from);

    const StoreDir &store_;
    std::set<Node> unfinished_;
    Edges waits_, awaitedBy_; ///< among those
};

} // namespace firn
