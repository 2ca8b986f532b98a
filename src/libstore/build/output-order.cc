#include "libstore/build/output-order.hh"

#include <algorithm>
#include <set>

namespace firn {

namespace {

/// Indices of the outputs that each output refers to, other than itself.
std::vector<std::set<size_t>> outputReferences(const ScanTargets &targets, const NewOutputs &outputs) {
    std::map<StorePath, size_t> indexOf;
    for (size_t i = 0; i < outputs.size(); ++i) {
        indexOf.emplace(outputs[i].scratch->scratchPath, i);
        if (outputs[i].scratch->finalPath) {
            indexOf.emplace(*outputs[i].scratch->finalPath, i);
        }
    }
    std::vector<std::set<size_t>> references(outputs.size());
    for (size_t i = 0; i < outputs.size(); ++i) {
        for (size_t part = 0; part < targets.paths.size(); ++part) {
            auto found = indexOf.find(targets.paths[part]);
            if (outputs[i].scan.found[part] && found != indexOf.end() && found->second != i) {
                references[i].insert(found->second);
            }
        }
    }
    return references;
}

/// Goes from one reference to the next till it comes to a place where it was before.
[[noreturn]] void rejectCycle(const RegistrationContext &context, const NewOutputs &outputs,
                              const std::vector<std::set<size_t>> &left, size_t start) {
    std::set<size_t> seen;
    size_t from = start;
    while (seen.insert(from).second && !seen.contains(*left[from].begin())) {
        from = *left[from].begin();
    }
    rejectOutput(
        fmt::format("cycle detected in build of '{}' in the references of output '{}' from output '{}'",
                    context.drv, outputs[*left[from].begin()].name, outputs[from].name));
}

} // namespace

NewOutputs orderOutputs(const RegistrationContext &context, const ScanTargets &targets, NewOutputs outputs) {
    std::vector<std::set<size_t>> left = outputReferences(targets, outputs);
    std::vector<std::set<size_t>> referrers(outputs.size());
    std::vector<size_t> ready;
    for (size_t i = 0; i < left.size(); ++i) {
        for (size_t reference : left[i]) {
            referrers[reference].insert(i);
        }
        if (left[i].empty()) {
            ready.push_back(i);
        }
    }
    std::vector<bool> done(outputs.size());
    NewOutputs ordered;
    while (!ready.empty()) {
        size_t next = ready.back();
        ready.pop_back();
        for (size_t referrer : referrers[next]) {
            left[referrer].erase(next);
            if (left[referrer].empty()) {
                ready.push_back(referrer);
            }
        }
        done[next] = true;
        ordered.push_back(std::move(outputs[next]));
    }
    auto stuck = std::find(done.begin(), done.end(), false);
    if (stuck != done.end()) {
        rejectCycle(context, outputs, left, static_cast<size_t>(stuck - done.begin()));
    }
    return ordered;
}

} // namespace firn
