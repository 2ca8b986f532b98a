#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "libstore/build/build-log.hh"
#include "libstore/build/build-slots.hh"
#include "libstore/build/build-users.hh"
#include "libstore/build/event-loop.hh"
#include "libstore/store/settings.hh"

namespace firn {

/// The arguments of the program that `diff-hook` names, in this order. All absolute.
struct DiffHookCall {
    std::string oldPath; ///< the registered output
    std::string newPath; ///< what was built now
    std::string drvPath;
    std::string buildDir; ///< stays only with keep-failed
};

/// All must outlive the task.
struct DiffHookContext {
    EventLoop &loop;
    Logger &logger;
    BuildLog &log; ///< after BuildLog::endOutput()
    const Settings &settings;
    const StoreDir &store;
    const BuildUser *user; ///< null: runs as ourselves
    const SlotLease &slot; ///< of the build: what the hook asks a daemon to build runs on it
};

/// Runs the hook as the build user, with the daemon's environment, and on Linux in a pid namespace of its
/// own, so that none of its processes stays. What it prints goes to the client and to the build's log, line
/// by line, up to a bound; the rest is read and dropped. A hook that cannot be started, fails, or takes
/// longer than `diff-hook-timeout` is a warning. Throws what the end of the loop throws.
Task<> runDiffHook(const DiffHookContext &context, const DiffHookCall &call);

/// What is left in a pipe (non-blocking) whose writer has ended. Where another process has it still and goes
/// on writing, that ends as well: after the most that a pipe holds.
void readRestOfPipe(int fd, const std::function<void(std::string_view)> &take);

} // namespace firn
