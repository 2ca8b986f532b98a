"""Builds whose temporary directory is on a file system mounted noexec.

As root the tests mount it in a mount namespace of pytest's own, before the daemon starts: that namespace is "the host". As an
ordinary user the daemon runs in a user and mount namespace in which the directory was mounted, without any rights over it: to
the daemon that is a mount of somebody else's, as it is on a host. `look()` sees it from outside in both cases.
"""

import ctypes
import fcntl
import functools
import os
import random
import re
import resource
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

import machine
import protocol
import world as worlds

pytestmark = [pytest.mark.firn_only("stock Nix does not build under noexec")]

OPTIONS = "noexec,nosuid,nodev"
LONG = os.environ.get("FIRN_LONG") == "1"
HOST_TOOLS = worlds.HOST_TOOLS
BUSYBOX = "/usr/bin/busybox" if os.path.exists("/usr/bin/busybox") else "/bin/busybox"
RUN_COPY = "cat $(test -e /usr/bin/busybox && echo /usr/bin/busybox || echo /bin/sh) > busybox; chmod +x busybox; ./busybox echo"


def own_mount_namespace():
    """Once for this process; what it mounts is its children's business alone."""
    if not getattr(own_mount_namespace, "done", False):
        CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.unshare(CLONE_NEWNS) == 0, os.strerror(ctypes.get_errno())
        assert libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) == 0, os.strerror(ctypes.get_errno())
        own_mount_namespace.done = True


