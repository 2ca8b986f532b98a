#include "libstore/build/diff-hook.hh"

#include <cerrno>

#include <fcntl.h>
#include <unistd.h>

#include "libstore/build/helper-program.hh"
#include "libstore/build/sandbox.hh"
#include "libutil/error.hh"

extern char **environ;

namespace firn {

namespace {

constexpr size_t mostShown = 64 * 1024; ///< bytes of one hook's output
constexpr size_t readAtOnce = 256 * 1024;
constexpr size_t mostInPipe = 1024 * 1024; ///< without privileges

/// Tells lines until there were enough.
class HookOutput {
  public:
    explicit HookOutput(const DiffHookContext &context)
        : context_(context), splitter_([this](std::string_view line) { tell(escapeLogLine(line)); }) {}

    void write(std::string_view bytes) {
        size_t room = mostShown - shown_;
        splitter_.write(bytes.substr(0, room));
        shown_ += std::min(bytes.size(), room);
        dropped_ += bytes.size() - std::min(bytes.size(), room);
    }
    void finish() {
        splitter_.finish();
        if (dropped_ > 0) {
            tell(fmt::format("(diff-hook wrote {} bytes more, which are not shown)", dropped_));
        }
    }

  private:
    void tell(const std::string &line) {
        context_.log.note(line);
        context_.logger.log(Verbosity::notice, line);
    }

    const DiffHookContext &context_;
    LineSplitter splitter_;
    size_t shown_ = 0;
    uint64_t dropped_ = 0;
};

SandboxSpec describeHook(const DiffHookContext &context, const DiffHookCall &call, int outputFd) {
    SandboxSpec spec;
    spec.initProgram = sandboxInitProgram();
    spec.sandboxed = false;
    spec.storeDir = context.store.str();
    spec.buildDirInside = "/";
    spec.workingDirectory = "/";
    spec.builder = context.settings.diffHook;
    spec.args = {spec.builder, call.oldPath, call.newPath, call.drvPath, call.buildDir};
    for (char **variable = environ; *variable; ++variable) {
        spec.env.emplace_back(*variable);
    }
    spec.outputFd = outputFd;
    spec.filterSyscalls = context.settings.filterSyscalls;
    spec.allowNewPrivileges = context.settings.allowNewPrivileges;
    if (context.user) {
        spec.uidOutside = context.user->uid();
        spec.gidOutside = context.user->gid();
        spec.groups = context.user->groups();
    }
    return spec;
}

/// A terminal would be slow for one that writes gigabytes.
Pipe makeOutputPipe() {
    Pipe pipe = makePipe();
    if (fcntl(pipe.readEnd.get(), F_SETFL, O_NONBLOCK) < 0) {
        throwErrno("making a pipe for diff-hook");
    }
    return pipe;
}

/// Nothing where there is nothing yet, and at the end.
std::string_view readAvailable(int fd, std::vector<char> &buffer) {
    ssize_t got;
    do {
        got = read(fd, buffer.data(), buffer.size());
    } while (got < 0 && errno == EINTR);
    if (got < 0 && errno != EAGAIN) {
        throwErrno("reading what diff-hook prints");
    }
    return {buffer.data(), got > 0 ? static_cast<size_t>(got) : 0};
}

/// One running hook.
struct Hook {
    const DiffHookContext &context;
    Pipe pipe;
    BuilderProcess process;
    std::vector<char> buffer = std::vector<char>(readAtOnce);
    HookOutput output{context};
    bool late = false;

    Hook(const DiffHookContext &hookContext, const DiffHookCall &call)
        : context(hookContext),
          pipe(makeOutputPipe()),
          process(spawnSandbox(describeHook(hookContext, call, pipe.writeEnd.get()))) {}

    void readSome() { output.write(readAvailable(pipe.readEnd.get(), buffer)); }

    void readRest() {
        pipe.writeEnd.reset();
        readRestOfPipe(pipe.readEnd.get(), [this](std::string_view bytes) { output.write(bytes); });
        output.finish();
    }
};

Clock::time_point deadlineOf(const Settings &settings) {
    constexpr uint64_t longest = 366ull * 24 * 60 * 60;
    uint64_t seconds = settings.diffHookTimeout;
    return seconds == 0 || seconds > longest ? Clock::time_point::max()
                                             : Clock::now() + std::chrono::seconds(seconds);
}

Task<> watchHook(Hook &hook) {
    const DiffHookContext &context = hook.context;
    DescriptorWatch watch(context.loop);
    watch.add(hook.pipe.readEnd.get());
    watch.add(hook.process.statusFd());
    Clock::time_point deadline = deadlineOf(context.settings);
    while (!hook.process.poll()) {
        hook.readSome();
        if (!hook.late && Clock::now() >= deadline) {
            hook.late = true;
            deadline = Clock::time_point::max();
            hook.process.kill();
        }
        co_await watch.wait(deadline);
    }
}

} // namespace

void readRestOfPipe(int fd, const std::function<void(std::string_view)> &take) {
    std::vector<char> buffer(readAtOnce);
    for (size_t total = 0; total < mostInPipe;) {
        std::string_view bytes = readAvailable(fd, buffer);
        if (bytes.empty()) {
            return;
        }
        take(bytes);
        total += bytes.size();
    }
}

Task<> runDiffHook(const DiffHookContext &context, const DiffHookCall &call) {
    std::string problem;
    try {
        Hook hook(context, call);
        context.slot.setBuilder(hook.process.pid());
        co_await watchHook(hook);
        hook.readRest();
        BuilderResult ended = hook.process.wait();
        if (hook.late) {
            problem = fmt::format("was ended after {} seconds", context.settings.diffHookTimeout);
        } else if (!ended.succeeded()) {
            problem = ended.describe();
        }
    } catch (const Error &error) {
        if (error.kind() == ErrorKind::interrupted) {
            throw;
        }
        problem = "could not be run: " + error.message();
    }
    if (!problem.empty()) {
        std::string warning =
            fmt::format("diff-hook '{}' {}", escapeForDisplay(context.settings.diffHook), problem);
        context.log.note("warning: " + warning);
        context.logger.warn(warning);
    }
}

} // namespace firn
