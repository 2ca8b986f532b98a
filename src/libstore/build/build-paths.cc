#include "libstore/build/build-paths.hh"

#include <deque>

#include "libstore/build/derivation-goal.hh"
#include "libstore/build/worker.hh"
#include "libutil/error.hh"
#include "libutil/interrupt.hh"

namespace firn {

namespace {

using Status = BuildResult::Status;

BuildResult opaqueResult(LocalStore &store, const StorePath &path) {
    BuildResult result;
    store.addTempRoot(path);
    if (store.isValidPath(path)) {
        result.status = Status::alreadyValid;
    } else {
        result.status = Status::noSubstituters;
        result.errorMessage =
            fmt::format("path '{}' does not exist and cannot be created (there are no substituters)",
                        store.dir().print(path));
    }
    return result;
}

Task<BuildResult> buildOutputs(BuildWorker &worker, const BuiltPath &path, BuildMode mode) {
    std::optional<WaitGraph::Node> nobody;
    StorePath drvPath = co_await worker.makeDerivation(path.drvPath, path.through, nobody);
    BuildRequest request{.drvPath = drvPath, .outputs = path.outputs, .mode = mode};
    BuildResult built = co_await worker.build(request);
    if (built.success()) {
        Derivation drv = worker.store.readDerivation(drvPath);
        worker.addRealisations(drv, path.outputs, built);
    }
    co_return built;
}

Task<> buildOne(BuildWorker &worker, const BuiltPath &path, BuildMode mode, BuildResult &result) {
    try {
        result = co_await buildOutputs(worker, path, mode);
    } catch (const BuildFailure &failure) {
        result.status = failure.status();
        result.errorMessage = failure.message();
        result.lackedDescriptors = failure.lackedDescriptors();
    }
    worker.endUnlessKeepGoing(result);
}

std::vector<const BuildResult *> failures(const std::vector<BuildResult> &results) {
    std::vector<const BuildResult *> failed;
    for (const BuildResult &result : results) {
        if (!result.success()) {
            failed.push_back(&result);
        }
    }
    return failed;
}

std::string summary(const StoreDir &store, const std::vector<DerivedPath> &paths,
                    const std::vector<BuildResult> &results) {
    std::vector<std::string> names;
    for (size_t i = 0; i < paths.size(); i++) {
        if (!results[i].success()) {
            names.push_back(fmt::format("'{}'", printDerivedPath(store, paths[i], '^')));
        }
    }
    return fmt::format("build of {} failed", fmt::join(names, ", "));
}

} // namespace

std::vector<BuildResult> buildPaths(BuildContext &context, const std::vector<DerivedPath> &paths,
                                    BuildMode mode) {
    std::vector<BuildResult> results(paths.size());
    BuildWorker worker(context);
    for (size_t i = 0; i < paths.size(); i++) {
        if (const auto *built = std::get_if<BuiltPath>(&paths[i])) {
            BuildResult &result = results[i];
            worker.loop.spawn(
                [&worker, built, mode, &result] { return buildOne(worker, *built, mode, result); });
        } else {
            results[i] = opaqueResult(context.store, std::get<OpaquePath>(paths[i]).path);
            worker.endUnlessKeepGoing(results[i]);
        }
    }
    worker.run();
    return results;
}

BuildResult buildDerivation(BuildContext &context, const StorePath &drvPath, const BasicDerivation &drv,
                            BuildMode mode) {
    BuildWorker worker(context);
    auto goal = std::make_shared<DerivationGoal>(worker, drvPath, drv, mode);
    worker.addGoal(goal);
    worker.run();
    BuildResult result = goal->result();
    if (result.success()) {
        Derivation whole;
        static_cast<BasicDerivation &>(whole) = drv;
        worker.addRealisations(whole, {}, result);
    }
    return result;
}

// ---- what would be done

namespace {

class MissingSearch {
  public:
    explicit MissingSearch(LocalStore &store) : store_(store) {}

    void add(const DerivedPath &path) { queue_.push_back(path); }