class Noexec:
    """The world's build directory as a mount of its own."""

    def __init__(self, world):
        self.world, self.path = world, world.tmp
        self.mounted = False
        self.expected = []  # what may be left in the directory

    def mount(self, options=OPTIONS, kind="tmpfs", shared=False, then="true"):
        """`then` is run by the shell afterwards, with the directory as $1 (for an ordinary user only)."""
        if machine.is_root():
            own_mount_namespace()
            subprocess.run(["mount", "-t", kind, "-o", options, "none", self.path], check=True)
        else:
            # A shell keeps the namespaces, for daemons come and go, and does what only the mount's owner may.
            script = f'''mount -t {kind} -o {options} none "$1" && {then} && echo ready
                         while read -r command; do eval "$command"; echo "$?"; done'''
            self.holder = subprocess.Popen(["unshare", "--user", "--map-current-user", "--mount", "--keep-caps", "sh", "-c", script, "sh", str(self.path)],
                                           stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert self.holder.stdout.readline() == b"ready\n"
            self.world.helpers.append(self.holder.pid)
            self.world.daemon_prefix = ["nsenter", "--target", str(self.holder.pid), "--user", "--mount", "--preserve-credentials", "--",
                                        "setpriv", "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--"]
        if shared:
            self.in_host("mount", "--make-shared", self.path)
        self.mounted = True
        return self

    def in_host(self, *command):
        """Runs a program as the host's owner would, who may mount there."""
        command = shlex.join(map(str, command))
        if machine.is_root():
            subprocess.run(command, shell=True, check=True)
        else:
            self.holder.stdin.write(f"{command} >&2\n".encode())
            self.holder.stdin.flush()
            assert self.holder.stdout.readline() == b"0\n", command

    def remount(self, options):
        """The options are this mount's own, as they are for a bind mount."""
        self.in_host("mount", "-o", f"remount,bind,exec,{options}", self.path)

    @property
    def view(self):
        """The directory, as who is outside of the sandbox sees it."""
        return self.path if machine.is_root() else Path(f"/proc/{self.holder.pid}/root{self.path}")

    def table(self):
        """The mount table of the daemon's world. Its namespace is private, so that nobody else changes it meanwhile."""
        pid = os.getpid() if machine.is_root() else self.holder.pid
        return Path(f"/proc/{pid}/mountinfo").read_text().splitlines()

    def left(self):
        return sorted(os.listdir(self.view))

    def unmount(self):
        if self.mounted and machine.is_root():
            while subprocess.run(["umount", "-l", self.path], stderr=subprocess.DEVNULL).returncode == 0:
                pass
        elif self.mounted:
            self.holder.kill()
            self.holder.wait()
        self.mounted = False


@pytest.fixture
def noexec(world):
    made = Noexec(world)
    yield made
    left = []
    if made.mounted:
        machine.wait_until(lambda: made.left() == made.expected, 5)
        left = made.left()
    made.unmount()
    assert left == made.expected, "left in the build directory's parent"


both = pytest.mark.parametrize("sandbox", ["true", "false"])
calls = pytest.mark.parametrize("calls", ["new", "classic"])


def started(world, client):
    for line in client.stderr:
        if b"started" in line:
            return client
    raise AssertionError("the build did not start:\n" + (world.root / "daemon.log").read_text())


PROGRAM = {
    "configure": """#!/bin/sh
cat > conftest.c <<X
int main(void) { return 0; }
X
cc conftest.c -o conftest && ./conftest || { echo "cannot run compiled programs" >&2; exit 1; }
printf 'all:\\n\\tcc hello.c -o hello\\n' > Makefile
""",
    "hello.c": '#include <stdio.h>\nint main(void) { puts("hello from noexec"); return 0; }\n',
}


def unpack_configure_make(world, attributes="", then="true"):
    folder = world.src / "hello-1.0"
    folder.mkdir()
    for name, text in PROGRAM.items():
        (folder / name).write_text(text)
    (folder / "configure").chmod(0o755)
    subprocess.run(["tar", "-C", world.src, "-czf", world.src / "hello-1.0.tar.gz", "hello-1.0"], check=True)
    return f"""sh "hello" ''export LC_ALL=C; tar xzf $src; cd hello-1.0; ./configure; make; ./hello > $out; {then}''
               {{ src = ./hello-1.0.tar.gz; PATH = "/usr/bin:/bin"; {attributes} }}"""


def assert_noexec_for_others(noexec, before):
    """On the host nothing can be executed in the directory, whoever tries, and its mount table is as it was."""
    tool = noexec.path / "tool"
    noexec.in_host("cp", BUSYBOX, tool)
    users = [[], ["runuser", "-u", "firntest", "--"], ["runuser", "-u", "nixbld9", "--"]] if machine.is_root() else [[]]
    for user in users:
        noexec.in_host("sh", "-c", shlex.join([*user, "sh", "-c", f"{tool} true 2>/dev/null"]) + "; test $? = 126")
    noexec.in_host("rm", tool)
    [program] = noexec.view.glob("firn-*/**/hello-1.0/hello")
    assert os.statvfs(program).f_flag & os.ST_NOEXEC
    if machine.is_root():
        with pytest.raises(PermissionError):
            subprocess.run([program])
    assert noexec.table() == before and any("noexec" in line and str(noexec.path) in line for line in before)


@pytest.mark.every_client
@pytest.mark.parametrize("sandbox", ["true", "false", "__noChroot"])
@pytest.mark.parametrize("calls", ["new", pytest.param("classic", marks=pytest.mark.root_only)])
def test_a_c_program_is_unpacked_configured_compiled_and_run(world, noexec, sandbox, calls):
    """The main case. The host's view stays noexec all the while, and nothing is mounted there."""
    noexec.mount(shared=True)
    gate = world.root / "gate"
    gate.mkdir()
    gate.chmod(0o777)
    world.conf["sandbox"] = "relaxed" if sandbox == "__noChroot" else sandbox
    world.conf["sandbox-paths"] = f"{HOST_TOOLS} {gate}"
    if calls == "classic":
        world.daemon_env["FIRN_CLASSIC_MOUNTS"] = "1"
    world.start()
    before = noexec.table()
    client = world.popen(["nix-build", "--no-out-link", world.nix(unpack_configure_make(
        world, "__noChroot = true;" if sandbox == "__noChroot" else "",
        f"if test -d /build; then echo sandboxed >> $out; fi; : > {gate}/there; while ! test -e {gate}/go; do sleep 0.01; done"))])
    assert machine.wait_until(lambda: (gate / "there").exists() or client.poll() is not None)
    try:
        assert client.poll() is None, client.stderr.read()
        assert_noexec_for_others(noexec, before)
    finally:
        (gate / "go").touch()
    out, err = world.finish(client)
    assert client.returncode == 0, err
    assert Path(out.decode().strip()).read_text() == "hello from noexec\n" + ("sandboxed\n" if sandbox == "true" else "")
    assert noexec.table() == before


@pytest.mark.root_only
@both
@pytest.mark.parametrize("daemon", ["stock", *(f"stock-{client.version}" for client in worlds.find_clients()[1:])])
def test_where_the_stock_daemon_fails_firn_succeeds(world, noexec, sandbox, daemon):
    """2.8 builds in its TMPDIR. 2.34 takes `build-dir` alone, and no directory that lies below a world-writable one."""
    noexec.path = Path(tempfile.mkdtemp(prefix="firn-t-", dir="/var/lib"))
    try:
        noexec.mount(OPTIONS + ",mode=755")
        world.daemon_env["TMPDIR"] = world.conf["build-dir"] = str(noexec.path)
        world.conf |= {"sandbox": sandbox, "sandbox-paths": HOST_TOOLS}
        expression = unpack_configure_make(world)
        world.use_daemon(daemon)
        result = world.build(expression).fails()
        assert "configure: Permission denied" in result.err, result
        world.stop()
        world.use_daemon("firn")
        assert world.text(expression) == "hello from noexec\n"
        world.stop()
        assert noexec.left() == []
    finally:
        noexec.unmount()
        noexec.path.rmdir()


@both
@calls
def test_a_copied_program_runs_and_the_flags_beside_noexec_stay(world, noexec, sandbox, calls):
    noexec.mount()
    world.conf["sandbox"] = sandbox
    if calls == "classic":
        world.daemon_env["FIRN_CLASSIC_MOUNTS"] = "1"
    text = world.text(f"sh \"copy\" ''{RUN_COPY} ran > $out; while read -r line; do case \"$line\" in *\" $PWD \"*) echo \"$line\" >> $out;; esac; done < /proc/self/mountinfo'' {{}}")
    lines = text.splitlines()
    assert lines[0] == "ran"
    options = [line.split()[5] for line in lines[1:]]
    assert len(options) == 1, lines
    assert "noexec" not in options[0] and "nosuid" in options[0] and "nodev" in options[0]
    assert not re.search(r"(shared|master):", lines[1]), "it is a peer of the host's mount"


class Crowd:
    """Builds that all wait at a gate, once they run. They are as many as an ordinary user likes, or as there are build users."""

    def __init__(self, world, noexec, count, limits):
        """`limits`: of the daemon's descriptors, as prlimit takes them."""
        self.world, self.noexec, self.count = world, noexec, count
        self.gate = world.root / "gate"
        self.gate.mkdir()
        self.gate.chmod(0o777)
        world.conf["machine-max-jobs"] = str(count)
        world.conf["sandbox-paths"] += f" {self.gate}"
        world.daemon_prefix = ["prlimit", f"--nofile={limits}", *world.daemon_prefix]

    def start(self, then):
        script = f"{RUN_COPY} ran $n > $out; : > {self.gate}/$n; read -r line < {self.gate}/open || true; {then}"
        os.mkfifo(self.gate / "open", 0o644)
        (self.gate / "open").chmod(0o644)
        return self.world.popen(["nix-build", "--no-out-link", "--max-jobs", str(self.count), self.world.nix(
            f"map (n: sh \"b${{toString n}}\" ''{script}'' {{ inherit n; }}) (builtins.genList (n: n) {self.count})")])

    def waiting(self):
        return len(os.listdir(self.gate)) - 1

    def directories(self):
        """What is below the base's common directory, one for each build."""
        return [path for path in self.noexec.view.glob("firn-*/*") if path.is_dir()]

    def open(self):
        # Whoever reads the pipe has an end of file only when the last writer goes, and whoever comes later would wait: so it
        # becomes an ordinary file first.
        with open(self.gate / "open", "w"):
            (self.gate / "opened").touch()
            (self.gate / "opened").rename(self.gate / "open")


@both
def test_many_builds_at_once(world, noexec, sandbox):
    """With the usual soft limit of descriptors, of which each takes some ten. The builders themselves keep that limit."""
    noexec.mount()
    world.conf["sandbox"] = sandbox
    crowd = Crowd(world, noexec, machine.BUILD_USERS if machine.is_root() else 100, "1024:")
    client = crowd.start(then="ulimit -Sn >> $out; ulimit -Hn >> $out")
    assert machine.wait_until(lambda: crowd.waiting() == crowd.count or client.poll() is not None, 240), crowd.waiting()
    assert client.poll() is None, client.stderr.read()
    assert len(crowd.directories()) == crowd.count
    crowd.open()
    out, err = world.finish(client, 240)
    assert client.returncode == 0, err
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert [Path(path).read_text() for path in out.decode().split()] == [f"ran {n}\n1024\n{hard}\n" for n in range(crowd.count)]


@pytest.mark.user_only
@both
def test_builds_for_which_descriptors_are_lacking_fail_alone(world, noexec, sandbox):
    """Those that run go on to their ends, and nothing of any is left."""
    noexec.mount()
    world.conf["sandbox"] = sandbox
    crowd = Crowd(world, noexec, 40, "128:256")
    client = crowd.start(then="true")
    # Whoever has a directory waits in the end; the others have none.
    assert machine.wait_until(lambda: crowd.waiting() > 5 and len(crowd.directories()) == crowd.waiting() or client.poll() is not None, 60)
    assert client.poll() is None, client.stderr.read()
    crowd.open()
    _, err = world.finish(client, 120)
    assert client.returncode != 0 and b"Too many open files. The daemon may have 256 descriptors open" in err and b"LimitNOFILE" in err, err
    made = [path for path in world.valid_paths() if re.search(r"-b\d+$", path)]
    assert 5 < len(made) < crowd.count and len(made) >= crowd.waiting()
    assert b"stays until" not in err, err
    # The request after this one finds room again.
    assert world.text(f"sh \"after\" ''{RUN_COPY} ran > $out'' {{}}") == "ran\n"


@both
def test_pass_as_file_is_there(world, noexec, sandbox):
    noexec.mount()
    world.conf["sandbox"] = sandbox
    assert world.text("sh \"f\" ''cat $textPath > $out'' { passAsFile = [ \"text\" ]; text = \"many words\"; }") == "many words"


# --- the setting

@both
def test_tmpfs_gives_builds_memory_of_limited_size_and_says_so(world, noexec, sandbox):
    noexec.mount()
    world.conf |= {"sandbox": sandbox, "noexec-build-dir": "tmpfs", "noexec-tmpfs-size": "4M"}
    result = world.build(f"""sh "t" ''{RUN_COPY} ran > $out; cat $textPath >> $out;
        head -c 8000000 /dev/zero > big 2>/dev/null || echo limited >> $out'' {{ passAsFile = [ "text" ]; text = "words\\n"; }}""").ok()
    assert Path(result.path).read_text() == "ran\nwords\nlimited\n"
    result.says("tmpfs of size 4M", str(noexec.path), "noexec")


@both
def test_nothing_of_a_tmpfs_can_be_kept(world, noexec, sandbox):
    noexec.mount()
    world.conf |= {"sandbox": sandbox, "noexec-build-dir": "tmpfs"}
    world.build('sh "t" "echo > file; exit 1" {}', "--keep-failed").fails().says("cannot be kept")


@both
def test_refuse_is_an_error_before_anything_runs(world, noexec, sandbox):
    noexec.mount()
    world.conf |= {"sandbox": sandbox, "noexec-build-dir": "refuse"}
    result = world.build('sh "t" "echo running >&2; echo > $out" {}').fails()
    result.says(f"'{noexec.path}'", "TMPDIR", "tmpfs mounted rw,nosuid,nodev,noexec", "noexec-build-dir = refuse", "without noexec", "'build-dir'",
                "noexec-build-dir = tmpfs")
    assert "running" not in result.err


def test_refuse_does_not_forbid_an_executable_directory(world):
    world.conf["noexec-build-dir"] = "refuse"
    world.output('sh "t" "echo > $out" {}')


def test_an_unknown_value_is_a_clear_error(world):
    world.conf["noexec-build-dir"] = "perhaps"
    with pytest.raises(AssertionError, match="'mount', 'tmpfs' or 'refuse'"):
        world.start()


@pytest.mark.parametrize("trusted", [True, False])
def test_only_trusted_users_may_set_it(world, noexec, trusted):
    """Stock clients do not send settings that they do not know, so this one speaks the protocol itself."""
    noexec.mount()
    world.conf["noexec-build-dir"] = "refuse"
    if not trusted:
        world.conf["trusted-users"] = "daemon"
    [drv] = world.instantiate('sh "t" "echo > $out" {}')
    BUILD_PATHS = 9
    with protocol.Connection(world) as connection:
        connection.set_options(noexec_build_dir="mount")
        build = (BUILD_PATHS, protocol.texts([drv + "!*"]), protocol.number(0))
        if trusted:
            connection.request(*build)
        else:
            with pytest.raises(protocol.DaemonError, match="noexec-build-dir = refuse"):
                connection.request(*build)


# --- what cannot be helped

@pytest.mark.root_only
def test_the_store_on_noexec_is_an_error_of_its_own(world, noexec):
    own_mount_namespace()
    world.store.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec", "none", world.store], check=True)
    try:
        world.build('sh "t" "echo > $out" {}').fails().says(f"nothing in the store '{world.store}' can be executed", "tmpfs mounted rw,noexec")
        world.allow_left |= {"store", "verify"}
    finally:
        world.stop()
        subprocess.run(["umount", "-l", world.store], check=True)


@pytest.mark.user_only
def test_where_nothing_helps_the_state_directory_is_used_with_one_warning(world, noexec):
    """No more user namespaces below the daemon's, so no overlay either (nor a sandbox)."""
    noexec.mount(then="echo 0 > /proc/sys/user/max_user_namespaces")
    world.start()
    result = world.build('sh "t" "echo > $out" {}').fails()
    result.says(f"'{noexec.path}' (from the daemon's TMPDIR) is on '{noexec.path}', tmpfs mounted rw,nosuid,nodev,noexec", "overlay",
                f"builds run in '{world.state}/builds' instead")
    assert result.err.count("instead") == 1, result


# --- keeping

@both
def test_keep_failed_keeps_the_files_and_says_that_they_cannot_be_executed(world, noexec, sandbox):
    noexec.mount()
    world.conf["sandbox"] = sandbox
    result = world.build(f"sh \"broken\" ''{RUN_COPY} ran > file; mkdir d; exit 3'' {{}}", "--keep-failed").fails()
    result.says(f"keeping build directory '{noexec.path}/nix-build-broken-0'", f"'{noexec.path}' is mounted noexec")
    kept = noexec.view / "nix-build-broken-0"
    assert sorted(os.listdir(kept)) == ["busybox", "d", "file"]
    assert (kept / "file").read_text() == "ran\n"
    assert noexec.left() == ["nix-build-broken-0"]
    world.stop()
    noexec.expected = ["nix-build-broken-0"]
    world.allow_left.add("tmp")


# --- builds that stand still

class Holds:
    """Points at which a build stands still until it is let go, in the place of sandbox-init, of the builder, and of the C library's
    functions in the connection (as far as `preload()` was called).

    `probe`   a program is executed from a build directory, to find out whether that works
    `enter`   sandbox-init has been told what to do, with the directory and its mount as good as in its hands, and has done nothing yet
    `set-up`  everything is made and given up, and the builder is being executed: its program is under a lease (fcntl(2)),
              whose holder the kernel waits for
    `run`     the builder runs, and waits
    `remove`  the connection removes the build directory, and has come to a file named "halt"
    `keep`    the connection is about to move it to where it is kept
    `kept`    it is there, and what was around it is not removed yet
    """

    LEAVE = ["remove", "keep", "kept"]

    PROGRAM = r"""
        #include <fcntl.h>
        #include <poll.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <string.h>
        #include <unistd.h>
        static volatile char folder[512] = "@FOLDER@";
        int main(int argc, char **argv) {
            char hold[600], at[600], real[600], self[600] = "";
            int probe = argc == 2 && strcmp(argv[1], "--nothing") == 0, enter = argc == 3 && argv[1][0] != '-';
            const char *phase = probe ? "probe" : "enter", *where = (const char *)folder;
            snprintf(hold, sizeof hold, "%s/hold-%s", where, phase);
            snprintf(at, sizeof at, "%s/at-%s", where, phase);
            snprintf(real, sizeof real, "%s/real", where);
            if (readlink("/proc/self/exe", self, sizeof self - 1) < 0) return 126;
            int copied = strncmp(self, where, strlen(where)) != 0;
            if ((probe || enter) && copied == probe && access(hold, F_OK) == 0) {
                struct pollfd told = {probe ? -1 : atoi(argv[1]), POLLIN, 0};
                if (enter) poll(&told, 1, -1);
                close(open(at, O_CREAT | O_WRONLY, 0600));
                while (access(hold, F_OK) == 0) usleep(2000);
            }
            if (probe) return 0;
            execv(real, argv);
            return 127;
        }
        """

    LIBRARY = r"""
        #include <fcntl.h>
        #include <stdio.h>
        #include <string.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        static volatile char folder[512] = "@FOLDER@";
        static void stand(const char *phase) {
            char hold[600], at[600];
            snprintf(hold, sizeof hold, "%s/hold-%s", (const char *)folder, phase);
            snprintf(at, sizeof at, "%s/at-%s", (const char *)folder, phase);
            if (access(hold, F_OK) == 0) close(open(at, O_CREAT | O_WRONLY, 0600));
            while (access(hold, F_OK) == 0) usleep(2000);
        }
        int unlinkat(int dir, const char *name, int flags) {
            if (strcmp(name, "halt") == 0) stand("remove");
            return syscall(SYS_unlinkat, dir, name, flags);
        }
        int renameat2(int fromDir, const char *from, int toDir, const char *to, unsigned flags) {
            int keeps = strncmp(to, "nix-build-", strlen("nix-build-")) == 0;
            if (keeps) stand("keep");
            int result = syscall(SYS_renameat2, fromDir, from, toDir, to, flags);
            if (keeps && result == 0) stand("kept");
            return result;
        }
        """

    def __init__(self, world):
        self.world, self.folder = world, world.root / "holds"
        self.folder.mkdir()
        self.folder.chmod(0o777)
        daemon = Path(world.daemon_command()[0])
        (self.folder / "real").symlink_to(daemon.parent.parent / "sandbox-init/firn-sandbox-init")
        self.program = self.make("firn-sandbox-init", self.PROGRAM)
        self.shell = self.folder / "sh"
        shutil.copyfile(BUSYBOX, self.shell)
        self.shell.chmod(0o755)
        self.lease = None
        world.daemon_env["FIRN_SANDBOX_INIT"] = str(self.program)
        world.conf["sandbox-paths"] += f" {self.folder}"

    @staticmethod
    @functools.cache
    def compiled(text, *options):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["cc", *options, "-xc", "-", "-o", f"{folder}/hold"], input=text.encode(), check=True)
            return Path(folder, "hold").read_bytes()

    def make(self, name, text, *options):
        made = self.folder / name
        made.write_bytes(self.compiled(text, *options).replace(b"@FOLDER@".ljust(256, b"\0"), str(self.folder).encode().ljust(256, b"\0")))
        made.chmod(0o755)
        return made

    def preload(self):
        """For the phases in LEAVE; before the daemon's start."""
        self.world.daemon_env["LD_PRELOAD"] = str(self.make("hold.so", self.LIBRARY, "-shared", "-fPIC"))

    def hold(self, phase):
        if phase == "set-up":
            signal.signal(signal.SIGIO, signal.SIG_IGN)  # what the kernel says to the lease's holder
            self.lease = os.open(self.shell, os.O_RDWR)
            fcntl.fcntl(self.lease, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        else:
            (self.folder / f"hold-{phase}").touch()

    def is_there(self, phase):
        if phase == "set-up":
            return fcntl.fcntl(self.lease, fcntl.F_GETLEASE) != fcntl.F_WRLCK
        return (self.folder / f"at-{phase}").exists()

    def wait(self, phase):
        assert machine.wait_until(lambda: self.is_there(phase)), f"nothing came to '{phase}'"

    def let_go(self):
        """All of them."""
        if self.lease is not None:
            os.close(self.lease)
            self.lease = None
        for path in [*self.folder.glob("hold-*"), *self.folder.glob("at-*")]:
            path.unlink()

    def build(self, name, then="echo > $out"):
        """An expression whose builder waits in the phase `run`, with a copied program executed."""
        script = f"{RUN_COPY} started >&2; : > {self.folder}/at-run; while test -e {self.folder}/hold-run; do sleep 0.01; done; {then}"
        return f"sh \"{name}\" ''{script}'' {{ builder = \"{self.shell}\"; }}"


def becomes_noexec(world, noexec):
    """Once the listener has tried the directory, which is before it serves anybody: connections have to find out for themselves."""
    with protocol.Connection(world):
        noexec.remount(OPTIONS)


@pytest.fixture
def holds(world):
    made = Holds(world)
    yield made
    made.let_go()


# --- trouble

@both
def test_a_read_only_file_system_is_an_error(world, noexec, sandbox):
    noexec.mount(OPTIONS + ",ro")
    world.conf["sandbox"] = sandbox
    world.build('sh "t" "echo > $out" {}').fails().says("Read-only file system")


@both
def test_a_full_file_system_is_the_build_s_own_failure(world, noexec, sandbox):
    noexec.mount(OPTIONS + ",size=3M")
    world.conf["sandbox"] = sandbox
    result = world.build("sh \"t\" ''head -c 9000000 /dev/zero > big; echo > $out'' {}").fails()
    result.says("lack of free disk space")
    assert world.text(f"sh \"u\" ''{RUN_COPY} ran > $out'' {{}}") == "ran\n"


@both
def test_a_file_system_too_full_for_the_probe_is_no_verdict(world, noexec, sandbox):
    """The copy of a program that it executes does not fit; a script does."""
    noexec.mount(OPTIONS + ",size=64k")
    world.conf["sandbox"] = sandbox
    assert world.text("sh \"t\" ''echo echo ran > s; chmod +x s; ./s > $out'' {}") == "ran\n"


@both
def test_the_host_unmounts_it_in_mid_build(world, noexec, holds, sandbox):
    noexec.mount()
    world.conf["sandbox"] = sandbox
    holds.hold("run")
    client = world.popen(["nix-build", "--no-out-link", world.nix(holds.build("t", f"{RUN_COPY} ran > $out"))])
    holds.wait("run")
    noexec.in_host("umount", "-l", noexec.path)
    holds.let_go()
    out, err = world.finish(client)
    assert client.returncode == 0, err
    assert Path(out.decode().strip()).read_text() == "ran\n"
    assert noexec.left() == []


@both
def test_the_host_makes_it_read_only_in_mid_build(world, noexec, holds, sandbox):
    """The super block, so that no mount of it can be written to. What then cannot be removed is swept by the next daemon that can."""
    noexec.mount()
    world.conf["sandbox"] = sandbox
    holds.hold("run")
    client = world.popen(["nix-build", "--no-out-link", world.nix(holds.build("t", "echo > file"))])
    holds.wait("run")
    noexec.in_host("mount", "-o", f"remount,ro,{OPTIONS}", noexec.path)
    holds.let_go()
    _, err = world.finish(client)
    assert client.returncode != 0 and b"Read-only file system" in err, err
    noexec.in_host("mount", "-o", f"remount,rw,{OPTIONS}", noexec.path)
    world.restart()
    assert machine.wait_until(lambda: noexec.left() == [], 20), noexec.left()


@pytest.mark.root_only
@pytest.mark.parametrize("change", ["remount", "symlink", "other"])
@both
def test_the_directory_is_replaced_between_builds(world, noexec, sandbox, change):
    """By another mount, or a symlink to one, after the daemon has decided: the next build finds out anew."""
    noexec.mount("nosuid,nodev")
    world.conf["sandbox"] = sandbox
    expression = f"n: sh \"t${{n}}\" ''{RUN_COPY} ran > $out'' {{}}"
    assert world.text(f"({expression}) \"1\"") == "ran\n"
    if change == "remount":
        subprocess.run(["mount", "-o", f"remount,{OPTIONS}", noexec.path], check=True)
    elif change == "other":
        subprocess.run(["mount", "-t", "tmpfs", "-o", OPTIONS, "none", noexec.path], check=True)
    else:
        noexec.unmount()
        other = world.root / "other"
        other.mkdir()
        noexec.path.rmdir()
        noexec.path.symlink_to(other)
        noexec.mounted = False
        subprocess.run(["mount", "-t", "tmpfs", "-o", OPTIONS, "none", other], check=True)
    try:
        assert world.text(f"({expression}) \"2\"") == "ran\n"
    finally:
        if change == "symlink":
            world.stop()
            subprocess.run(["umount", "-l", other], check=True)
            noexec.path.unlink()


def replace(noexec, change, base, own, other):
    """Puts something else in the directory's place, or in that of our own one in it; what takes it back."""
    if change == "mount":
        noexec.in_host("mount", "--bind", other, base)
        return lambda: noexec.in_host("umount", base)
    path, target = (base, other) if change == "symlink" else (base / own, other / own)
    noexec.in_host("mv", path, f"{path}.away")
    noexec.in_host("ln", "-s", target, path)
    return lambda: noexec.in_host("sh", "-c", f"rm {path} && if test -e {path}.away; then mv {path}.away {path}; fi")


@pytest.mark.parametrize("moment, calls", [("probe", "new"), ("enter", "new"), pytest.param("enter", "classic", marks=pytest.mark.root_only)])
@both
def test_the_directory_is_replaced_under_a_build(world, noexec, holds, sandbox, calls, moment):
    """After it was opened and while the probe runs (between probe and make), or when sandbox-init has it (between make and enter)."""
    noexec.mount()
    base, base_seen = noexec.path / "base", noexec.view / "base"
    world.daemon_env["TMPDIR"] = str(base)
    if calls == "classic":
        world.daemon_env["FIRN_CLASSIC_MOUNTS"] = "1"
    world.conf["sandbox"] = sandbox
    noexec.in_host("mkdir", "-m", "1777", base)
    for change in ("symlink", "mount", "parent"):
        other = world.root / f"other-{change}"
        noexec.remount(OPTIONS if moment == "enter" else "nosuid,nodev")
        world.start()
        becomes_noexec(world, noexec)
        holds.hold(moment)
        client = world.popen(["nix-build", "--no-out-link", world.nix(f"sh \"{change}\" ''{RUN_COPY} ran > $out'' {{}}")])
        holds.wait(moment)
        [directory] = base_seen.glob("firn-*/*")
        own = directory.parent.name
        # What somebody would put there who knows the names.
        prepared = [str(path.relative_to(base_seen)) for path in (directory.parent, directory, *directory.glob("b"))]
        for path in (other, *(other / name for name in prepared)):
            path.mkdir()
            path.chmod(0o777)
        put_back = replace(noexec, change, base, own, other)
        holds.let_go()
        out, err = world.finish(client)
        # It went on in the open directory, or says that this is another one; nothing of it is in the other.
        assert [str(path.relative_to(other)) for path in sorted(other.rglob("*"))] == prepared
        if client.returncode == 0:
            assert Path(out.decode().strip()).read_text() == "ran\n"
        else:
            assert b"could not be set up" in err or b"cannot hold build directories" in err, err
        if machine.is_root() and (moment, calls, sandbox) == ("enter", "new", "true"):
            assert client.returncode == 0, err  # no path is looked up at all
        world.stop()
        put_back()
        assert [str(path) for path in base_seen.glob("*/*")] == []
    noexec.in_host("rm", "-rf", base)


@both
def test_the_mount_changes_between_two_builds_of_one_request(world, noexec, holds, sandbox):
    """What was found out for the first does not hold for the second: an error, and the next request finds out anew."""
    noexec.mount("nosuid,nodev")
    world.conf["sandbox"] = sandbox
    holds.hold("run")
    second = f"sh \"second\" ''{RUN_COPY} ran > $out'' {{ first = {holds.build('first')}; }}"
    client = world.popen(["nix-build", "--no-out-link", world.nix(second)])
    holds.wait("run")
    noexec.remount(OPTIONS)
    holds.let_go()
    _, err = world.finish(client)
    assert client.returncode != 0 and b"mounted in another way, than when the first build of this request began: try again" in err, err
    assert world.text(second) == "ran\n"


# --- hostile builders

@both
def test_a_builder_in_its_own_user_namespace_changes_nothing_for_others(world, noexec, holds, sandbox):
    """It may make one where the host allows that. The flags of what it inherits are locked there, and its mounts are its own."""
    noexec.mount(shared=True)
    world.conf["sandbox"] = sandbox
    world.conf["filter-syscalls"] = "false"
    world.conf["sandbox-paths"] = f"{HOST_TOOLS} {holds.folder}"
    world.start()
    before = noexec.table()
    script = """
      mkdir inner
      unshare --user --map-root-user --mount sh -c '
        try() { if eval "$1" 2>/dev/null; then echo "$2 yes"; else echo "$2 no"; fi; }
        echo entered
        try "mount -o remount,bind,suid,nodev,rw $PWD" suid
        try "mount -o remount,bind,nosuid,dev,rw $PWD" dev
        try "umount $PWD" umount
        try "umount -l $PWD" lazily
        try "mount -t tmpfs none $PWD/inner && touch $PWD/inner/hidden" inner
        : > HOLDS/at-run; while test -e HOLDS/hold-run; do sleep 0.01; done
      ' > result 2>&1 || echo refused >> result
      cp result $out
    """.replace("HOLDS", str(holds.folder))
    holds.hold("run")
    client = world.popen(["nix-build", "--no-out-link", world.nix(f"sh \"hostile\" ''{script}'' {{}}")])
    assert machine.wait_until(lambda: holds.is_there("run") or client.poll() is not None)
    table, seen = noexec.table(), list(noexec.view.glob("firn-*/**/inner")) + list(noexec.view.glob("firn-*/**/hidden"))
    holds.let_go()
    out, err = world.finish(client)
    assert client.returncode == 0, err
    lines = Path(out.decode().strip()).read_text().splitlines()
    if lines[-1:] == ["refused"] and "entered" not in lines:
        return  # the host lets nobody make a user namespace
    assert lines == ["entered", "suid no", "dev no", "umount no", "lazily no", "inner yes"]
    # While it was there, the host saw the directory, and nothing in it.
    assert table == before and [path.name for path in seen] == ["inner"]


@both
def test_a_build_dir_without_tmpdir_is_treated_alike(world, noexec, sandbox):
    noexec.mount()
    world.conf |= {"sandbox": sandbox, "build-dir": str(noexec.path)}
    world.daemon_env["TMPDIR"] = str(world.root / "ctmp")
    assert world.text(f"sh \"d\" ''{RUN_COPY} ran > $out; pwd >> $out'' {{}}").startswith("ran\n" + ("/build" if sandbox == "true" else f"{noexec.path}/"))


@both
@pytest.mark.parametrize("command", ["true", "exit 1"])
def test_nothing_keeps_the_host_from_unmounting_after_a_build(world, noexec, sandbox, command):
    """Not lazily: nobody has it open, or as a mount, once the client has its answer and has gone."""
    noexec.mount()
    world.conf["sandbox"] = sandbox
    result = world.build(f"sh \"u\" ''{RUN_COPY} ran > $out; {command}'' {{}}")
    assert (result.status == 0) == (command == "true"), result
    assert world.wait_for_quiet() == []
    noexec.in_host("umount", noexec.path)


@pytest.mark.root_only
def test_others_do_not_reach_the_build_directory_from_outside(world, noexec):
    noexec.mount()
    client = started(world, world.popen(["nix-build", "--no-out-link", world.nix(
        "sh \"s\" ''chmod 777 .; echo started >&2; while test ! -e go; do sleep 0.05; done; echo > $out'' {}")]))
    [directory] = noexec.path.glob("firn-0/*-*/b")
    assert noexec.path.joinpath("firn-0").stat().st_mode & 0o777 == 0o700
    for user in ("firntest", "nixbld9"):
        assert subprocess.run(["runuser", "-u", user, "--", "ls", str(directory)], capture_output=True).returncode != 0
    (directory / "go").touch()
    world.finish(client)


def test_sockets_below_the_build_directory_fit(world, noexec):
    """The directory's path below a TMPDIR as long as macOS's leaves room for a name: 104 bytes in all."""
    world.conf["sandbox"] = "false"
    top = world.text('sh "t" "pwd > $out" {}').strip()
    assert len(top) - len(str(world.tmp)) <= len("/firn-4294967294/4194304-999")


# --- killed

def kill_quietly(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


class Family:
    """The processes of a daemon by what they are.

    listener        the daemon itself
    connection      its children (as is its sweep, which is over by the time that the daemon is quiet)
    sandbox-init    the outer process, in the host's namespaces, or a probe
    inner           the first process in the sandbox's namespaces, sandbox-init's too
    builder         what that one started, be it still about to execute the builder's program
    """

    NAMES = ["listener", "connection", "sandbox-init", "inner", "builder"]

    def __init__(self, world):
        below = machine.descendants(of=world.daemon.pid)
        inits = {p.pid for p in below if os.path.basename((p.command or [""])[0]) == "firn-sandbox-init"}
        self.pids = {name: [] for name in self.NAMES}
        self.pids["listener"] = [world.daemon.pid]
        names = {world.daemon.pid: "listener"}
        # Parents come before their children.
        for process in below:
            parent = names.get(process.parent)
            if process.pid in inits and parent in ("listener", "connection"):
                name = "sandbox-init"
            elif parent == "listener":
                name = "connection"
            else:
                name = {"sandbox-init": "inner", "inner": "builder", "builder": "builder"}.get(parent, "")
            names[process.pid] = name
            if name:
                self.pids[name].append(process.pid)

    def __getitem__(self, name):
        return [pid for pids in self.pids.values() for pid in pids] if name == "all" else self.pids[name]


def end_of_connections(world):
    """The listener has been killed. Connections outlive it: they see that their client has gone."""
    world.daemon.wait()
    world.daemon = None
    world.wait_for_quiet()
    world.socket.unlink(missing_ok=True)


def start_quietly(world, sandbox):
    """For builds to be killed."""
    world.conf["sandbox"] = sandbox
    world.allow_left.add("store")
    world.start()
    world.wait_for_quiet()


def assert_as_before(world, noexec, before):
    """After the next start: the mount table, the processes and the build directory's parent."""
    assert world.wait_for_quiet() == []
    world.restart() if world.daemon else world.start()
    assert machine.wait_until(lambda: noexec.left() == noexec.expected, 20), noexec.left()
    assert noexec.table() == before
    assert machine.wait_until(lambda: [n for n in os.listdir(world.store) if n.endswith(".chroot")] == [] if world.store.exists() else True)
    assert world.wait_for_quiet() == []


def lives(pid):
    try:
        return machine.Process(pid).state != "Z"
    except OSError:
        return False


def kill_one_of(world, client, holds, phase, victim):
    """Kills what `victim` names, lets everybody else go on, and waits for the client's end."""
    family = Family(world)
    pids = family[victim]
    assert pids, f"there is no {victim}: {machine.descendants(of=world.daemon.pid)}"
    for pid in pids:
        kill_quietly(pid)
    # A builder that is let go too early succeeds before the signal has gone all the way down to it. Only from sandbox-init's own
    # first steps on do all below go with who is killed.
    doomed = pids if victim == "listener" or phase in ("prepare", "enter") else pids + family["sandbox-init"] + family["inner"] + family["builder"]
    assert machine.wait_until(lambda: not [pid for pid in doomed if lives(pid)])
    holds.let_go()
    if victim in ("listener", "all"):
        client.kill()
        client.wait()
        end_of_connections(world)
    else:
        world.finish(client, 30)


PHASES = {
    "prepare": ["listener", "connection", "sandbox-init"],
    "enter": ["listener", "connection", "sandbox-init"],
    "set-up": ["listener", "connection", "sandbox-init", "inner", "builder"],
    "run": ["listener", "connection", "sandbox-init", "inner", "builder", "all"],
    "register": ["listener", "connection"],
    **dict.fromkeys(Holds.LEAVE, ["listener", "connection"]),
}


def start_until(world, noexec, holds, phase, number):
    """A build that stands still in the phase; its client."""
    if phase == "prepare":
        # Only now it becomes noexec, so that the connection has to find out for itself.
        noexec.remount("nosuid,nodev")
        world.restart()
        becomes_noexec(world, noexec)
    if phase == "register":
        expression = 'sh "holes" "truncate -s $((1 << 40)) $out; echo made >&2" {}'
    elif phase in Holds.LEAVE:
        end = "echo > $out" if phase == "remove" else "exit 1"
        expression = f"sh \"k{number}\" ''mkdir d; for name in a halt z; do : > d/$name; done; {end}'' {{}}"
        holds.hold(phase)
    else:
        expression = holds.build(f"k{number}")
        holds.hold("probe" if phase == "prepare" else phase)
    options = ["--keep-failed"] if phase in ("keep", "kept") else []
    client = world.popen(["nix-build", "--no-out-link", *options, world.nix(expression)])
    if phase == "register":
        for line in client.stderr:
            if b"made" in line:
                break
        assert machine.wait_until(lambda: not Family(world)["sandbox-init"])
    else:
        holds.wait("probe" if phase == "prepare" else phase)
    return client


@both
@pytest.mark.parametrize("phase", PHASES)
def test_kill_9_in_every_phase_leaves_nothing(world, noexec, holds, sandbox, phase):
    noexec.mount()
    if phase in Holds.LEAVE:
        holds.preload()
    start_quietly(world, sandbox)
    before = noexec.table()
    for number, victim in enumerate(PHASES[phase]):
        client = start_until(world, noexec, holds, phase, number)
        if phase in Holds.LEAVE:
            assert list(noexec.view.glob("**/d/halt")) and not Family(world)["builder"]
        kill_one_of(world, client, holds, phase, victim)
        # A probe that was killed has not executed, so the build may find another place.
        assert client.returncode != 0 or (phase, victim) == ("prepare", "sandbox-init")
        # A connection whose listener is killed goes on to its end.
        if (phase, victim) == ("keep", "listener") or phase == "kept":
            noexec.expected.append(f"nix-build-k{number}-0")
        assert_as_before(world, noexec, before)
        for kept in noexec.expected:
            assert sorted(os.listdir(noexec.view / kept / "d")) == ["a", "halt", "z"]
    noexec.in_host("rm", "-rf", *(noexec.path / kept for kept in noexec.expected))
    noexec.expected.clear()
    assert world.text(f"sh \"after\" ''{RUN_COPY} ran > $out'' {{}}") == "ran\n"


def test_kill_9_of_a_listener_that_tries_its_directory_leaves_nothing(world, noexec, holds):
    noexec.mount()
    world.start()
    before = noexec.table()
    for victim in ("sandbox-init", "all"):
        world.stop()
        holds.hold("probe")
        world.start()
        holds.wait("probe")
        pids = Family(world)[victim]
        assert len(pids) > (victim == "all")
        for pid in pids:
            kill_quietly(pid)
        holds.let_go()
        if victim == "all":
            end_of_connections(world)
        assert_as_before(world, noexec, before)


# An overlay over two others is one too many for the kernel.
OVERLAYS = """
    mkdir -p "$1"/a/l "$1"/a/u "$1"/a/w "$1"/a/m "$1"/b/u "$1"/b/w && cd "$1" &&
    mount -t overlay -o userxattr,lowerdir=a/l,upperdir=a/u,workdir=a/w none a/m &&
    mount -t overlay -o userxattr,noexec,nosuid,nodev,lowerdir=a/m,upperdir=b/u,workdir=b/w none "$1" && cd /"""

OTHER_MECHANISMS = [
    pytest.param("tmpfs", "true"),
    pytest.param("tmpfs", "false"),
    pytest.param("classic", "true", marks=pytest.mark.root_only),
    pytest.param("state-directory", "true", marks=pytest.mark.user_only),
    pytest.param("state-directory", "false", marks=pytest.mark.user_only),
]


def use(world, noexec, mechanism):
    noexec.mount(then=OVERLAYS if mechanism == "state-directory" else "true")
    if mechanism == "classic":
        world.daemon_env["FIRN_CLASSIC_MOUNTS"] = "1"
    elif mechanism == "tmpfs":
        world.conf["noexec-build-dir"] = "tmpfs"


@pytest.mark.parametrize("mechanism, sandbox", OTHER_MECHANISMS)
def test_kill_9_under_the_other_mechanisms_leaves_nothing(world, noexec, holds, mechanism, sandbox):
    use(world, noexec, mechanism)
    start_quietly(world, sandbox)
    before = noexec.table()
    for number, (phase, victim) in enumerate([("set-up", "inner"), ("run", "sandbox-init"), ("run", "connection"), ("run", "all")]):
        client = start_until(world, noexec, holds, phase, number)
        kill_one_of(world, client, holds, phase, victim)
        assert client.returncode != 0
        assert_as_before(world, noexec, before)
        builds = world.state / "builds"
        assert machine.wait_until(lambda: not builds.exists() or os.listdir(builds) == [], 20), list(builds.rglob("*"))
    assert world.text(f"sh \"after\" ''{RUN_COPY} ran > $out'' {{}}") == "ran\n"


def kill_at_a_random_moment(world, number, victim):
    """One build, one SIGKILL, and whatever of the daemon is left after that ends. Whether there was somebody to be killed."""
    script = f"{RUN_COPY} started >&2; ./busybox sleep 0.1 & ./busybox mkdir -p d/e; wait; echo {number} > $out"
    client = world.popen(["nix-build", "--no-out-link", world.nix(f"sh \"k{number}\" ''{script}'' {{}}")])
    time.sleep(random.uniform(0.0, 0.4))
    pids = Family(world)[victim]
    for pid in pids:
        kill_quietly(pid)
    if victim in ("listener", "all"):
        client.kill()
        client.wait()
        end_of_connections(world)
    else:
        world.finish(client, 60)
    return bool(pids)


if LONG:
    @both
    @pytest.mark.parametrize("victim", Family.NAMES)
    def test_kill_9_at_twenty_random_moments_leaves_nothing(world, noexec, sandbox, victim, capsys):
        """By five victims, with and without a sandbox: two hundred moments at which there is one."""
        noexec.mount()
        start_quietly(world, sandbox)
        before = noexec.table()
        hits = rounds = 0
        while hits < 20:
            hits += kill_at_a_random_moment(world, rounds, victim)
            rounds += 1
            assert rounds < 400
            assert_as_before(world, noexec, before)
        with capsys.disabled():
            print(f"\n{victim}, sandbox = {sandbox}: {hits} killed in {rounds} builds", end="")
