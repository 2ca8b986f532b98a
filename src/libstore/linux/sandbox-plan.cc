#include "libstore/linux/sandbox-plan.hh"

#include <algorithm>
#include <set>

#include <sched.h>
#include <sys/personality.h>
#include <unistd.h>

#include "libstore/linux/mount-calls.hh"
#include "libstore/linux/syscall-filter.hh"
#include "libutil/error.hh"

namespace firn {

namespace {

using namespace sandbox;

/// Absolute, no empty, "." or ".." component, not the root.
bool isPlainAbsolutePath(const std::string &path) {
    if (path.size() < 2 || path[0] != '/' || path.back() == '/' || path.find('\0') != std::string::npos) {
        return false;
    }
    std::string framed = path + "/";
    return framed.find("//") == std::string::npos && framed.find("/./") == std::string::npos &&
           framed.find("/../") == std::string::npos;
}

void requirePlainPath(const std::string &path, const char *what) {
    if (!isPlainAbsolutePath(path)) {
        throw Error(ErrorKind::badInput, "{} '{}' is not an absolute path without '.' and '..'", what,
                    escapeForDisplay(path));
    }
}

std::string directoryOf(const std::string &path) {
    return path.substr(0, path.rfind('/'));
}

/// Collects operations; makes each directory once, parents first.
class Plan {
  public:
    explicit Plan(bool privileged) : privileged_(privileged) {}

    std::vector<SetupOp> take() { return std::move(ops_); }

    void directory(const std::string &path, uint32_t mode = 0755) {
        if (made_.contains(path)) {
            return;
        }
        parentsOf(path);
        add(OpKind::directory, path).mode = mode;
        made_.insert(path);
    }
    SetupOp &file(const std::string &path, std::string text) {
        SetupOp &op = place(OpKind::file, path);
        op.mode = 0444;
        op.data = std::move(text);
        return op;
    }
    void symlink(const std::string &path, const std::string &target) {
        place(OpKind::symlink, path).data = target;
    }
    SetupOp &mount(OpKind kind, const std::string &path, uint32_t mode, const std::string &options) {
        SetupOp &op = place(kind, path);
        op.mode = mode;
        op.data = options;
        return op;
    }
    /// With the daemon's rights, if it has any: a leased user may not reach the source.
    void bindPath(const std::string &target, const std::string &source, uint32_t flags,
                  uint32_t early = opEarly) {
        SetupOp &op = place(OpKind::bind, target);
        op.source = SourceKind::path;
        op.sourcePath = source;
        op.flags = flags | (privileged_ ? early : 0);
    }
    void bindDescriptor(const std::string &target, int fd, SourceKind source, uint32_t flags) {
        SetupOp &op = place(OpKind::bind, target);
        op.source = source;
        op.sourceFd = fd;
        op.flags = flags | (privileged_ ? uint32_t{opEarly} : 0);
    }
    void overlay(const std::string &target, int fd) {
        SetupOp &op = place(OpKind::overlay, target);
        op.source = SourceKind::descriptor;
        op.sourceFd = fd;
        op.flags = opNoDev;
    }

  private:
    void parentsOf(const std::string &path) {
        if (made_.contains(directoryOf(path))) {
            return; // and so are those above it: they come first
        }
        for (size_t slash = path.find('/', 1); slash != std::string::npos;
             slash = path.find('/', slash + 1)) {
            std::string parent = path.substr(0, slash);
            if (made_.insert(parent).second) {
                add(OpKind::directory, parent);
            }
        }
    }
    SetupOp &place(OpKind kind, const std::string &path) {
        requirePlainPath(path, "the sandbox's path");
        parentsOf(path);
        made_.insert(path);
        return add(kind, path);
    }
    SetupOp &add(OpKind kind, const std::string &path) {
        ops_.emplace_back();
        ops_.back().kind = kind;
        ops_.back().target = path;
        return ops_.back();
    }