    MissingPaths run() {
        while (!queue_.empty()) {
            throwIfInterrupted();
            DerivedPath next = std::move(queue_.front());
            queue_.pop_front();
            if (!seen_.insert(next).second) {
                continue;
            }
            if (const auto *built = std::get_if<BuiltPath>(&next)) {
                look(*built);
            } else if (const StorePath &path = std::get<OpaquePath>(next).path; !store_.isValidPath(path)) {
                result_.unknown.insert(path);
            }
        }
        return std::move(result_);
    }

  private:
    using OutputPaths = std::map<std::string, std::optional<StorePath>>;

    void look(const BuiltPath &built) {
        if (!store_.isValidPath(built.drvPath)) {
            result_.unknown.insert(built.drvPath);
        } else if (built.through.empty()) {
            lookAtOutputs(built);
        } else {
            lookAtMaker(built);
        }
    }

    void lookAtOutputs(const BuiltPath &built) {
        if (allValid(built.drvPath, built.outputs)) {
            return;
        }
        result_.willBuild.insert(built.drvPath);
        for (BuiltPath &needed : neededOutputs(store_.readDerivation(built.drvPath))) {
            queue_.push_back(std::move(needed));
        }
    }

    /// What a derivation needs that is not made yet is not known: only what makes it is told.
    void lookAtMaker(const BuiltPath &built) {
        const OutputPaths &known = outputsOf(built.drvPath);
        const std::string &name = built.through.front();
        auto output = known.find(name);
        if (output == known.end() || !output->second || !store_.isValidPath(*output->second)) {
            queue_.push_back(BuiltPath{built.drvPath, {name}});
        } else if (output->second->isDerivation()) {
            queue_.push_back(
                BuiltPath{*output->second, built.outputs, {built.through.begin() + 1, built.through.end()}});
        }
    }

    bool allValid(const StorePath &drvPath, const std::set<std::string> &wanted) {
        for (const auto &[name, path] : outputsOf(drvPath)) {
            if (!wanted.empty() && !wanted.contains(name)) {
                continue;
            }
            if (!path || !store_.isValidPath(*path)) {
                return false;
            }
        }
        return true;
    }

    /// A derivation may be the maker of many.
    const OutputPaths &outputsOf(const StorePath &drvPath) {
        auto found = outputs_.find(drvPath);
        return found != outputs_.end()
                   ? found->second
                   : outputs_.emplace(drvPath, store_.queryDerivationOutputMap(drvPath)).first->second;
    }

    LocalStore &store_;
    std::map<StorePath, OutputPaths> outputs_; ///< as far as they were asked for
    std::deque<DerivedPath> queue_;
    std::set<DerivedPath> seen_;
    MissingPaths result_;
};

} // namespace

MissingPaths queryMissing(LocalStore &store, const std::vector<DerivedPath> &paths) {
    MissingSearch search(store);
    for (const DerivedPath &path : paths) {
        search.add(path);
    }
    return search.run();
}

// ---- one error for all

void throwIfFailed(const StoreDir &store, Logger &logger, const std::vector<DerivedPath> &paths,
                   const std::vector<BuildResult> &results) {
    std::vector<const BuildResult *> failed = failures(results);
    if (failed.size() > 1) {
        for (const BuildResult *result : failed) {
            if (!result->errorMessage.empty()) {
                logger.log(Verbosity::error, "error: " + result->errorMessage);
            }
        }
        throw Error(ErrorKind::failure, summary(store, paths, results));
    }
    throwIfFailed(store, paths, results);
}

void throwIfFailed(const StoreDir &store, const std::vector<DerivedPath> &paths,
                   const std::vector<BuildResult> &results) {
    std::vector<const BuildResult *> failed = failures(results);
    if (failed.empty()) {
        return;
    }
    if (failed.size() == 1 && !failed.front()->errorMessage.empty()) {
        throw Error(ErrorKind::failure, failed.front()->errorMessage);
    }
    std::string message;
    for (const BuildResult *result : failed) {
        message += result->errorMessage.empty() ? "" : result->errorMessage + "\n";
    }
    throw Error(ErrorKind::failure, message + summary(store, paths, results));
}

} // namespace firn
