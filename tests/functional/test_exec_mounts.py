"""How builds get an executable view of a noexec directory: by whose rights, with which flags, and what is said where it fails.

What a user sees of it is in test_noexec.py, whose mounted worlds these tests use.
"""

import ctypes
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import machine
from test_noexec import HOST_TOOLS, OPTIONS, RUN_COPY, Noexec, both, noexec  # noqa: F401 (a fixture)
from world import SYSTEM_PATH

pytestmark = [pytest.mark.firn_only("stock Nix does not build under noexec")]

CLONE_NEWUSER = 0x10000000
OWN_MOUNT = "while read -r line; do case \"$line\" in *\" $PWD \"*) echo \"$line\" >> $out;; esac; done < /proc/self/mountinfo"
PER_MOUNT = {"ro", "rw", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime", "nosymfollow"}


class Mount:
    """A line of mountinfo."""

    def __init__(self, line):
        before, after = line.split(" - ")
        self.point, self.options = before.split()[4], set(before.split()[5].split(","))
        self.shared, self.kind = before.split()[6:], after.split()[0]


def look_at_own_mount(world):
    """The mount at the build's own directory, after a program has run there."""
    [ran, *lines] = world.text(f"sh \"own\" ''{RUN_COPY} ran > $out; {OWN_MOUNT}'' {{}}").splitlines()
    assert ran == "ran" and len(lines) == 1, lines
    return Mount(lines[0])


def run_with_rights(world, capabilities="sys_admin"):
    """As an ordinary user: the daemon keeps one capability of the user namespace in which its directory was mounted."""
    script = f'mount -t tmpfs -o {OPTIONS} none "$0" && exec setpriv --inh-caps=-all,+{capabilities} --ambient-caps=-all,+{capabilities} -- "$@"'
    world.daemon_prefix = ["unshare", "--user", "--map-current-user", "--mount", "--keep-caps", "sh", "-c", script, str(world.tmp)]


# --- by whose rights

@both
@pytest.mark.parametrize("namespaces", ["-Ur", "-Urm"])
def test_root_of_a_user_namespace_has_an_overlay(world, noexec, sandbox, namespaces):  # noqa: F811
    """It has no rights over the mounts at all, or finds their flags locked."""
    noexec.mount()
    world.conf |= {"sandbox": sandbox, "build-users-group": ""}
    world.daemon_prefix = world.daemon_prefix + ["unshare", namespaces, "--"]
    mount = look_at_own_mount(world)
    assert mount.kind == "overlay" and {"nosuid", "nodev"} <= mount.options and "noexec" not in mount.options


@pytest.mark.root_only
def test_an_overlay_is_not_for_build_users_and_the_message_says_so(world, noexec):  # noqa: F811
    noexec.mount()
    world.conf["build-users-group"] = "nixbld"
    world.daemon_prefix = ["unshare", "-Ur", "--"]
    (world.state / "builds").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec", "none", world.state / "builds"], check=True)
    try:
        world.start()
        said = machine.wait_until(lambda: "'build-users-group' is set" in world.log_file.read_text())
        assert said and f"is on '{noexec.path}'" in world.log_file.read_text(), world.log_file.read_text()
    finally:
        world.stop()
        subprocess.run(["umount", "-l", world.state / "builds"], check=True)


@both
@pytest.mark.user_only
@pytest.mark.parametrize("calls", ["new", "classic"])
def test_an_ordinary_user_with_the_right_has_a_mount(world, sandbox, calls):
    run_with_rights(world)
    world.conf["sandbox"] = sandbox
    world.daemon_env["FIRN_CLASSIC_MOUNTS"] = "1" if calls == "classic" else "0"
    mount = look_at_own_mount(world)
    assert mount.kind == "tmpfs" and {"nosuid", "nodev"} <= mount.options and "noexec" not in mount.options
    assert not [tag for tag in mount.shared if "shared" in tag or "master" in tag]


# --- with which flags

@both
@pytest.mark.root_only
@pytest.mark.parametrize("calls", ["new", "classic"])
@pytest.mark.parametrize("option", ["noatime", "nodiratime", "relatime", "strictatime", "noatime,nodiratime", "nosymfollow"])
def test_every_flag_but_noexec_stays(world, noexec, sandbox, calls, option):  # noqa: F811
    noexec.mount(f"{OPTIONS},{option}")
    world.conf["sandbox"] = sandbox
    world.daemon_env["FIRN_CLASSIC_MOUNTS"] = "1" if calls == "classic" else "0"
    [host] = [Mount(line) for line in noexec.table() if Mount(line).point == str(noexec.path)]
    assert set(option.split(",")) - {"strictatime"} <= host.options  # mount(8) knew it
    assert look_at_own_mount(world).options & PER_MOUNT == host.options & PER_MOUNT - {"noexec"}


# --- in memory

FILES = """{ passAsFile = [ "text" ]; text = "words"; }"""
STRUCTURED = """{ __structuredAttrs = true; text = "words"; }"""


@both
@pytest.mark.parametrize("attributes", [FILES, STRUCTURED], ids=["passAsFile", "structured"])
def test_the_daemons_files_are_the_builders_in_memory_too(world, noexec, sandbox, attributes):  # noqa: F811
    """Compared with a build in an executable directory."""
    def owners():
        script = ("export PATH=/usr/bin:/bin; "
                  "for f in .attr*; do echo \"$f $(stat -c %a $f) $(test -O $f && echo own) $(test -w $f && echo writable)\" >&2; done; exit 1")
        result = world.build(f"sh \"files\" ''{script}'' {attributes}").fails()
        return sorted(set(re.findall(r"(\.attr\S* \d+ .*)$", result.err, re.M)))
    world.conf["sandbox"] = sandbox
    world.conf["sandbox-paths"] = HOST_TOOLS
    expected = owners()
    assert expected and all(re.search(r" 644 own writable$", line) for line in expected), expected
    world.stop()
    noexec.mount()
    world.conf["noexec-build-dir"] = "tmpfs"
    assert owners() == expected


@both
def test_a_failure_for_lack_of_memory_names_the_setting(world, noexec, sandbox):  # noqa: F811
    noexec.mount()
    world.conf |= {"sandbox": sandbox, "noexec-build-dir": "tmpfs", "noexec-tmpfs-size": "4M"}
    world.build("sh \"big\" ''head -c 8000000 /dev/zero > big; echo > $out'' {}").fails().says(
        "lack of space in its build directory in memory", "'noexec-tmpfs-size' is 4M")
    result = world.build("sh \"small\" ''echo > small; exit 1'' {}").fails()
    assert "noexec-tmpfs-size" not in result.err, result


# --- what is said where it fails

def forbid_mount_namespaces(pid):
    """From now on, in the user namespace of a process of ours."""
    child = os.fork()
    if child == 0:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(os.open(f"/proc/{pid}/ns/user", os.O_RDONLY), CLONE_NEWUSER) == 0:
                Path("/proc/sys/user/max_mnt_namespaces").write_text("0")
                os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


@both
@pytest.mark.user_only
def test_a_mount_that_fails_after_a_good_probe_is_told_with_all_there_is_to_know(world, sandbox):
    run_with_rights(world)
    world.daemon_env["FIRN_CLASSIC_MOUNTS"] = "1"
    world.conf["sandbox"] = sandbox
    look_at_own_mount(world)
    forbid_mount_namespaces(world.daemon.pid)
    result = world.build('sh "late" "echo > $out" {}').fails()
    result.says("making an executable mount", f"'{world.tmp}' (from the daemon's TMPDIR)", "tmpfs mounted rw,nosuid,nodev,noexec",
                f"mount '{world.tmp}' without noexec", "'build-dir'", "'noexec-build-dir = tmpfs'")


def test_a_missing_program_is_told_as_that(world):
    program = world.root / "absent/firn-sandbox-init"
    world.daemon_env["FIRN_SANDBOX_INIT"] = str(program)
    result = world.build('sh "t" "echo > $out" {}').fails()
    result.says(f"'{program}'", "No such file or directory")
    assert "noexec" not in result.err, result
    warning = world.log_file.read_text()
    assert f"reading '{program}', the program that starts builds" in warning and "FIRN_SANDBOX_INIT" in warning, warning


def own_init(world, folder):
    """A copy of the program that starts builds."""
    built = Path(world.daemon_command()[0]).parents[1] / "sandbox-init/firn-sandbox-init"
    folder.mkdir(exist_ok=True)
    world.daemon_env["FIRN_SANDBOX_INIT"] = shutil.copy(built, folder)
    return Path(world.daemon_env["FIRN_SANDBOX_INIT"])


@pytest.mark.user_only
def test_an_unreadable_program_is_told_as_that(world):
    program = own_init(world, world.root / "own")
    program.chmod(0o311)
    result = world.build('sh "t" "echo > $out" {}').fails()
    result.says(f"reading '{program}'", "Permission denied")
    assert "noexec" not in result.err, result


def test_a_program_that_cannot_be_executed_is_told_as_that(world):
    """A directory is never judged by a program that runs nowhere."""
    program = own_init(world, world.root / "own")
    program.write_bytes(b"\x7fELF of another world")
    result = world.build('sh "t" "echo > $out" {}').fails()
    result.says(f"'{program}'", "Exec format error")
    assert "noexec" not in result.err, result
    assert f"executing '{program}', the program that starts builds" in world.log_file.read_text()


@both
@pytest.mark.user_only
def test_a_lack_of_namespaces_while_the_daemon_starts_is_no_verdict(world, noexec, sandbox):  # noqa: F811
    noexec.mount(then="echo 0 > /proc/sys/user/max_user_namespaces")
    world.conf["sandbox"] = sandbox
    world.start()
    assert machine.wait_until(lambda: "builds run in" in world.log_file.read_text()), world.log_file.read_text()
    noexec.in_host("sh", "-c", "echo 1000 > /proc/sys/user/max_user_namespaces")
    result = world.build(f"sh \"t\" ''{RUN_COPY} ran > $out'' {{}}").ok()
    assert "instead" not in result.err, result


# --- an unreadable working directory

@pytest.mark.user_only
@both
@pytest.mark.parametrize("directory", ["executable", "noexec"])
def test_the_daemon_s_working_directory_need_not_be_readable(world, noexec, sandbox, directory):  # noqa: F811
    closed = world.root / "closed"
    closed.mkdir()
    world.conf["sandbox"] = sandbox
    if directory == "noexec":
        noexec.mount()
    world.daemon_prefix = world.daemon_prefix + ["sh", "-c", 'cd "$0" && chmod 0 . && exec "$@"', str(closed)]
    try:
        assert world.text(f"sh \"t\" ''{RUN_COPY} ran > $out'' {{}}") == "ran\n"
        assert os.readlink(f"/proc/{world.daemon.pid}/cwd") != str(world.socket.parent)
    finally:
        closed.chmod(0o700)


@pytest.mark.user_only
def test_the_commands_working_directory_need_not_be_readable(world):
    closed = world.root / "closed"
    closed.mkdir()
    world.write_conf()
    environment = {"PATH": SYSTEM_PATH, "TMPDIR": str(world.tmp), "NIX_CONF_DIR": str(world.root / "etc"),
                   "NIX_STORE_DIR": str(world.store), "NIX_STATE_DIR": str(world.state),
                   "NIX_LOG_DIR": str(world.logs), "NIX_DAEMON_SOCKET_PATH": str(world.socket)}
    try:
        done = subprocess.run(["sh", "-c", 'cd "$0" && chmod 0 . && exec "$@"', closed, world.daemon_command()[0], "doctor"], env=environment,
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        closed.chmod(0o700)


# --- hostile builders

NESTED = r"""
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
here = os.getcwd().encode()
uid = os.getuid()
def say(name, result):
    print(name, "done" if result >= 0 else errno.errorcode[ctypes.get_errno()])
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND = 1, 2, 4, 32, 4096
MOUNT_SETATTR, AT_FDCWD = 442, -100
class Attr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clr", "propagation", "userns_fd")]
def clear(flag):
    attr = Attr(0, flag, 0, 0)
    return libc.syscall(MOUNT_SETATTR, AT_FDCWD, here, 0, ctypes.byref(attr), ctypes.c_size_t(ctypes.sizeof(attr)))
say("namespace", libc.unshare(0x10000000 | 0x20000))
for name, text in (("setgroups", "deny"), ("uid_map", "0 %d 1" % uid)):
    open("/proc/self/" + name, "w").write(text)
print("capabilities", open("/proc/self/status").read().split("CapEff:")[1].split()[0])
say("suid", libc.mount(None, here, None, MS_REMOUNT | MS_BIND | MS_NODEV, None))
say("dev", libc.mount(None, here, None, MS_REMOUNT | MS_BIND | MS_NOSUID, None))
say("suid-attr", clear(2))
say("dev-attr", clear(4))
os.chdir("/")
say("umount", libc.umount2(here, 0))
say("detach", libc.umount2(here, 2))
os.mkdir(here + b"/inner")
say("inner", libc.mount(b"none", here + b"/inner", b"tmpfs", 0, None))
"""


def can_nest_namespaces():
    """Whether a process without rights can make a user namespace here, as builders might."""
    user = ["setpriv", "--reuid=firntest", "--regid=firntest", "--clear-groups"] if machine.is_root() else []
    return subprocess.run([*user, "unshare", "--user", "--mount", "true"], stderr=subprocess.DEVNULL).returncode == 0


@both
def test_a_nested_user_namespace_loosens_nothing(world, noexec, sandbox):  # noqa: F811
    """It is made, has every capability over itself, and mounts of its own; of what it inherits nothing can be changed or taken away."""
    assert can_nest_namespaces(), "the tests' host forbids user namespaces"
    noexec.mount(shared=True)
    world.conf |= {"sandbox": sandbox, "sandbox-paths": HOST_TOOLS}
    (world.src / "nested.py").write_text(NESTED)
    world.start()
    before = noexec.table()
    lines = world.text("sh \"nested\" ''/usr/bin/python3 -I $script > $out 2>&1 || :'' { script = ./nested.py; }").splitlines()
    answers = dict(line.split(" ", 1) for line in lines if " " in line)
    assert answers.get("namespace") == "done" and int(answers["capabilities"], 16) & 1 << 21, lines
    for name in ("suid", "dev", "suid-attr", "dev-attr"):
        assert answers[name] == "EPERM", lines
    for name in ("umount", "detach"):
        assert answers[name] == "EINVAL", lines  # the errno of a mount that is locked
    assert answers["inner"] == "done", lines
    assert noexec.table() == before


KILLED_INIT = r"""
#include <signal.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
    char self[4096] = "";
    readlink("/proc/self/exe", self, sizeof self - 1);
    if (strstr(self, "firn-probe")) raise(SIGKILL);
    if (argc > 1 && strcmp(argv[1], "--nothing") == 0) return 0;
    execv(INIT, argv);
    return 1;
}
"""


def test_a_probe_that_somebody_kills_says_nothing_of_the_directory(world):
    init = Path(world.daemon_command()[0]).parent.parent / "sandbox-init/firn-sandbox-init"
    program = world.root / "init"
    subprocess.run(["cc", "-x", "c", "-", "-o", program, f'-DINIT="{init}"'], input=KILLED_INIT, text=True, check=True)
    world.daemon_env["FIRN_SANDBOX_INIT"] = str(program)
    result = world.build('sh "t" "pwd >&2; echo > $out" {}').ok()
    assert "instead" not in result.err and "instead" not in world.log_file.read_text()
