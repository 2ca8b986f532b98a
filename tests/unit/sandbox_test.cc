// Real sandboxes with busybox as the builder, as root and as an ordinary user alike: run it as both. What a
// builder can and cannot do is asked of the shell inside and of the host's /proc outside, never of our own
// code.

#include "libstore/build/build-directory-exec.hh"
#include "libstore/build/sandbox.hh"

#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <set>
#include <sstream>
#include <thread>

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/nsfs.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libutil/error.hh"

namespace firn {
namespace {

namespace fs = std::filesystem;
using Kind = BuilderResult::Kind;

constexpr uid_t leasedUser = 39471;
constexpr gid_t leasedGroup = 39472;

std::string initProgram() {
    const char *program = getenv("FIRN_SANDBOX_INIT");
    return program ? program : FIRN_SANDBOX_INIT_PATH;
}

std::string slurp(const fs::path &path) {
    std::ifstream stream(path);
    std::stringstream text;
    text << stream.rdbuf();
    return text.str();
}

struct Outcome {
    BuilderResult result;
    std::string output;
};

class SandboxTest : public testing::Test {
  protected:
    void SetUp() override {
        root_ = "/tmp/firn-sandbox-test-XXXXXX";
        ASSERT_NE(mkdtemp(root_.data()), nullptr);
        chmod(root_.c_str(), 0755);
        for (const char *name : {"store", "scratch", "build", "outside"}) {
            fs::create_directory(root_ + "/" + name);
        }
        scratch_.reset(open((root_ + "/scratch").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
        build_.reset(open((root_ + "/build").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
        output_.reset(memfd_create("output", MFD_CLOEXEC));
        if (geteuid() == 0) {
            ASSERT_EQ(chown((root_ + "/scratch").c_str(), leasedUser, leasedGroup), 0);
            ASSERT_EQ(chown((root_ + "/build").c_str(), leasedUser, leasedGroup), 0);
        }
    }
    void TearDown() override { fs::remove_all(root_); }

    SandboxSpec shell(const std::string &script) {
        SandboxSpec spec;
        spec.initProgram = initProgram();
        spec.scratchStore = scratch_.get();
        spec.buildDir = build_.get();
        spec.sandboxPaths = {parseSandboxPath("/bin/sh=/usr/bin/busybox"),
                             parseSandboxPath("/bin/busybox=/usr/bin/busybox")};
        spec.builder = "/bin/sh";
        spec.args = {"sh", "-c", script};
        spec.env = {"PATH=/bin"};
        spec.outputFd = output_.get();
        if (geteuid() == 0) {
            spec.uidOutside = leasedUser;
            spec.gidOutside = leasedGroup;
        }
        return spec;
    }

    /// Without a sandbox: the host's files, so the build directory is where it is.
    SandboxSpec plainShell(const std::string &script) {
        SandboxSpec spec = shell(script);
        spec.sandboxed = false;
        spec.buildDir = spec.scratchStore = -1;
        spec.sandboxPaths.clear();
        spec.builder = "/usr/bin/busybox";
        spec.args = {"sh", "-c", script};
        spec.env = {"PATH=/usr/bin:/bin"};
        spec.workingDirectory = root_ + "/build";
        return spec;
    }

    Outcome run(const SandboxSpec &spec) {
        Outcome outcome;
        outcome.result = spawnSandbox(spec).wait();
        outcome.output = takeOutput();
        return outcome;
    }
    Outcome run(const std::string &script) { return run(shell(script)); }

    std::string takeOutput() {
        off_t size = lseek(output_.get(), 0, SEEK_END);
        std::string text(static_cast<size_t>(size), '\0');
        EXPECT_EQ(pread(output_.get(), text.data(), text.size(), 0), size);
        EXPECT_EQ(ftruncate(output_.get(), 0), 0);
        lseek(output_.get(), 0, SEEK_SET);
        return text;
    }

    void addInput(SandboxSpec &spec, const std::string &name) {
        spec.inputs.push_back({"/nix/store/" + name, root_ + "/store/" + name});
    }

    std::string root_;
    UniqueFd scratch_, build_, output_;
};

/// Fails with everything that is known instead of a bare "false".
#define EXPECT_BUILDS(outcome)                                                                               \
    EXPECT_TRUE((outcome).result.succeeded()) << (outcome).result.describe() << "\n" << (outcome).output

TEST_F(SandboxTest, rootHoldsNothingButWhatWasAskedFor) {
    Outcome outcome = run("busybox ls / /nix /etc /bin /tmp /build");
    EXPECT_BUILDS(outcome);
    EXPECT_EQ(outcome.output,
              "/:\nbin\nbuild\ndev\netc\nnix\nproc\ntmp\n"
              "\n/bin:\nbusybox\nsh\n\n/build:\n\n/etc:\ngroup\nhosts\npasswd\n\n/nix:\nstore\n\n/tmp:\n");
}

TEST_F(SandboxTest, storeShowsOnlyTheInputsReadOnly) {
    fs::create_directory(root_ + "/store/aaa-dir");
    std::ofstream(root_ + "/store/aaa-dir/file") << "in dir";
    std::ofstream(root_ + "/store/bbb-file") << "plain";
    fs::create_symlink("aaa-dir/file", root_ + "/store/ccc-link");
    std::ofstream(root_ + "/store/ddd-secret") << "not an input";
    SandboxSpec spec =
        shell("cd /nix/store; busybox ls; busybox cat aaa-dir/file bbb-file ccc-link; echo;"
              "echo x > aaa-dir/new; echo x > bbb-file; busybox readlink ccc-link; echo made > zzz-out");
    for (const char *name : {"aaa-dir", "bbb-file", "ccc-link"}) {
        addInput(spec, name);
    }
    Outcome outcome = run(spec);
    EXPECT_BUILDS(outcome);
    EXPECT_EQ(outcome.output, "aaa-dir\nbbb-file\nccc-link\nin dirplainin dir\n"
                              "sh: can't create aaa-dir/new: Read-only file system\n"
                              "sh: can't create bbb-file: Read-only file system\naaa-dir/file\n");
    EXPECT_EQ(slurp(root_ + "/scratch/zzz-out"), "made\n");
    EXPECT_EQ(slurp(root_ + "/store/bbb-file"), "plain");
}

TEST_F(SandboxTest, buildAndTemporaryDirectoriesAreWritableAndTheRootIsNot) {
    Outcome outcome =
        run("busybox pwd; echo b > /build/file; echo t > /tmp/file; echo s > /dev/shm/file; busybox stat -c "
            "%a /tmp;"
            "busybox mkdir /homeless-shelter; echo x > /etc/passwd; echo x > /new; busybox chmod 777 /");
    EXPECT_EQ(outcome.result.kind, Kind::exited);
    EXPECT_EQ(outcome.output,
              "/build\n1777\nmkdir: can't create directory '/homeless-shelter': Read-only file system\n"
              "sh: can't create /etc/passwd: Read-only file system\n"
              "sh: can't create /new: Read-only file system\nchmod: /: Read-only file system\n");
    EXPECT_EQ(slurp(root_ + "/build/file"), "b\n");
    struct stat st;
    ASSERT_EQ(stat((root_ + "/build/file").c_str(), &st), 0);
    EXPECT_EQ(st.st_uid, geteuid() == 0 ? leasedUser : geteuid());
}

TEST_F(SandboxTest, devicesWork) {
    Outcome outcome = run("cd /dev; busybox ls; echo gone > null; busybox head -c 3 zero | busybox wc -c; "
                          "busybox head -c 5 urandom | busybox wc -c; busybox ls pts; echo x > full");
    EXPECT_EQ(outcome.output,
              "fd\nfull\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n"
              "3\n5\nptmx\nsh: write error: No space left on device\n");
}

TEST_F(SandboxTest, processesAreItsOwnAlone) {
    Outcome outcome =
        run("echo $$; cd /proc; echo [0-9]*; busybox readlink /proc/1/exe; busybox ls /proc/1/fd");
    EXPECT_EQ(outcome.output.substr(0, 6), "2\n1 2\n") << outcome.output;
    EXPECT_NE(outcome.output.find("ls: can't open '/proc/1/fd': Permission denied"), std::string::npos)
        << outcome.output;
}

TEST_F(SandboxTest, userIsTheOneAskedForWithoutRights) {
    Outcome outcome =
        run("busybox id -u; busybox id -g; busybox cat /proc/self/uid_map /proc/self/gid_map "
            "/proc/self/setgroups |"
            " busybox tr -s ' '; busybox grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status");
    EXPECT_BUILDS(outcome);
    uid_t uid = geteuid() == 0 ? leasedUser : geteuid();
    gid_t gid = geteuid() == 0 ? leasedGroup : getegid();
    std::string none = "0000000000000000\n";
    EXPECT_EQ(outcome.output, fmt::format("1000\n100\n 1000 {} 1\n 100 {} 1\ndeny\n", uid, gid) +
                                  "CapInh:\t" + none + "CapPrm:\t" + none + "CapEff:\t" + none + "CapBnd:\t" +
                                  none + "CapAmb:\t" + none + "NoNewPrivs:\t1\nSeccomp:\t2\n");
}

TEST_F(SandboxTest, rootDaemonsGroupsDoNotReachTheBuilder) {
    Outcome outcome = run("busybox grep ^Groups /proc/self/status");
    if (geteuid() == 0) {
        EXPECT_EQ(outcome.output, "Groups:\t \n");
    } else {
        // Cannot be dropped without rights; they have no name in the sandbox.
        EXPECT_EQ(outcome.output.substr(0, 8), "Groups:\t");
    }
}

TEST_F(SandboxTest, hostNameIsFixed) {
    Outcome outcome = run("busybox hostname; busybox cat /proc/sys/kernel/domainname");
    EXPECT_EQ(outcome.output, "localhost\n(none)\n");
}

TEST_F(SandboxTest, networkIsALoopbackThatWorks) {
    Outcome outcome = run("busybox sed 1,2d /proc/net/dev | busybox cut -d: -f1 | busybox tr -d ' ';"
                          "busybox ping -c 1 -W 1 127.0.0.1 > /dev/null 2>&1; (echo answer | busybox nc -l "
                          "-p 7000) & busybox sleep 0.2;"
                          "busybox nc 127.0.0.1 7000 < /dev/null; busybox cat /etc/hosts");
    EXPECT_EQ(outcome.output, "lo\nanswer\n127.0.0.1 localhost\n::1 localhost\n");
}

TEST_F(SandboxTest, hostNetworkShowsTheHostsInterfacesAndNames) {
    SandboxSpec spec = shell("busybox cat /proc/net/dev | busybox wc -l; busybox cat /etc/nsswitch.conf; "
                             "busybox readlink /proc/self/ns/net");
    spec.network = Network::host;
    Outcome outcome = run(spec);
    EXPECT_BUILDS(outcome);
    char host[64];
    ssize_t length = readlink("/proc/self/ns/net", host, sizeof host);
    EXPECT_NE(outcome.output.find(std::string(host, static_cast<size_t>(length))), std::string::npos)
        << outcome.output;
    EXPECT_NE(outcome.output.find("hosts: files dns"), std::string::npos);
}

TEST_F(SandboxTest, setuidAndSetgidBitsAreRefused) {
    Outcome outcome =
        run("cd /build; echo x > f; for m in 4755 2755 6755 u+s g+s; do busybox chmod $m f; done; busybox "
            "chmod 1755 f && "
            "busybox stat -c %a f; busybox mknod p p; busybox chmod 4755 p; busybox stat -c %a p");
    EXPECT_EQ(outcome.output,
              "chmod: f: Operation not permitted\nchmod: f: Operation not permitted\n"
              "chmod: f: Operation not permitted\nchmod: f: Operation not permitted\n"
              "chmod: f: Operation not permitted\n1755\nchmod: p: Operation not permitted\n644\n");
}

/// What the kernel answered to each call that tests/unit/syscall-probe.cc makes.
std::map<std::string, std::string> answersOf(const Outcome &outcome) {
    std::map<std::string, std::string> answers;
    std::istringstream lines(outcome.output);
    for (std::string name, answer; lines >> name >> answer;) {
        answers[name] = answer;
    }
    return answers;
}

using Answers = std::map<std::string, std::string>;

void expectAnswers(const Outcome &outcome, const Answers &expected) {
    EXPECT_BUILDS(outcome);
    Answers answers = answersOf(outcome);
    for (const auto &[name, answer] : expected) {
        EXPECT_EQ(answers[name], answer) << name;
    }
}

class SyscallFilterTest : public SandboxTest {
  protected:
    SandboxSpec probe(Network network) {
        SandboxSpec spec = shell("");
        const char *probe = getenv("FIRN_SYSCALL_PROBE");
        spec.sandboxPaths.push_back({"/bin/probe", probe ? probe : FIRN_SYSCALL_PROBE_PATH, false});
        spec.builder = "/bin/probe";
        spec.args = {"probe"};
        spec.network = network;
        return spec;
    }
};

TEST_F(SyscallFilterTest, modesWithSetidBitsAreRefusedWhereverTheyCome) {
    Answers expected;
    for (const char *call : {"chmod", "fchmod", "fchmodat", "fchmodat2", "chmod-high-bits", "open",
                             "open-tmpfile", "openat", "creat", "mknod", "mknodat"}) {
        expected[call] = "EPERM";
    }
    expected["openat2"] = "ENOSYS";
    expected["open-garbage-mode"] = "ok";
    expected["chmod-harmless"] = "ok";
    expectAnswers(run(probe(Network::isolated)), expected);
}

TEST_F(SyscallFilterTest, extendedAttributesAndTheirDetoursAreRefused) {
    expectAnswers(run(probe(Network::isolated)), {{"setxattr", "EOPNOTSUPP"},
                                                  {"lsetxattr", "EOPNOTSUPP"},
                                                  {"fsetxattr", "EOPNOTSUPP"},
                                                  {"subvolume", "EPERM"},
                                                  {"subvolume-2", "EPERM"},
                                                  {"snapshot", "EPERM"},
                                                  {"snapshot-2", "EPERM"},
                                                  {"ioctl-harmless", "ok"},
                                                  {"setxattrat", "ENOSYS"},
                                                  {"file_setattr", "ENOSYS"},
                                                  {"io_uring_setup", "ENOSYS"},
                                                  {"io_uring_enter", "ENOSYS"},
                                                  {"io_uring_register", "ENOSYS"}});
}

TEST_F(SyscallFilterTest, unixSocketsWorkInAnIsolatedNetwork) {
    expectAnswers(
        run(probe(Network::isolated)),
        {{"socket-unix", "ok"}, {"pair-datagram", "ok"}, {"pair-stream", "ok"}, {"terminal", "/dev/pts/0"}});
}

TEST_F(SyscallFilterTest, hostNetworkHasOnlyPairsThatCannotLeadOutside) {
    expectAnswers(run(probe(Network::host)), {{"socket-unix", "EAFNOSUPPORT"},
                                              {"socket-unix-high-bits", "EAFNOSUPPORT"},
                                              {"pair-stream", "ok"},
                                              {"pair-seqpacket", "ok"},
                                              {"pair-datagram", "EAFNOSUPPORT"},
                                              {"pair-raw", "EAFNOSUPPORT"},
                                              {"socket-inet", "ok"}});
}

#ifdef __x86_64__
TEST_F(SyscallFilterTest, otherCallingConventionsAreNoWayAround) {
    Outcome outcome = run(probe(Network::host));
    expectAnswers(outcome, {{"i386-chmod", "EPERM"},
                            {"i386-open", "EPERM"},
                            {"i386-setxattr", "EOPNOTSUPP"},
                            {"i386-fchmodat2", "EPERM"},
                            {"i386-io_uring_setup", "ENOSYS"},
                            {"i386-socket-unix", "EAFNOSUPPORT"},
                            {"i386-pair-datagram", "EAFNOSUPPORT"},
                            {"i386-socketcall", "ENOSYS"},
                            {"i386-getpid", "ok"},
                            {"x32-getpid", "ENOSYS"},
                            {"x32-chmod", "ENOSYS"}});
}
#endif

/// Two abstract sockets of the host's network namespace, a listening stream socket "a..." and a datagram
/// socket "b...".
class AbstractSocketTest : public SyscallFilterTest {
  protected:
    void SetUp() override {
        SyscallFilterTest::SetUp();
        name_ = "a" + fs::path(root_).filename().string();
        stream_ = bound(SOCK_STREAM, name_);
        ASSERT_EQ(listen(stream_.get(), 1), 0);
        datagram_ = bound(SOCK_DGRAM, "b" + name_.substr(1));
    }
    static sockaddr_un address(const std::string &name) {
        sockaddr_un address = {};
        address.sun_family = AF_UNIX;
        memcpy(address.sun_path + 1, name.data(), name.size());
        return address;
    }
    static socklen_t length(const std::string &name) {
        return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
    }
    static UniqueFd bound(int type, const std::string &name) {
        UniqueFd fd(socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        sockaddr_un to = address(name);
        EXPECT_EQ(bind(fd.get(), reinterpret_cast<sockaddr *>(&to), length(name)), 0);
        return fd;
    }
    bool somethingArrived() {
        pollfd fds[] = {{stream_.get(), POLLIN, 0}, {datagram_.get(), POLLIN, 0}};
        return ::poll(fds, 2, 0) != 0;
    }
    std::string name_;
    UniqueFd stream_, datagram_;
};

TEST_F(AbstractSocketTest, buildCannotReachOut) {
    for (Network network : {Network::host, Network::isolated}) {
        SandboxSpec spec = probe(network);
        spec.args = {"probe", "reach", name_};
        Outcome outcome = run(spec);
        const char *refusal = network == Network::host ? "EAFNOSUPPORT" : "ECONNREFUSED";
        expectAnswers(outcome, {{"connect", refusal}, {"send", refusal}});
        EXPECT_FALSE(somethingArrived());
    }
}

TEST_F(AbstractSocketTest, withoutASandboxItCanSoTheProbeIsTrue) {
    SandboxSpec spec = plainShell("");
    spec.builder = FIRN_SYSCALL_PROBE_PATH;
    spec.args = {"probe", "reach", name_};
    expectAnswers(run(spec), {{"connect", "ok"}, {"send", "ok"}});
    EXPECT_TRUE(somethingArrived());
}

TEST_F(AbstractSocketTest, nobodyReachesInToABuildThatListens) {
    for (Network network : {Network::host, Network::isolated}) {
        std::string name = "c" + name_;
        SandboxSpec spec = probe(network);
        spec.args = {"probe", "listen", name};
        BuilderProcess process = spawnSandbox(spec);
        while (lseek(output_.get(), 0, SEEK_END) == 0 && !process.poll()) {
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
        UniqueFd caller(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
        sockaddr_un to = address(name);
        EXPECT_LT(connect(caller.get(), reinterpret_cast<sockaddr *>(&to), length(name)), 0);
        process.kill();
        process.wait();
        EXPECT_EQ(takeOutput(), network == Network::host ? "listen EAFNOSUPPORT\n" : "listen ok\n");
    }
}

TEST_F(SandboxTest, environmentAndArgumentsAreExact) {
    SandboxSpec spec = shell("busybox env; echo \"$0 $1\"");
    spec.args.insert(spec.args.end(), {"zero", "one two"});
    spec.env = {"PATH=/bin", "b=2", "a=with space\nand newline", "empty="};
    Outcome outcome = run(spec);
    EXPECT_BUILDS(outcome);
    // busybox sh exports what it was given and adds PWD, SHLVL and the like in an order of its own.
    for (const char *line : {"b=2\n", "a=with space\nand newline\n", "empty=\n", "zero one two\n"}) {
        EXPECT_NE(outcome.output.find(line), std::string::npos) << outcome.output;
    }
    EXPECT_EQ(outcome.output.find("HOME"), std::string::npos);
}

TEST_F(SandboxTest, onlyStandardDescriptorsAreOpen) {
    UniqueFd leaked(open("/", O_PATH)); // deliberately without close-on-exec
    ASSERT_TRUE(leaked);
    SandboxSpec spec = shell("");
    spec.builder = "/bin/busybox";
    spec.args = {"busybox", "ls", "/proc/self/fd"};
    Outcome outcome = run(spec);
    EXPECT_EQ(outcome.output, "0\n1\n2\n3\n"); // 3 is the directory that ls lists
}

TEST_F(SandboxTest, mountsDoNotReachTheHost) {
    Outcome outcome = run("busybox unshare -Urm busybox sh -c 'busybox mount -t tmpfs none /build && echo "
                          "hidden > /build/f && busybox ls /build'");
    EXPECT_EQ(outcome.output, "f\n");
    EXPECT_TRUE(fs::is_empty(root_ + "/build"));
    EXPECT_EQ(slurp("/proc/self/mountinfo").find(root_), std::string::npos);
}

TEST_F(SandboxTest, nestedUserNamespaceCannotLoosenMounts) {
    fs::create_directory(root_ + "/store/aaa-input");
    SandboxSpec spec =
        shell("busybox unshare -Urm busybox sh -c '"
              "for o in suid dev; do busybox mount -o remount,bind,rw,$o /build; done;"
              "busybox mount -o remount,bind,rw /nix/store/aaa-input; busybox umount /nix/store/aaa-input;"
              "busybox mount -o remount,bind,rw /; busybox umount /proc'");
    addInput(spec, "aaa-input");
    Outcome outcome = run(spec);
    std::string denied = "Operation not permitted", invalid = "Invalid argument";
    size_t refusals = 0;
    std::istringstream lines(outcome.output);
    for (std::string line; std::getline(lines, line);) {
        refusals += line.find("denied") != std::string::npos || line.find(denied) != std::string::npos ||
                    line.find(invalid) != std::string::npos;
    }
    EXPECT_EQ(refusals, 6u) << outcome.output;
}

TEST_F(SandboxTest, allMountsHaveNosuid) {
    Outcome outcome =
        run("busybox grep -v nosuid /proc/self/mountinfo; busybox grep -c . /proc/self/mountinfo");
    EXPECT_EQ(outcome.output.find("relatime"), std::string::npos) << outcome.output;
}

TEST_F(SandboxTest, exitCodeIsReported) {
    Outcome outcome = run("exit 37");
    EXPECT_EQ(outcome.result.kind, Kind::exited);
    EXPECT_EQ(outcome.result.exitCode, 37);
    EXPECT_EQ(outcome.result.describe(), "failed with exit code 37");
}

TEST_F(SandboxTest, signalIsReported) {
    Outcome outcome = run("kill -SEGV $$");
    EXPECT_EQ(outcome.result.kind, Kind::signaled);
    EXPECT_EQ(outcome.result.signal, SIGSEGV);
}

TEST_F(SandboxTest, processorTimeIsReported) {
    Outcome outcome = run("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done");
    EXPECT_BUILDS(outcome);
    EXPECT_GT(outcome.result.userMicroseconds, 1000u);
}

TEST_F(SandboxTest, missingBuilderIsReported) {
    SandboxSpec spec = shell("");
    spec.builder = "/bin/absent";
    Outcome outcome = run(spec);
    EXPECT_EQ(outcome.result.kind, Kind::execFailed);
    EXPECT_EQ(outcome.result.path, "/bin/absent");
    EXPECT_EQ(outcome.result.error, ENOENT);
    EXPECT_EQ(outcome.result.describe(), "could not be executed: '/bin/absent': No such file or directory");
}

TEST_F(SandboxTest, missingSandboxPathIsReported) {
    SandboxSpec spec = shell("");
    spec.sandboxPaths.push_back(parseSandboxPath("/opt=/nonexistent/thing"));
    Outcome outcome = run(spec);
    EXPECT_EQ(outcome.result.kind, Kind::setupFailed);
    EXPECT_EQ(outcome.result.step, sandbox::Step::openSource);
    EXPECT_EQ(outcome.result.path, "/nonexistent/thing");
    EXPECT_EQ(outcome.result.error, ENOENT);
}

TEST_F(SandboxTest, missingInputIsReported) {
    SandboxSpec spec = shell("");
    addInput(spec, "absent");
    Outcome outcome = run(spec);
    EXPECT_EQ(outcome.result.kind, Kind::setupFailed);
    EXPECT_EQ(outcome.result.path, root_ + "/store/absent");
}

TEST_F(SandboxTest, missingWorkingDirectoryIsReported) {
    SandboxSpec spec = shell("");
    spec.workingDirectory = "/build/absent";
    Outcome outcome = run(spec);
    EXPECT_EQ(outcome.result.kind, Kind::setupFailed);
    EXPECT_EQ(outcome.result.step, sandbox::Step::changeDirectory);
    EXPECT_EQ(outcome.result.path, "/build/absent");
}

TEST_F(SandboxTest, missingInitProgramThrows) {
    SandboxSpec spec = shell("");
    spec.initProgram = root_ + "/absent";
    EXPECT_THROW(spawnSandbox(spec), SysError);
}

TEST_F(SandboxTest, startedBeforehandItBecomesWhatIsAskedForThen) {
    StartedSandbox started = startSandbox(initProgram());
    std::ofstream(root_ + "/store/later") << "made later\n";
    SandboxSpec spec = shell("busybox cat /nix/store/later");
    addInput(spec, "later");
    BuilderResult result = spawnSandbox(std::move(started), spec).wait();
    EXPECT_TRUE(result.succeeded()) << result.describe();
    EXPECT_EQ(takeOutput(), "made later\n");
}

TEST_F(SandboxTest, startedInVainItEnds) {
    pid_t pid;
    {
        StartedSandbox started = startSandbox(initProgram());
        pid = started.process.pid();
        SandboxSpec senseless = shell("");
        senseless.builder.clear();
        EXPECT_THROW(spawnSandbox(std::move(started), senseless), Error);
    }
    EXPECT_EQ(waitpid(pid, nullptr, 0), -1) << "still there, or not reaped";
}

TEST_F(SandboxTest, endBeforeItIsToldWhatToDoIsReported) {
    StartedSandbox started = startSandbox(initProgram());
    ASSERT_EQ(kill(started.process.pid(), SIGKILL), 0);
    struct pollfd end = {started.process.statusFd(), POLLIN, 0};
    ASSERT_EQ(poll(&end, 1, 60'000), 1);
    BuilderResult result = spawnSandbox(std::move(started), shell("busybox sleep 1000")).wait();
    EXPECT_EQ(result.kind, Kind::lost);
    EXPECT_NE(result.path.find("signal 9"), std::string::npos) << result.path;
}

TEST_F(SandboxTest, ownDescriptorsMayBeAnyNumber) {
    // Numbers of the standard three are given away first where those are closed.
    pid_t daemon = fork();
    if (daemon == 0) {
        close(0);
        close(1);
        SandboxSpec spec = shell("busybox ls /proc/self/fd | busybox wc -l; exit 7");
        _exit(spawnSandbox(spec).wait().exitCode);
    }
    int status = 0;
    ASSERT_EQ(waitpid(daemon, &status, 0), daemon);
    EXPECT_EQ(WEXITSTATUS(status), 7);
    EXPECT_EQ(takeOutput(), "4\n"); // the three, and the one by which ls reads them
}

TEST_F(SandboxTest, optionalSandboxPathMayBeMissing) {
    SandboxSpec spec = shell("busybox ls -d /opt");
    spec.sandboxPaths.push_back(parseSandboxPath("/opt=/nonexistent/thing?"));
    Outcome outcome = run(spec);
    EXPECT_EQ(outcome.result.exitCode, 1);
    EXPECT_EQ(outcome.output, "ls: /opt: No such file or directory\n");
}

TEST_F(SandboxTest, sandboxPathMayLieInsideAnother) {
    std::ofstream(root_ + "/outside/outer") << "outer";
    fs::create_directory(root_ + "/outside/sub");
    std::ofstream(root_ + "/store/inner") << "inner";
    SandboxSpec spec = shell("busybox cat /opt/outer /opt/sub/inner");
    fs::create_directories(root_ + "/outside/sub");
    std::ofstream(root_ + "/outside/sub/inner");
    spec.sandboxPaths.push_back({"/opt/sub/inner", root_ + "/store/inner", false});
    spec.sandboxPaths.push_back({"/opt", root_ + "/outside", false});
    Outcome outcome = run(spec);
    EXPECT_BUILDS(outcome);
    EXPECT_EQ(outcome.output, "outerinner");
}

TEST_F(SandboxTest, symlinksInASandboxPathStayInsideTheSandbox) {
    fs::create_directory(root_ + "/outside/dir");
    fs::create_symlink("/tmp", root_ + "/outside/dir/link"); // the host's /tmp, if it were followed there
    SandboxSpec spec = shell("busybox ls /tmp");
    spec.sandboxPaths.push_back({"/opt", root_ + "/outside/dir", false});
    spec.sandboxPaths.push_back({"/opt/link/firn-sandbox-escape", "/usr/bin/busybox", false});
    Outcome outcome = run(spec);
    EXPECT_EQ(outcome.output, "firn-sandbox-escape\n") << outcome.result.describe();
    EXPECT_FALSE(fs::exists("/tmp/firn-sandbox-escape"));
}

TEST_F(SandboxTest, killEndsEverything) {
    SandboxSpec spec = shell("busybox setsid busybox sleep 1000 & busybox sleep 1000");
    BuilderProcess process = spawnSandbox(spec);
    EXPECT_EQ(process.poll(), std::nullopt);
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    process.kill();
    BuilderResult result = process.wait();
    EXPECT_EQ(result.kind, Kind::signaled);
    EXPECT_EQ(result.signal, SIGKILL);
}

/// Host pids of processes that have `text` in their arguments.
std::set<pid_t> processesWith(const std::string &text) {
    std::set<pid_t> found;
    for (const auto &entry : fs::directory_iterator("/proc")) {
        pid_t pid = static_cast<pid_t>(strtol(entry.path().filename().c_str(), nullptr, 10));
        if (pid > 0 && slurp(entry.path() / "cmdline").find(text) != std::string::npos) {
            found.insert(pid);
        }
    }
    return found;
}

bool goneWithin(std::chrono::milliseconds limit, const std::string &text) {
    auto end = std::chrono::steady_clock::now() + limit;
    while (!processesWith(text).empty()) {
        if (std::chrono::steady_clock::now() > end) {
            return false;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return true;
}

pid_t parentOf(const std::string &pid) {
    // "pid (name) state ppid ...", and a name may hold anything.
    std::string stat = slurp("/proc/" + pid + "/stat");
    size_t name = stat.rfind(") ");
    return name == stat.npos ? -1 : static_cast<pid_t>(strtol(stat.c_str() + name + 4, nullptr, 10));
}

std::set<pid_t> descendantsOf(pid_t ancestor) {
    std::set<pid_t> family{ancestor};
    for (size_t known = 0; known != family.size();) {
        known = family.size();
        for (const auto &entry : fs::directory_iterator("/proc")) {
            pid_t pid = static_cast<pid_t>(strtol(entry.path().filename().c_str(), nullptr, 10));
            if (pid > 0 && family.contains(parentOf(std::to_string(pid)))) {
                family.insert(pid);
            }
        }
    }
    family.erase(ancestor);
    return family;
}

/// Also if it is a zombie: when the host's init takes note of it is not ours to say.
bool hasEnded(pid_t pid) {
    std::string stat = slurp(fmt::format("/proc/{}/stat", pid));
    size_t name = stat.rfind(')');
    return name == std::string::npos || stat.compare(name, 3, ") Z") == 0;
}

bool goneWithin(std::chrono::milliseconds limit, std::set<pid_t> processes) {
    auto end = std::chrono::steady_clock::now() + limit;
    while (!processes.empty() && std::chrono::steady_clock::now() < end) {
        std::erase_if(processes, hasEnded);
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return processes.empty();
}

TEST_F(SandboxTest, backgroundProcessesEndWithTheBuilder) {
    Outcome outcome = run("busybox setsid busybox sleep 91827361 & echo started");
    EXPECT_EQ(outcome.output, "started\n");
    EXPECT_TRUE(processesWith("91827361").empty());
}

/// What the supervisor does is held up: it is stopped while the builder waits at a gate, which then opens.
class SupervisorTest : public SandboxTest {
  protected:
    BuilderProcess endWithStoppedSupervisor(const std::string &script) {
        std::string gate = root_ + "/build/gate";
        EXPECT_EQ(mkfifo(gate.c_str(), 0666), 0);
        EXPECT_EQ(chmod(gate.c_str(), 0666), 0);
        BuilderProcess process = spawnSandbox(shell("read line < gate; " + script));
        UniqueFd opened(open(gate.c_str(), O_WRONLY | O_CLOEXEC)); // once the builder is there
        EXPECT_EQ(kill(process.pid(), SIGSTOP), 0);
        EXPECT_EQ(write(opened.get(), "\n", 1), 1);
        return process;
    }

    static void awaitReport(const BuilderProcess &process) {
        struct pollfd readable = {process.statusFd(), POLLIN, 0};
        EXPECT_EQ(poll(&readable, 1, 60'000), 1);
    }
};

TEST_F(SupervisorTest, isNotWaitedForWhenNoProcessIsLeft) {
    BuilderProcess process = endWithStoppedSupervisor("busybox true & wait; exit 7");
    awaitReport(process);
    std::optional<BuilderResult> result = process.poll();
    EXPECT_EQ(kill(process.pid(), SIGCONT), 0);
    ASSERT_NE(result, std::nullopt);
    EXPECT_EQ(result->kind, Kind::exited);
    EXPECT_EQ(result->exitCode, 7);
}

TEST_F(SupervisorTest, isWaitedForWhenProcessesAreLeft) {
    BuilderProcess process = endWithStoppedSupervisor("busybox setsid busybox sleep 1000 & exit 7");
    awaitReport(process);
    EXPECT_EQ(process.poll(), std::nullopt);
    EXPECT_EQ(kill(process.pid(), SIGCONT), 0);
    EXPECT_EQ(process.wait().exitCode, 7);
}

ino_t inodeOf(const UniqueFd &file) {
    struct stat st = {};
    EXPECT_EQ(fstat(file.get(), &st), 0);
    return st.st_ino;
}

TEST_F(SandboxTest, networkBelongsToTheSandboxsUsers) {
    BuilderProcess process = spawnSandbox(shell("exec busybox sleep 63524130"));
    pid_t builder = -1;
    while (builder < 0 && !process.poll()) {
        for (pid_t pid : processesWith("63524130")) {
            // Before it is executed, sandbox-init's own processes hide from us.
            builder = descendantsOf(process.pid()).contains(pid) ? pid : -1;
        }
    }
    std::string namespaces = fmt::format("/proc/{}/ns/", builder);
    UniqueFd network(open((namespaces + "net").c_str(), O_RDONLY | O_CLOEXEC));
    UniqueFd users(open((namespaces + "user").c_str(), O_RDONLY | O_CLOEXEC));
    UniqueFd hosts(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
    UniqueFd owner(ioctl(network.get(), NS_GET_USERNS));
    EXPECT_EQ(inodeOf(owner), inodeOf(users));
    EXPECT_NE(inodeOf(network), inodeOf(hosts));
}

/// In a user namespace of its own, which allows no network namespaces.
TEST_F(SandboxTest, networkThatCannotBeMadeIsReported) {
    Pipe words = makePipe();
    pid_t daemon = fork();
    if (daemon == 0) {
        uid_t user = geteuid();
        gid_t group = getegid();
        bool ready = unshare(CLONE_NEWUSER) == 0;
        std::ofstream("/proc/self/setgroups") << "deny";
        std::ofstream("/proc/self/uid_map") << fmt::format("0 {} 1", user);
        std::ofstream("/proc/self/gid_map") << fmt::format("0 {} 1", group);
        std::ofstream("/proc/sys/user/max_net_namespaces") << "0" << std::flush;
        ready = ready && slurp("/proc/sys/user/max_net_namespaces") == "0\n";
        SandboxSpec spec = shell("");
        spec.uidOutside = spec.gidOutside = static_cast<uid_t>(-1);
        std::string told = ready ? spawnSandbox(spec).wait().describe() : "not to be tried here";
        _exit(write(words.writeEnd.get(), told.data(), told.size()) < 0);
    }
    words.writeEnd.reset();
    char buffer[1000];
    ssize_t length = read(words.readEnd.get(), buffer, sizeof buffer);
    waitpid(daemon, nullptr, 0);
    std::string told(buffer, length > 0 ? static_cast<size_t>(length) : 0);
    if (told == "not to be tried here") {
        GTEST_SKIP() << told;
    }
    EXPECT_NE(told.find("entering new namespaces 'network': No space left on device"), told.npos) << told;
}

/// Forks a spawner, kills it with SIGKILL and looks at what is left.
void killSpawner(const SandboxSpec &spec, const std::string &mark) {
    pid_t spawner = fork();
    if (spawner == 0) {
        BuilderProcess process = spawnSandbox(spec);
        pause();
        _exit(0);
    }
    while (processesWith(mark).empty()) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    std::set<pid_t> family = descendantsOf(spawner);
    EXPECT_GE(family.size(), 3); // both processes of sandbox-init and the builder
    kill(spawner, SIGKILL);
    waitpid(spawner, nullptr, 0);
    EXPECT_TRUE(goneWithin(std::chrono::seconds(60), mark));
    EXPECT_TRUE(goneWithin(std::chrono::seconds(60), family));
}

TEST_F(SandboxTest, deathOfTheDaemonLeavesNothing) {
    killSpawner(shell("busybox setsid busybox sleep 73615243 & busybox sleep 73615243; :"), "73615243");
    EXPECT_EQ(slurp("/proc/self/mountinfo").find(root_), std::string::npos);
}

TEST_F(SandboxTest, deathOfTheDaemonEndsWhatWaitsToBeTold) {
    Pipe ready = makePipe();
    pid_t spawner = fork();
    if (spawner == 0) {
        StartedSandbox started = startSandbox(initProgram());
        ready.writeEnd.reset();
        pause();
        _exit(0);
    }
    ready.writeEnd.reset();
    char byte;
    EXPECT_EQ(read(ready.readEnd.get(), &byte, 1), 0); // once it has been executed
    std::set<pid_t> family = descendantsOf(spawner);
    EXPECT_EQ(family.size(), 1u);
    kill(spawner, SIGKILL);
    waitpid(spawner, nullptr, 0);
    EXPECT_TRUE(goneWithin(std::chrono::seconds(60), family));
}

TEST_F(SandboxTest, deathOfTheDaemonEndsUnsandboxedBuildsToo) {
    killSpawner(plainShell("busybox setsid busybox sleep 73615244 & busybox sleep 73615244; :"), "73615244");
}

TEST_F(SandboxTest, unsandboxedBuildHasAPidNamespaceAndTheHostsFiles) {
    Outcome outcome = run(
        plainShell("echo $$; busybox id -u; busybox pwd; busybox ls -d /proc/[0-9]*; busybox ls -d /usr"));
    EXPECT_BUILDS(outcome);
    uid_t uid = geteuid() == 0 ? leasedUser : geteuid();
    std::string start = fmt::format("2\n{}\n{}/build\n/proc/1\n/proc/2\n", uid, root_);
    EXPECT_EQ(outcome.output.substr(0, start.size()), start);
    EXPECT_NE(outcome.output.find("/usr\n"), std::string::npos);
}

TEST_F(SandboxTest, unsandboxedBuildHasNoRights) {
    Outcome outcome = run(plainShell(
        "busybox grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status; busybox chmod u+s ../build"));
    EXPECT_EQ(outcome.output, "CapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\n"
                              "chmod: ../build: Operation not permitted\n");
}

TEST_F(SandboxTest, largeNumbersOfInputsWork) {
    SandboxSpec spec = shell("busybox ls /nix/store | busybox wc -l");
    for (int i = 0; i < 500; i++) {
        std::string name = "input-" + std::to_string(i);
        fs::create_directory(root_ + "/store/" + name);
        addInput(spec, name);
    }
    Outcome outcome = run(spec);
    EXPECT_BUILDS(outcome);
    EXPECT_EQ(outcome.output, "500\n");
}

/// A detached mount of a tmpfs that is noexec where it came from, cleared of that: only root can make one.
UniqueFd executableMount() {
    UniqueFd context(fsopen("tmpfs", FSOPEN_CLOEXEC));
    if (fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) < 0) {
        return UniqueFd();
    }
    UniqueFd mount(
        fsmount(context.get(), FSMOUNT_CLOEXEC, MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV));
    mount_attr attributes = {};
    attributes.attr_clr = MOUNT_ATTR_NOEXEC;
    attributes.propagation = MS_PRIVATE;
    EXPECT_EQ(mount_setattr(mount.get(), "", AT_EMPTY_PATH, &attributes, sizeof attributes), 0);
    EXPECT_EQ(fchmodat(mount.get(), ".", 0777, 0), 0);
    return mount;
}

TEST_F(SandboxTest, buildDirectoryCanBeADetachedMount) {
    UniqueFd mount = executableMount();
    if (geteuid() != 0) {
        EXPECT_FALSE(mount);
        return;
    }
    SandboxSpec spec = shell("busybox cp /bin/busybox /build/echo && /build/echo executed; busybox grep -c ' "
                             "/build ' /proc/self/mountinfo");
    spec.buildDir = mount.get();
    spec.buildDirKind = BuildDirKind::mount;
    Outcome outcome = run(spec);
    EXPECT_EQ(outcome.output, "executed\n1\n");
}

TEST_F(SandboxTest, unsandboxedBuildDirectoryCanBeADetachedMountOfIt) {
    SandboxSpec spec = plainShell("busybox cp /usr/bin/busybox ./echo && ./echo executed; busybox grep -c "
                                  "\" $PWD \" /proc/self/mountinfo");
    UniqueFd mount(open_tree(build_.get(), "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH));
    spec.buildDir = mount.get();
    spec.buildDirKind = BuildDirKind::mount;
    spec.buildDirInside = root_ + "/build";
    if (geteuid() != 0) {
        EXPECT_FALSE(mount);
        return;
    }
    Outcome outcome = run(spec);
    EXPECT_EQ(outcome.output, "executed\n1\n") << outcome.result.describe();
}

/// Unsandboxed builds whose directory is replaced by a tmpfs over it, which root and others can have.
class HostTreeTest : public SandboxTest {
  protected:
    SandboxSpec overPath(const std::string &path, const std::string &script = "echo ran") {
        SandboxSpec spec = plainShell(script);
        spec.buildDir = build_.get();
        spec.buildDirKind = BuildDirKind::tmpfs;
        spec.buildDirSize = "1M";
        spec.buildDirInside = spec.workingDirectory = path;
        return spec;
    }
    void expectStop(const SandboxSpec &spec, sandbox::Step step, int error) {
        Outcome outcome = run(spec);
        EXPECT_EQ(outcome.result.kind, Kind::setupFailed) << outcome.result.describe();
        EXPECT_EQ(sandbox::stepName(outcome.result.step), std::string(sandbox::stepName(step)));
        EXPECT_EQ(outcome.result.path, spec.workingDirectory);
        EXPECT_EQ(outcome.result.error, error) << strerror(outcome.result.error);
        EXPECT_EQ(outcome.output, "");
    }
};

TEST_F(HostTreeTest, mountGoesOverTheBuildDirectoryAndItsFilesAreTheBuilders) {
    SandboxSpec spec =
        overPath(root_ + "/build", "busybox stat -c '%n %u %a' .attr; busybox cat .attr; "
                                   "echo x > new; busybox grep -c \" $PWD \" /proc/self/mountinfo");
    spec.buildDirFiles = {{".attr", "contents\n"}};
    Outcome outcome = run(spec);
    EXPECT_BUILDS(outcome);
    uid_t uid = geteuid() == 0 ? leasedUser : geteuid();
    EXPECT_EQ(outcome.output, fmt::format(".attr {} 644\ncontents\n1\n", uid));
    EXPECT_TRUE(fs::is_empty(root_ + "/build"));
}

TEST_F(HostTreeTest, symlinkOnTheWayIsNotFollowed) {
    fs::create_symlink(root_, root_ + "/link");
    expectStop(overPath(root_ + "/link/build"), sandbox::Step::findTarget, ELOOP);
    fs::create_symlink("build", root_ + "/last");
    expectStop(overPath(root_ + "/last"), sandbox::Step::findTarget, ELOOP);
}

TEST_F(HostTreeTest, anotherDirectoryIsNotMountedOn) {
    expectStop(overPath(root_ + "/outside"), sandbox::Step::findTarget, ESTALE);
}

TEST_F(HostTreeTest, nothingIsMadeInIt) {
    expectStop(overPath(root_ + "/absent"), sandbox::Step::findTarget, ENOENT);
    EXPECT_FALSE(fs::exists(root_ + "/absent"));
}

TEST_F(HostTreeTest, builderStartsInNoOtherDirectory) {
    SandboxSpec spec = overPath(root_ + "/outside");
    spec.buildDirKind = BuildDirKind::directory;
    expectStop(spec, sandbox::Step::changeDirectory, ESTALE);
    spec.buildDirInside = spec.workingDirectory = root_ + "/build";
    EXPECT_BUILDS(run(spec));
}

/// As a container's filter does that is older than the call.
void hideOpenat2() {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {std::size(filter), filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
        _exit(99);
    }
}

/// In a child, whose exit code it is.
int exitCodeOf(const std::function<int()> &look) {
    pid_t child = fork();
    if (child == 0) {
        _exit(look());
    }
    int status = -1;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_F(HostTreeTest, withoutOpenat2NoSymlinkIsFollowedEither) {
    fs::create_symlink(root_, root_ + "/link");
    EXPECT_EQ(
        0, exitCodeOf([&] {
            hideOpenat2();
            BuilderResult followed = spawnSandbox(overPath(root_ + "/link/build")).wait();
            BuilderResult other = spawnSandbox(overPath(root_ + "/outside")).wait();
            BuilderResult plain = spawnSandbox(overPath(root_ + "/build")).wait();
            return followed.error != ENOTDIR ? 1 : other.error != ESTALE ? 2 : !plain.succeeded() ? 3 : 0;
        }));
}

TEST_F(SandboxTest, fullTmpfsIsReported) {
    SandboxSpec spec = shell("busybox head -c 3000000 /dev/zero > big");
    spec.buildDirKind = BuildDirKind::tmpfs;
    spec.buildDirSize = "1M";
    Outcome outcome = run(spec);
    EXPECT_EQ(outcome.result.exitCode, 1) << outcome.output;
    EXPECT_TRUE(outcome.result.memoryFull);
    spec.args = {"sh", "-c", "echo little > file; exit 1"};
    outcome = run(spec);
    EXPECT_EQ(outcome.result.exitCode, 1) << outcome.output;
    EXPECT_FALSE(outcome.result.memoryFull);
}

TEST_F(SandboxTest, classicExecutableMountIsMadeHoweverFewDescriptorsThereAre) {
    SandboxSpec spec = shell("busybox cp /bin/busybox /build/echo && /build/echo executed");
    spec.buildDirKind = BuildDirKind::classicExecutable;
    for (int i = 0; i < 60; i++) {
        std::string name = "input-" + std::to_string(i);
        fs::create_directory(root_ + "/store/" + name);
        addInput(spec, name);
    }
    if (geteuid() != 0) {
        BuilderResult result = run(spec).result;
        EXPECT_EQ(result.step, sandbox::Step::makeExecutable);
        EXPECT_NE(result.describe().find("root's rights over the mount"), std::string::npos);
        return;
    }
    EXPECT_EQ(0, exitCodeOf([&] {
                  struct rlimit few = {160, 160};
                  std::string build = root_ + "/build";
                  if (setrlimit(RLIMIT_NOFILE, &few) != 0 || unshare(CLONE_NEWNS) != 0 ||
                      mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
                      mount("none", build.c_str(), "tmpfs", MS_NOEXEC | MS_NOSUID | MS_NODEV, "mode=0777") !=
                          0) {
                      return 99;
                  }
                  UniqueFd directory(open(build.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
                  UniqueFd scratch(open((root_ + "/scratch").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
                  spec.buildDir = directory.get();
                  spec.scratchStore = scratch.get(); // in this mount namespace, too
                  BuilderResult result = spawnSandbox(spec).wait();
                  dprintf(output_.get(), "%s", result.succeeded() ? "" : result.describe().c_str());
                  return result.succeeded() ? 0 : 1;
              }));
    EXPECT_EQ(takeOutput(), "executed\n");
}

/// The options of the mount at a path, as mountinfo has them.
std::string optionsOf(const std::string &table, const std::string &path) {
    size_t at = table.rfind(" " + path + " ");
    std::istringstream fields(at == std::string::npos ? "" : table.substr(at));
    std::string point, options;
    fields >> point >> options;
    return options;
}

std::string without(std::string options, const std::string &option) {
    size_t at = options.find("," + option);
    return at == std::string::npos ? "no " + option : options.erase(at, option.size() + 1);
}

/// Directories, files and a symlink, as many of each as asked for: "dir-0", "file-0", "link-0" and so on.
/// What is in them is their name.
class InputsTest : public SandboxTest {
  protected:
    void makeInputs(SandboxSpec &spec, int count) {
        for (int i = 0; i < count; i++) {
            std::string number = std::to_string(i), store = root_ + "/store/";
            fs::create_directory(store + "dir-" + number);
            std::ofstream(store + "dir-" + number + "/name") << "dir-" + number;
            std::ofstream(store + "file-" + number) << "file-" + number;
            fs::create_symlink("file-" + number, store + "link-" + number);
            for (const char *kind : {"dir-", "file-", "link-"}) {
                addInput(spec, kind + number);
            }
        }
    }

    std::string namesIn(int count) {
        std::string directories, others;
        for (int i = 0; i < count; i++) {
            std::string number = std::to_string(i);
            directories += "dir-" + number + "\n";
            others += fmt::format("file-{}\nfile-{}\n", number, number);
        }
        return directories + others;
    }

    std::string showNames(int count) {
        std::string directories, others;
        for (int i = 0; i < count; i++) {
            std::string number = std::to_string(i);
            directories += " dir-" + number + "/name";
            others += fmt::format(" file-{} link-{}", number, number);
        }
        return "cd /nix/store; for f in" + directories + others + "; do busybox cat $f; echo; done; ";
    }
};

TEST_F(InputsTest, manyAreMountedAsFewAre) {
    const std::string show = "busybox cat /proc/self/mountinfo; busybox ls -a / /nix/store";
    SandboxSpec few = shell(show), many = shell(showNames(20) + show);
    makeInputs(few, 1);
    std::string single = run(few).output;
    fs::remove_all(root_ + "/store/");
    fs::create_directory(root_ + "/store");
    fs::remove_all(root_ + "/scratch/dir-0");
    fs::remove_all(root_ + "/scratch/file-0");
    fs::remove_all(root_ + "/scratch/link-0");
    makeInputs(many, 20);
    Outcome outcome = run(many);
    EXPECT_BUILDS(outcome);
    EXPECT_TRUE(outcome.output.starts_with(namesIn(20))) << outcome.output;
    for (int i = 0; i < 20; i++) {
        for (std::string kind : {"dir-", "file-"}) {
            std::string path = "/nix/store/" + kind + std::to_string(i);
            EXPECT_EQ(optionsOf(outcome.output, path), optionsOf(single, "/nix/store/" + kind + "0"));
            EXPECT_NE(optionsOf(outcome.output, path).find("ro,nosuid,nodev"), std::string::npos);
        }
    }
    // What has helped to set it up is nowhere to be seen.
    auto mounts = [](const std::string &text) {
        std::istringstream lines(text);
        size_t count = 0;
        for (std::string line; std::getline(lines, line);) {
            count += line.find(" - ") != std::string::npos ? 1 : 0;
        }
        return count;
    };
    EXPECT_EQ(mounts(outcome.output), mounts(single) + 2 * 19);
    auto root = [](const std::string &text) {
        size_t from = text.find("\n/:\n");
        return text.substr(from, text.find("\n/nix/store:\n") - from);
    };
    EXPECT_EQ(root(outcome.output), root(single));
    size_t entries = 0;
    for (const auto &entry : fs::directory_iterator(root_ + "/scratch")) {
        EXPECT_TRUE(fs::exists(fs::symlink_status(root_ + "/store/" + entry.path().filename().string())))
            << entry.path();
        entries++;
    }
    EXPECT_EQ(entries, 60u);
}

TEST_F(InputsTest, whatOnlyTheDaemonCanReachIsShown) {
    SandboxSpec spec = shell(showNames(20));
    makeInputs(spec, 20);
    fs::permissions(root_ + "/store", fs::perms::owner_all);
    Outcome inside = run(spec);
    EXPECT_BUILDS(inside);
    EXPECT_EQ(inside.output, namesIn(20));
}

/// Root of the host is root of nothing in the sandbox. (Of an ordinary user's daemon the same is true
/// anyway.)
TEST_F(InputsTest, whatOnlyTheDaemonCanReachIsShownToBuildersOfItsOwnUserToo) {
    SandboxSpec spec = shell(showNames(20));
    makeInputs(spec, 20);
    spec.uidOutside = static_cast<uid_t>(-1);
    spec.gidOutside = static_cast<gid_t>(-1);
    spec.groups.clear();
    if (geteuid() == 0) {
        for (const char *name : {"/scratch", "/build"}) {
            ASSERT_EQ(chown((root_ + name).c_str(), 0, 0), 0);
        }
        ASSERT_EQ(chown((root_ + "/store").c_str(), 12345, 12345), 0);
    }
    fs::permissions(root_ + "/store", fs::perms::owner_all);
    Outcome outcome = run(spec);
    EXPECT_BUILDS(outcome);
    EXPECT_EQ(outcome.output, namesIn(20));
}

TEST_F(InputsTest, storeOnlyTheDaemonCanGetToIsShown) {
    SandboxSpec spec = shell(showNames(20));
    makeInputs(spec, 20);
    fs::permissions(root_, fs::perms::owner_all);
    Outcome outcome = run(spec);
    EXPECT_BUILDS(outcome);
    EXPECT_EQ(outcome.output, namesIn(20));
}

/// In a child with user and mount namespaces of its own where that takes them: an ordinary user's daemon.
TEST_F(InputsTest, mountPointShowsWhatIsMountedThere) {
    SandboxSpec spec = shell("cd /nix/store; busybox cat dir-7/name dir-8/name file-9; echo x > dir-7/new");
    makeInputs(spec, 20);
    std::ofstream(root_ + "/outside/name") << "mounted, ";
    std::ofstream(root_ + "/outside/file") << " and mounted\n";
    uid_t user = geteuid();
    gid_t group = getegid();
    EXPECT_EQ(0, exitCodeOf([&] {
                  if (unshare(user == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER) != 0) {
                      return 98;
                  }
                  if (user != 0) {
                      std::ofstream("/proc/self/uid_map") << fmt::format("{} {} 1\n", user, user);
                      std::ofstream("/proc/self/setgroups") << "deny";
                      std::ofstream("/proc/self/gid_map") << fmt::format("{} {} 1\n", group, group);
                  }
                  std::string outside = root_ + "/outside", store = root_ + "/store/";
                  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
                      mount(outside.c_str(), (store + "dir-7").c_str(), nullptr, MS_BIND, nullptr) != 0 ||
                      mount((outside + "/file").c_str(), (store + "file-9").c_str(), nullptr, MS_BIND,
                            nullptr) != 0) {
                      return 99;
                  }
                  UniqueFd scratch(open((root_ + "/scratch").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
                  UniqueFd build(open((root_ + "/build").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
                  spec.scratchStore = scratch.get(); // in this mount namespace, too
                  spec.buildDir = build.get();
                  BuilderResult result = spawnSandbox(spec).wait();
                  dprintf(output_.get(), "%s", result.kind == Kind::exited ? "" : result.describe().c_str());
                  return 0;
              }));
    EXPECT_EQ(takeOutput(),
              "mounted, dir-8 and mounted\nsh: can't create dir-7/new: Read-only file system\n");
}

TEST_F(InputsTest, deathOfTheDaemonLeavesNothing) {
    SandboxSpec spec = shell("busybox sleep 73615245; :");
    makeInputs(spec, 20);
    killSpawner(spec, "73615245");
}

TEST_F(SandboxTest, classicExecutableMountKeepsEveryFlagButNoexec) {
    constexpr unsigned long nosymfollow = 256; // MS_NOSYMFOLLOW, in headers of Linux 5.10
    std::string build = root_ + "/build", inside = build + "/inside";
    SandboxSpec spec = plainShell("busybox cat /proc/self/mountinfo");
    spec.buildDirKind = BuildDirKind::classicExecutable;
    spec.buildDirInside = spec.workingDirectory = inside;
    if (geteuid() != 0) {
        spec.buildDir = build_.get();
        EXPECT_EQ(run(spec).result.error, EPERM);
        return;
    }
    constexpr unsigned long kinds[] = {0,
                                       MS_NOATIME,
                                       MS_NODIRATIME,
                                       MS_RELATIME,
                                       MS_STRICTATIME,
                                       MS_NOATIME | MS_NODIRATIME,
                                       nosymfollow,
                                       nosymfollow | MS_NOATIME};
    for (unsigned long flags : kinds) {
        EXPECT_EQ(0, exitCodeOf([&] {
                      if (unshare(CLONE_NEWNS) != 0 ||
                          mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
                          mount("none", build.c_str(), "tmpfs", MS_NOEXEC | MS_NOSUID | MS_NODEV | flags,
                                "mode=0777") != 0 ||
                          mkdir(inside.c_str(), 0777) != 0) {
                          return 99;
                      }
                      UniqueFd directory(open(inside.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
                      spec.buildDir = directory.get();
                      std::string expected =
                          without(optionsOf(slurp("/proc/self/mountinfo"), build), "noexec");
                      Outcome outcome = run(spec);
                      std::string options = optionsOf(outcome.output, inside);
                      if (options != expected) {
                          fprintf(stderr, "%s instead of %s; it %s\n", options.c_str(), expected.c_str(),
                                  outcome.result.describe().c_str());
                      }
                      return options == expected ? 0 : 1;
                  }))
            << flags;
    }
}

TEST_F(SandboxTest, earlyKillIsNotLost) {
    for (int i = 0; i < 20; i++) {
        BuilderProcess process = spawnSandbox(shell("busybox sleep 1000"));
        std::this_thread::sleep_for(std::chrono::microseconds(i * 150));
        process.kill();
        EXPECT_EQ(process.wait().kind, Kind::signaled);
    }
}

TEST_F(SandboxTest, personalityFixesAddressesAndThe32BitMachine) {
    SandboxSpec spec = shell("busybox cat /proc/self/personality; busybox uname -m");
    spec.linux32 = true;
    Outcome outcome = run(spec);
    EXPECT_EQ(outcome.output, "00040008\ni686\n");
}

TEST_F(SandboxTest, hostCanMakeSandboxes) {
    EXPECT_NO_THROW(checkSandboxSupport(initProgram(), true));
    EXPECT_NO_THROW(checkSandboxSupport(initProgram(), false));
}

TEST(SandboxSupportTest, maskedProcIsExplained) {
    BuilderResult result;
    result.kind = Kind::setupFailed;
    result.step = sandbox::Step::mountProc;
    result.path = "/proc";
    result.error = EPERM;
    std::string text = result.describe();
    EXPECT_EQ(
        text.find("could not be set up: mounting the process file system '/proc': Operation not permitted. "),
        0u);
    EXPECT_NE(text.find("container"), std::string::npos);
}

TEST(SandboxSupportTest, aMountThatIsInNoTableHasWords) {
    Pipe pipe = makePipe(); // is on one
    ExecChoice choice;
    choice.base = "/b";
    std::string text = explainNoExecution(choice, pipe.readEnd.get(), "why");
    EXPECT_EQ(text.find("''"), std::string::npos) << text;
    EXPECT_NE(text.find("where no mount table shows it"), std::string::npos) << text;
}

TEST(SandboxSupportTest, aDirectoryThatTheBuilderCannotReachIsExplained) {
    char name[] = "/tmp/firn-unreachable-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    fs::path top = name, closed = top / "open" / "closed", own = closed / "base" / "1-1" / "b";
    fs::create_directories(own);
    for (const fs::path &path : {top, top / "open", closed / "base"}) {
        fs::permissions(path, fs::perms(0755));
    }
    fs::permissions(closed, fs::perms(0700));
    fs::permissions(closed / "base" / "1-1", fs::perms(0500));
    BuilderResult result;
    result.kind = Kind::setupFailed;
    result.step = sandbox::Step::changeDirectory;
    result.path = own;
    result.error = EACCES;
    EXPECT_NE(result.describe().find("chmod o+x '" + closed.string() + "'"), std::string::npos)
        << result.describe();
    fs::permissions(closed, fs::perms(0755));
    EXPECT_EQ(result.describe().find("chmod"), std::string::npos) << result.describe();
    EXPECT_NE(result.describe().find("'build-dir'"), std::string::npos) << result.describe();
    fs::permissions(closed / "base" / "1-1", fs::perms(0700));
    fs::remove_all(top);
}

TEST(SandboxPathTest, wordsAreUnderstood) {
    SandboxPath plain = parseSandboxPath("/usr");
    EXPECT_EQ(plain.target, "/usr");
    EXPECT_EQ(plain.source, "/usr");
    EXPECT_FALSE(plain.optional);
    SandboxPath full = parseSandboxPath("/bin/sh=/usr/bin/busybox?");
    EXPECT_EQ(full.target, "/bin/sh");
    EXPECT_EQ(full.source, "/usr/bin/busybox");
    EXPECT_TRUE(full.optional);
}

TEST(SandboxPathTest, pathsThatLeadElsewhereAreRefused) {
    for (const char *word :
         {"", "?", "relative", "/a/../b", "/a/./b", "/a//b", "/", "/a=b", "=/a", "/a=/b/../c"}) {
        EXPECT_THROW(parseSandboxPath(word), Error) << word;
    }
}

} // namespace
} // namespace firn
