"""A throw-away world: a store of its own, a daemon on a socket of its own, and stock clients that talk to it.

The daemon is started by the first command that a test runs, so that a test can say its configuration before
(`world.conf["sandbox"] = "false"`). When the test is over, `close()` looks at what was left behind.
"""

import contextlib
import json
import os
import pwd
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from pathlib import Path

import machine

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Sandbox paths that show a builder the host's programs, Python and bash among them.
HOST_TOOLS = "/usr=/usr /lib=/lib /lib64=/lib64? /bin=/bin /etc/alternatives=/etc/alternatives?"


class Client:
    """A stock Nix: its version and the folder with its programs."""

    def __init__(self, bin_folder, version):
        self.bin = str(bin_folder)
        self.version = version

    @property
    def number(self):
        return tuple(int(part) for part in self.version.split(".")[:2])

    def __repr__(self):
        return ".".join(self.version.split(".")[:2])


def cache_folders():
    if os.environ.get("FIRN_CACHE"):
        return [Path(os.environ["FIRN_CACHE"])]
    own = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "firn"
    return [Path("/var/cache/firn")] if machine.is_root() else [own, Path("/var/cache/firn")]


def find_clients():
    """The installed Nix first, then what scripts/clients has put into the cache."""
    clients = []
    installed = shutil.which("nix", path=SYSTEM_PATH)
    if installed:
        text = subprocess.run([installed, "--version"], env={"NIX_CONF_DIR": "/nonexistent", "PATH": SYSTEM_PATH},
                              capture_output=True, text=True, check=True).stdout
        clients.append(Client(Path(installed).parent, text.split()[-1]))
    for folder in cache_folders():
        for version in sorted(folder.glob("clients/*/version")):
            number = version.read_text().strip()
            if number not in [client.version for client in clients]:
                clients.append(Client(version.parent / "bin", number))
    return clients


class Result:
    """What a command printed and how it ended."""

    def __init__(self, command, status, out, err):
        self.command, self.status, self.out, self.err = command, status, out, err

    def __str__(self):
        return f"{' '.join(map(str, self.command))}\nstatus {self.status}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"

    def ok(self):
        assert self.status == 0, f"a command failed that should succeed\n{self}"
        return self

    def fails(self, status=None):
        assert self.status != 0, f"a command succeeded that should fail\n{self}"
        assert self.status > 0 and self.status < 128, f"a client was killed or crashed\n{self}"
        if status is not None:
            assert self.status == status, f"expected status {status}\n{self}"
        return self

    def says(self, *texts):
        for text in texts:
            assert text in self.err, f"'{text}' is not in the messages\n{self}"
        return self

    @property
    def lines(self):
        return self.out.split("\n")[:-1]

    @property
    def path(self):
        """The one store path that was printed."""
        assert len(self.lines) == 1, f"expected one line of output\n{self}"
        return self.lines[0]

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def errors(self):
        return [line for line in self.err.splitlines() if line.startswith("error:")]


