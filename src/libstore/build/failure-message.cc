#include "libstore/build/failure-message.hh"

#include <fmt/ranges.h>

namespace firn {

namespace {

bool wantsOldWords(const BuildContext &context) {
    return context.clientMinor <= 34;
}

std::string outputList(const BuildContext &context, const FailedBuild &build) {
    std::string result = build.outputs.empty() ? "" : "\nOutput paths:";
    for (const StorePath &path : build.outputs) {
        result += "\n  " + context.store.dir().print(path);
    }
    return result;
}

std::string tailText(const std::deque<std::string> &logTail) {
    std::string result = fmt::format("ast {} log lines:\n", logTail.size());
    for (const std::string &line : logTail) {
        result += "> " + line + "\n";
    }
    return result;
}

std::string featureList(const std::set<std::string> &features) {
    return fmt::format("{{{}}}", fmt::join(features, ", "));
}

} // namespace

std::string builderFailureMessage(const BuildContext &context, const FailedBuild &build,
                                  const std::string &reason, const std::deque<std::string> &logTail) {
    std::string drv = context.store.dir().print(build.drvPath);
    if (wantsOldWords(context)) {
        // "builder failed …" becomes "builder for '…' failed …".
        constexpr std::string_view subject = "builder";
        std::string message = reason.starts_with(subject)
                                  ? fmt::format("builder for '{}'{}", drv, reason.substr(subject.size()))
                                  : fmt::format("build of '{}' failed: {}", drv, reason);
        return logTail.empty()
                   ? message
                   : fmt::format("{};\nl{}For full logs, run 'nix log {}'.", message, tailText(logTail), drv);
    }
    std::string message =
        fmt::format("Cannot build '{}'.\nReason: {}.{}", drv, reason, outputList(context, build));
    return logTail.empty()
               ? message
               : fmt::format("{}\nL{}For full logs, run:\n  nix log {}", message, tailText(logTail), drv);
}

size_t logTailLength(const BuildContext &context) {
    bool isDefault = context.settings.logLines == Settings().logLines;
    return wantsOldWords(context) && isDefault ? 10 : context.settings.logLines;
}

std::string dependencyFailureMessage(const BuildContext &context, const FailedBuild &build, size_t failed) {
    std::string drv = context.store.dir().print(build.drvPath);
    if (wantsOldWords(context)) {
        return fmt::format("{} dependencies of derivation '{}' failed to build", failed, drv);
    }
    return fmt::format("Cannot build '{}'.\nReason: {} {} failed.{}", drv, failed,
                       failed == 1 ? "dependency" : "dependencies", outputList(context, build));
}

std::string platformMessage(const BuildContext &context, const StorePath &drvPath,
                            const std::string &platform, const std::set<std::string> &features) {
    std::string drv = context.store.dir().print(drvPath);
    const Settings &settings = context.settings;
    if (wantsOldWords(context)) {
        return fmt::format(
            "a '{}' with features {} is required to build '{}', but I am a '{}' with features {}", platform,
            featureList(features), drv, settings.system, featureList(settings.systemFeatures));
    }
    return fmt::format("Cannot build '{}'.\nReason: required system or feature not available\n"
                       "Required system: '{}' with features {}\nCurrent system: '{}' with features {}",
                       drv, platform, featureList(features), settings.system,
                       featureList(settings.systemFeatures));
}

} // namespace firn