    bool privileged_;
    std::vector<SetupOp> ops_;
    std::set<std::string> made_;
};

void planDevices(Plan &plan, const SandboxSpec &spec) {
    for (const char *device : {"full", "null", "random", "tty", "urandom", "zero"}) {
        std::string path = std::string("/dev/") + device;
        plan.bindPath(path, path, opFollow);
    }
    if (spec.kvm) {
        plan.bindPath("/dev/kvm", "/dev/kvm", opFollow);
    }
    plan.mount(OpKind::devpts, "/dev/pts", 0755, "newinstance,mode=0620,ptmxmode=0666");
    plan.symlink("/dev/ptmx", "pts/ptmx");
    plan.symlink("/dev/fd", "/proc/self/fd");
    plan.symlink("/dev/stdin", "/proc/self/fd/0");
    plan.symlink("/dev/stdout", "/proc/self/fd/1");
    plan.symlink("/dev/stderr", "/proc/self/fd/2");
    if (spec.devShmSize == "50%") {
        plan.mount(OpKind::ownMount, "/dev/shm", 01777, "");
    } else {
        plan.mount(OpKind::tmpfs, "/dev/shm", 0755, "mode=1777,size=" + spec.devShmSize);
    }
}

/// The names that builds under Nix see; some print them into what they make.
void planUserDatabase(Plan &plan, const SandboxSpec &spec) {
    plan.file("/etc/passwd",
              fmt::format("root:x:0:0:Nix build user:{}:/noshell\n"
                          "nixbld:x:{}:{}:Nix build user:{}:/noshell\n"
                          "nobody:x:65534:65534:Nobody:/:/noshell\n",
                          spec.buildDirInside, spec.uidInside, spec.gidInside, spec.buildDirInside));
    plan.file("/etc/group", fmt::format("root:x:0:\nnixbld:!:{}:\nnogroup:x:65534:\n", spec.gidInside));
}

void planNetwork(Plan &plan, const SandboxSpec &spec) {
    if (spec.network == Network::isolated) {
        plan.file("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n");
        return;
    }
    plan.file("/etc/nsswitch.conf", "hosts: files dns\nservices: files\n");
    for (const char *path : {"/etc/resolv.conf", "/etc/services", "/etc/hosts"}) {
        plan.bindPath(path, path, opFollow | opOptional | opReadOnly | opNoDev);
    }
}

/// Where most inputs lie: in the store.
std::string inputDirectory(const SandboxSpec &spec) {
    return spec.sandboxed && !spec.inputs.empty() ? directoryOf(spec.inputs.front().source) : std::string();
}

void planStore(Plan &plan, const SandboxSpec &spec) {
    plan.bindDescriptor(spec.storeDir, spec.scratchStore, SourceKind::descriptor, opNoDev);
    std::string directory = inputDirectory(spec);
    for (const SandboxInput &input : spec.inputs) {
        requirePlainPath(input.source, "the input");
        bool shared = !directory.empty() && directoryOf(input.source) == directory;
        plan.bindPath(input.path, input.source, opReadOnly | opNoDev | (shared ? uint32_t{opInput} : 0),
                      opEarlyIfRoom);
    }
}

/// In the order of their targets, so that one may lie inside another.
void planSandboxPaths(Plan &plan, std::vector<SandboxPath> paths) {
    std::sort(paths.begin(), paths.end(), [](const auto &a, const auto &b) { return a.target < b.target; });
    for (const SandboxPath &path : paths) {
        requirePlainPath(path.source, "the source of a sandbox path");
        // Devices stay usable (/dev/dri is a customary one), and what is mounted below comes along.
        uint32_t flags = opFollow | opRecursive | (path.optional ? uint32_t{opOptional} : 0);
        flags |= path.readOnly ? uint32_t{opReadOnly | opNoDev} : 0;
        plan.bindPath(path.target, path.source, flags);
    }
}

/// A tmpfs of the builder's own. In a user namespace that is who mounts it.
void planTemporaryBuildDir(Plan &plan, const SandboxSpec &spec, const Description &d) {
    std::string options = "mode=0700,size=" + spec.buildDirSize;
    if (!d.userNamespace) {
        options += fmt::format(",uid={},gid={}", d.outsideUid, d.outsideGid);
    }
    plan.mount(OpKind::tmpfs, spec.buildDirInside, 0755, options).flags = opWatchSpace;
    for (const BuildDirFile &file : spec.buildDirFiles) {
        SetupOp &op = plan.file(spec.buildDirInside + "/" + file.name, file.content);
        op.mode = 0644;
        op.flags = opBuilders;
    }
}

void planBuildDir(Plan &plan, const SandboxSpec &spec, const Description &d) {
    switch (spec.buildDirKind) {
    case BuildDirKind::directory:
        if (spec.sandboxed) {
            plan.bindDescriptor(spec.buildDirInside, spec.buildDir, SourceKind::descriptor, opNoDev);
        }
        return;
    case BuildDirKind::mount:
        return plan.bindDescriptor(spec.buildDirInside, spec.buildDir, SourceKind::mount,
                                   spec.sandboxed ? uint32_t{opNoDev} : 0);
    case BuildDirKind::classicExecutable:
        return plan.bindDescriptor(spec.buildDirInside, spec.buildDir, SourceKind::descriptor,
                                   opExecutable | (spec.sandboxed ? uint32_t{opNoDev} : 0));
    case BuildDirKind::overlay:
        return plan.overlay(spec.buildDirInside, spec.buildDir);
    case BuildDirKind::tmpfs:
        return planTemporaryBuildDir(plan, spec, d);
    }
}

std::vector<SetupOp> planFileSystem(const SandboxSpec &spec, const Description &d) {
    Plan plan(d.privileged);
    if (!spec.sandboxed) {
        plan.mount(OpKind::proc, "/proc", 0555, "");
        planBuildDir(plan, spec, d);
        std::vector<SetupOp> ops = plan.take();
        std::erase_if(ops, [](const SetupOp &op) { return op.kind == OpKind::directory; });
        return ops;
    }
    // First what is ours alone: the store may lie below any of it (tests keep theirs in /tmp).
    plan.directory("/dev");
    plan.directory("/etc");
    plan.mount(OpKind::ownMount, "/tmp", 01777, "");
    plan.mount(OpKind::proc, "/proc", 0555, "");
    planDevices(plan, spec);
    planUserDatabase(plan, spec);
    planNetwork(plan, spec);
    planStore(plan, spec);
    planBuildDir(plan, spec, d);
    planSandboxPaths(plan, spec.sandboxPaths);
    return plan.take();
}

uint32_t personalityOf(const SandboxSpec &spec) {
    // Addresses that differ from run to run end up in outputs.
    uint32_t bits = ADDR_NO_RANDOMIZE;
    bits |= spec.linux32 ? uint32_t{PER_LINUX32} : 0;
    bits |= spec.impersonateLinux26 ? uint32_t{UNAME26} : 0;
    return bits;
}

void planIdentity(Description &d, const SandboxSpec &spec) {
    d.privileged = geteuid() == 0 && mayMount();
    d.userNamespace = spec.sandboxed || !d.privileged;
    d.outsideUid = spec.uidOutside == static_cast<uid_t>(-1) ? geteuid() : spec.uidOutside;
    d.outsideGid = spec.gidOutside == static_cast<gid_t>(-1) ? getegid() : spec.gidOutside;
    d.insideUid = spec.sandboxed ? spec.uidInside : d.outsideUid;
    d.insideGid = spec.sandboxed ? spec.gidInside : d.outsideGid;
    d.groups.assign(spec.groups.begin(), spec.groups.end());
    if (!d.privileged && (d.outsideUid != geteuid() || d.outsideGid != getegid())) {
        throw Error(ErrorKind::badInput,
                    "a daemon without root's rights (user {}{}) cannot build as another user ({}){}",
                    geteuid(), geteuid() == 0 ? " in a namespace that does not own its mounts" : "",
                    d.outsideUid,
                    geteuid() == 0 ? "; with 'build-users-group =' (empty) builds run as its own" : "");
    }
}

void planNamespaces(Description &d, const SandboxSpec &spec) {
    d.pivot = d.readOnlyRoot = spec.sandboxed;
    if (!spec.sandboxed && d.workingDirectory == spec.buildDirInside) {
        d.buildDirFd = spec.buildDir;
    }
    d.privateNetwork = spec.sandboxed && spec.network == Network::isolated;
    if (spec.sandboxed) {
        d.namespaces = CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
        d.hostName = spec.hostName;
        d.domainName = spec.domainName;
    }
}

void requireWhole(const SandboxSpec &spec) {
    if (spec.outputFd < 0 || spec.builder.empty()) {
        throw Error(ErrorKind::badInput, "a builder needs a program and somewhere to write to");
    }
    // Without a sandbox it tells which directory is meant; for `directory` that is up to the caller.
    bool needsDirectory = spec.sandboxed ? spec.buildDirKind != BuildDirKind::tmpfs
                                         : spec.buildDirKind != BuildDirKind::directory;
    if ((spec.sandboxed && spec.scratchStore < 0) || (needsDirectory && spec.buildDir < 0)) {
        throw Error(ErrorKind::badInput, "a sandbox needs a scratch store and a build directory");
    }
}

} // namespace

SandboxPath parseSandboxPath(const std::string &word) {
    SandboxPath path;
    std::string rest = word;
    if (!rest.empty() && rest.back() == '?') {
        path.optional = true;
        rest.pop_back();
    }
    size_t equals = rest.find('=');
    path.target = rest.substr(0, equals);
    path.source = equals == std::string::npos ? path.target : rest.substr(equals + 1);
    requirePlainPath(path.target, "the sandbox path");
    requirePlainPath(path.source, "the source of a sandbox path");
    return path;
}

Description planSandbox(const SandboxSpec &spec) {
    requireWhole(spec);
    Description d;
    d.workingDirectory = spec.workingDirectory.empty() ? spec.buildDirInside : spec.workingDirectory;
    planIdentity(d, spec);
    planNamespaces(d, spec);
    d.outputFd = spec.outputFd;
    d.inputDirectory = inputDirectory(spec);
    d.ops = planFileSystem(spec, d);
    d.classicMounts = !haveMountSetattr();
    bool sharesNetwork = spec.sandboxed && spec.network == Network::host;
    if (spec.filterSyscalls || sharesNetwork) {
        d.filter = syscallFilter(sharesNetwork);
    }
    d.noNewPrivileges = !spec.allowNewPrivileges;
    d.personality = personalityOf(spec);
    d.builder = spec.builder;
    d.args = spec.args;
    d.env = spec.env;
    return d;
}

} // namespace firn