class World:
    def __init__(self, client, clients):
        self.client, self.clients = client, clients
        self.root = Path(tempfile.mkdtemp(prefix="firn-t-", dir=os.environ.get("FIRN_TEST_TMP", "/tmp")))
        self.root.chmod(0o755)
        self.store, self.state, self.logs = self.root / "store", self.root / "var", self.root / "log"
        self.socket = self.root / "s"
        self.tmp, self.home, self.src = self.root / "tmp", self.root / "home", self.root / "src"
        for folder in (self.state, self.tmp, self.home, self.src, self.root / "etc", self.root / "client", self.root / "ctmp"):
            folder.mkdir()
        shutil.copy(HERE / "lib.nix", self.src / "lib.nix")
        self.allow_left = set()
        self.allow_names = set()
        self.daemon = None
        self.daemon_env = {}
        self.daemon_args = []
        self.daemon_prefix = []
        self.verifier = clients[0]  # whose nix-store looks at the store in the end
        self.helpers = []  # processes that are the test's own
        self.popens = []
        self.count = 0
        user = pwd.getpwuid(os.geteuid()).pw_name
        self.conf = {
            "build-users-group": "nixbld" if machine.is_root() else "",
            "sandbox": "true",
            "sandbox-paths": "/bin/sh=/usr/bin/busybox",
            "sandbox-fallback": "false",
            "builders": "",
            "substituters": "",
            "trusted-users": user,
            "max-jobs": "2",
            "experimental-features": "nix-command",
        }
        self.use_daemon(os.environ.get("FIRN_TEST_DAEMON", "firn"))
        self.extra_conf = ""
        self.client_conf = {"experimental-features": "nix-command", "show-trace": "false", "substituters": ""}

    # --- the daemon

    def environment(self, client=None):
        return {
            "PATH": f"{(client or self.client).bin}:{SYSTEM_PATH}",
            "HOME": str(self.home),
            "USER": pwd.getpwuid(os.geteuid()).pw_name,
            "TMPDIR": str(self.root / "ctmp"),
            "NIX_STORE_DIR": str(self.store),
            "NIX_STATE_DIR": str(self.state),
            "NIX_LOG_DIR": str(self.logs),
            "NIX_CONF_DIR": str(self.root / "client"),
            "NIX_DAEMON_SOCKET_PATH": str(self.socket),
            "NIX_REMOTE": "daemon",
            "LC_ALL": "C.UTF-8",
        }

    def use_daemon(self, choice):
        """From the next start on; as FIRN_TEST_DAEMON."""
        self.daemon_choice = choice
        self.conf.pop("build-hook", None)
        if choice.startswith("stock-"):
            # Started through a dynamic loader, it cannot find its own program; 2.8 on the other hand needs its hook.
            self.conf["build-hook"] = ""

    def daemon_command(self):
        choice = self.daemon_choice
        if choice == "firn":
            program = os.environ.get("FIRN") or REPOSITORY / "build/src/firn/firn"
            return [str(Path(program).resolve()), "daemon"]
        if choice == "stock":
            return [f"{self.clients[0].bin}/nix-daemon"]
        version = choice.removeprefix("stock-")
        return [f"{client.bin}/nix-daemon" for client in self.clients if client.version.startswith(version)][:1]

    def write_conf(self):
        text = "".join(f"{name} = {value}\n" for name, value in self.conf.items())
        (self.root / "etc/nix.conf").write_text(text + self.extra_conf)
        text = "".join(f"{name} = {value}\n" for name, value in self.client_conf.items())
        (self.root / "client/nix.conf").write_text(text)

    def start(self):
        if self.daemon:
            return
        self.write_conf()
        environment = self.environment() | {"TMPDIR": str(self.tmp), "NIX_CONF_DIR": str(self.root / "etc"),
                                            "PATH": SYSTEM_PATH} | self.daemon_env
        del environment["NIX_REMOTE"]
        self.log_file = self.root / "daemon.log"
        with open(self.log_file, "ab") as log:
            self.daemon = subprocess.Popen(self.daemon_prefix + self.daemon_command() + self.daemon_args, env=environment,
                                           stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
        machine.wait_until(lambda: machine.is_listened_on(self.socket) or self.daemon.poll() is not None)
        if self.daemon.poll() is not None:
            status, self.daemon = self.daemon.returncode, None
            raise AssertionError(f"the daemon ended with status {status} as it started:\n{self.log_file.read_text()}")

    def stop(self, with_signal=signal.SIGTERM):
        if not self.daemon:
            return
        daemon, self.daemon = self.daemon, None
        ended = daemon.poll()
        if ended is None:
            daemon.send_signal(with_signal)
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
                raise AssertionError("the daemon did not end within 10 s of its signal")
        if self.socket.exists():
            self.socket.unlink()
        assert ended is None, f"the daemon died with status {ended}"

    def restart(self):
        self.stop()
        self.start()

    # --- commands

    def popen(self, command, env=None, client=None, user=None, cwd=None, **options):
        """Starts a client without waiting for it; the daemon is started first when there is none."""
        self.start()
        command = [str(part) for part in command]
        environment = self.environment(client) | (env or {})
        if user:
            home = self.root / f"home-{user}"
            home.mkdir(exist_ok=True)
            shutil.chown(home, user)
            environment |= {"HOME": str(home), "TMPDIR": str(home), "USER": user}
            command = ["setpriv", f"--reuid={user}", "--regid=" + str(pwd.getpwnam(user).pw_gid), "--clear-groups"] + command
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        process = subprocess.Popen(command, env=environment, cwd=cwd or self.root, **options)
        self.popens.append(process)
        return process

    def finish(self, process, timeout=60, input=None):
        try:
            out, err = process.communicate(input=input, timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"a client did not end within {timeout} s\n"
                                 f"{Result(process.args, 'none', out.decode(errors='replace'), err.decode(errors='replace'))}")
        return out, err

    def run(self, *command, input=None, timeout=60, **options):
        """Runs a client's program to its end."""
        if input is not None:
            options["stdin"] = subprocess.PIPE
        process = self.popen(command, **options)
        out, err = self.finish(process, timeout, input)
        return Result(command, process.returncode, out.decode(errors="surrogateescape"), err.decode(errors="replace"))

    def run_bytes(self, *command, input=None, **options):
        """As run(), for output that is no text: the bytes, after a command that succeeded."""
        if input is not None:
            options["stdin"] = subprocess.PIPE
        process = self.popen(command, **options)
        out, err = self.finish(process, 60, input)
        assert process.returncode == 0, str(Result(command, process.returncode, "(bytes)", err.decode(errors="replace")))
        return out

    def direct(self, *command, **options):
        """Runs the installed stock Nix on the store itself, without a daemon between."""
        self.write_conf()
        environment = {"NIX_REMOTE": "local", "NIX_CONF_DIR": str(self.root / "etc")} | options.pop("env", {})
        client = options.pop("client", self.clients[0])
        process = subprocess.Popen([str(part) for part in command], env=self.environment(client) | environment, cwd=self.root,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.popens.append(process)
        out, err = self.finish(process, options.get("timeout", 60))
        return Result(command, process.returncode, out.decode(errors="surrogateescape"), err.decode(errors="replace"))

    # --- expressions and builds

    def nix(self, expression):
        """A file with the expression, which may use what lib.nix has."""
        self.count += 1
        file = self.src / f"test{self.count}.nix"
        file.write_text(f"with import ./lib.nix;\n{expression}\n")
        return file

    def instantiate(self, expression, *args, **options):
        """The derivations' paths."""
        return [line.split("!")[0] for line in
                self.run("nix-instantiate", self.nix(expression), *args, env=self.no_warning(), **options).ok().lines]

    @staticmethod
    def no_warning():
        return {}

    def build(self, expression, *args, **options):
        """nix-build without a result link; `build(...).ok().lines` are the output paths."""
        return self.run("nix-build", "--no-out-link", self.nix(expression), *args, **options)

    def output(self, expression, *args, **options):
        """The one output path of a build that succeeds."""
        return Path(self.build(expression, *args, **options).ok().path)

    def new_output(self, expression, *args, **options):
        """The same of `nix build`. (Of an impure derivation nix-build 2.8 does not know what was built, and dies of that.)"""
        built, = self.run("nix", "build", "--no-link", "--json", "-f", self.nix(expression), *args, **options).ok().json
        path, = built["outputs"].values()
        return Path(path)

    def repairs(self, expression, attribute=None):
        """The client's commands that repair what the expression makes; `nix build` learnt it after 2.8."""
        file = self.nix(expression)
        commands = [["nix-build", "--no-out-link", file, "--repair"] + (["-A", attribute] if attribute else [])]
        if self.client.number > (2, 8):
            commands.append(["nix", "build", "--no-link", "-f", file, "--repair"] + ([attribute] if attribute else []))
        return commands

    def text(self, expression, *args, **options):
        """The contents of the one file that a build makes."""
        return self.output(expression, *args, **options).read_text()

    # --- looking at the store

    def database(self):
        return sqlite3.connect(f"file:{self.state}/db/db.sqlite?mode=ro", uri=True, timeout=10)

    def valid_paths(self):
        if not (self.state / "db/db.sqlite").exists():
            return set()
        with contextlib.closing(self.database()) as connection:
            try:
                return {row[0] for row in connection.execute("select path from ValidPaths")}
            except sqlite3.OperationalError:  # the tables are just being made
                return set()

    def is_valid(self, path):
        return str(path) in self.valid_paths()

    def verify(self):
        """A stock nix-store finds the whole store in order."""
        result = self.direct("nix-store", "--verify", "--check-contents", client=self.verifier)
        assert result.status == 0 and "error:" not in result.err and "modified" not in result.err \
            and "disappeared" not in result.err, f"stock Nix finds the store damaged\n{result}"

    def stray_names(self):
        """Names in the store folder that no valid path explains; Nix keeps the lock file of an output that it did not make."""
        if not self.store.exists():
            return []
        valid = {os.path.basename(path) for path in self.valid_paths()}
        return [name for name in os.listdir(self.store)
                if name != ".links" and not name.endswith(".lock") and name not in valid and name not in self.allow_names]

    def live_children(self):
        return machine.descendants(without=self.helpers + ([self.daemon.pid] if self.daemon else []))

    def wait_for_quiet(self, seconds=machine.PATIENCE):
        """Until the daemon is alone; what still runs then."""
        left = []

        def quiet():
            # The answer is of this look: a connection may be accepted after it whose client had gone before.
            left[:] = self.live_children()
            return not left
        machine.wait_until(quiet, seconds)
        return left

    # --- the end

    def close(self):
        """Ends everything, then names what was left behind; an empty list is good."""
        problems = []
        for process in self.popens:
            if process.poll() is None:
                process.kill()
                process.wait()
        left = self.wait_for_quiet()
        if left and "processes" not in self.allow_left:
            problems.append(f"processes are left although every client has gone: {left}")
        try:
            self.stop()
        except AssertionError as error:
            problems.append(str(error))
        # What was about to end when its listener did (a sweep of leftovers, a connection) may take that moment.
        machine.wait_until(lambda: not self.live_children(), 5)
        for process in self.live_children():
            try:
                os.kill(process.pid, signal.SIGKILL)
                if "processes" not in self.allow_left:
                    problems.append(f"a process outlived the daemon: {process}")
            except ProcessLookupError:
                pass
        machine.wait_until(lambda: not self.live_children())
        machine.reap_orphans([process.pid for process in self.popens])
        problems += self.left_on_disk()
        return problems

    def left_on_disk(self):
        problems = []
        if machine.mounts_below(self.root):
            problems.append(f"mounts are left: {machine.mounts_below(self.root)}")
        if machine.locks_below(self.root):
            problems.append(f"locks are still held: {machine.locks_below(self.root)}")
        if "tmp" not in self.allow_left:
            for folder in (self.tmp, self.state / "builds"):
                if folder.exists() and os.listdir(folder):
                    problems.append(f"build directories are left in {folder}: {os.listdir(folder)}")
        if "store" not in self.allow_left and self.stray_names():
            problems.append(f"the store has names that are no valid paths: {self.stray_names()}")
        if "verify" not in self.allow_left and (self.state / "db/db.sqlite").exists():
            try:
                self.verify()
            except AssertionError as error:
                problems.append(str(error))
        return problems

    def remove(self):
        # Programs of the system's, since folders may be a hundred thousand levels deep.
        if not machine.is_root():
            subprocess.run(["chmod", "-R", "u+rwX", str(self.root)], stderr=subprocess.DEVNULL, check=False)
        subprocess.run(["rm", "-rf", str(self.root)], check=False)


def wait_for_file(path, seconds=20):
    assert machine.wait_until(lambda: Path(path).exists(), seconds), f"{path} did not appear within {seconds} s"


def sleep(seconds):
    time.sleep(seconds)
