#include "libstore/build/output-checks.hh"

#include <vector>

#include "libstore/build/register-outputs.hh"

namespace firn {

namespace {

[[noreturn]] void reject(const std::string &message) {
    throw BuildFailure(BuildResult::Status::outputRejected, message);
}

struct Closure {
    StorePathSet paths;
    uint64_t size = 0; ///< bytes of all archives
};

class OutputChecker {
  public:
    OutputChecker(const OutputCheckContext &context, const std::map<std::string, PathInfo> &outputs)
        : context_(context) {
        for (const auto &[name, info] : outputs) {
            infos_.emplace(info.path, info);
        }
    }

    void check(const PathInfo &info, const OutputChecks &checks);

  private:
    enum class Kind { allowed, disallowed };

    void checkSizes(const PathInfo &info, const OutputChecks &checks);
    void checkPaths(const PathInfo &info, const StorePathSet &used, const std::optional<StringSet> &listed,
                    Kind kind) const;
    StorePathSet resolve(const StringSet &specifiers) const;
    StorePath resolve(const std::string &specifier) const;
    const PathInfo &infoOf(const StorePath &path);
    Closure closureOf(const StorePath &path);

    const OutputCheckContext &context_;
    std::map<StorePath, PathInfo> infos_; ///< of the outputs, and of what was asked for
};

void OutputChecker::check(const PathInfo &info, const OutputChecks &checks) {
    checkSizes(info, checks);
    checkPaths(info, info.references, checks.allowedReferences, Kind::allowed);
    checkPaths(info, info.references, checks.disallowedReferences, Kind::disallowed);
    if (checks.allowedRequisites || checks.disallowedRequisites) {
        StorePathSet requisites = closureOf(info.path).paths;
        if (checks.ignoreSelfReferences) {
            requisites.erase(info.path);
        }
        checkPaths(info, requisites, checks.allowedRequisites, Kind::allowed);
        checkPaths(info, requisites, checks.disallowedRequisites, Kind::disallowed);
    }
}

void OutputChecker::checkSizes(const PathInfo &info, const OutputChecks &checks) {
    if (checks.maxSize && info.narSize > *checks.maxSize) {
        reject(fmt::format("path '{}' is too large at {} bytes; limit is {} bytes",
                           context_.store.print(info.path), info.narSize, *checks.maxSize));
    }
    if (!checks.maxClosureSize) {
        return;
    }
    uint64_t size = closureOf(info.path).size;
    if (size > *checks.maxClosureSize) {
        reject(fmt::format("closure of path '{}' is too large at {} bytes; limit is {} bytes",
                           context_.store.print(info.path), size, *checks.maxClosureSize));
    }
}

void OutputChecker::checkPaths(const PathInfo &info, const StorePathSet &used,
                               const std::optional<StringSet> &listed, Kind kind) const {
    if (!listed) {
        return;
    }
    StorePathSet specified = resolve(*listed);
    std::string bad;
    for (const StorePath &path : used) {
        if (specified.contains(path) != (kind == Kind::allowed)) {
            bad += "\n  " + context_.store.print(path);
        }
    }
    if (!bad.empty()) {
        reject(fmt::format("output '{}' is not allowed to refer to the following paths:{}",
                           context_.store.print(info.path), bad));
    }
}

StorePathSet OutputChecker::resolve(const StringSet &specifiers) const {
    StorePathSet paths;
    for (const std::string &specifier : specifiers) {
        paths.insert(resolve(specifier));
    }
    return paths;
}

StorePath OutputChecker::resolve(const std::string &specifier) const {
    if (auto path = context_.store.tryParse(specifier)) {
        return *path;
    }
    for (const auto &[name, path] : context_.outputPaths) {
        if (specifier == name || specifier == outputPlaceholder(name)) {
            return path;
        }
    }
    reject(
        fmt::format("derivation contains an illegal reference specifier '{}'", escapeForDisplay(specifier)));
}

const PathInfo &OutputChecker::infoOf(const StorePath &path) {
    auto found = infos_.find(path);
    return found != infos_.end() ? found->second
                                 : infos_.emplace(path, context_.readInfo(path)).first->second;
}

Closure OutputChecker::closureOf(const StorePath &path) {
    Closure closure;
    std::vector<StorePath> pending{path};
    closure.paths.insert(path);
    while (!pending.empty()) {
        const PathInfo &info = infoOf(pending.back());
        pending.pop_back();
        closure.size += info.narSize;
        for (const StorePath &reference : info.references) {
            if (closure.paths.insert(reference).second) {
                pending.push_back(reference);
            }
        }
    }
    return closure;
}

} // namespace

void checkOutputs(const OutputCheckContext &context, const std::map<std::string, PathInfo> &outputs) {
    OutputChecker checker(context, outputs);
    for (const auto &[name, info] : outputs) {
        checker.check(info, context.options.checksFor(name));
    }
}

} // namespace firn
