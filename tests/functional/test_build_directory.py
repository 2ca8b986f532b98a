"""Where builds have their directory: who reaches it, what becomes of it, and where it may lie at all."""

import contextlib
import fcntl
import grp
import os
import pwd
import socket
import struct
import subprocess
from pathlib import Path

import pytest

import machine
import protocol
from test_noexec import Family, end_of_connections, kill_quietly, own_mount_namespace

pytestmark = [pytest.mark.firn_only("stock Nix has its build directories elsewhere")]

both = pytest.mark.parametrize("sandbox", ["true", "false"])
WAIT = "echo \"started $name\" >&2; while test ! -e go; do sleep 0.05; done; echo > $out"


def started(world, client, count):
    """Reads the client's messages until so many builds wait."""
    seen = 0
    for line in client.stderr:
        seen += b"started" in line
        if seen == count:
            return client
    raise AssertionError("the builds did not start:\n" + (world.root / "daemon.log").read_text())


def reaches(uid, directory):
    command = ["setpriv", f"--reuid={uid}", f"--regid={grp.getgrnam('nixbld').gr_gid}", "--clear-groups", "ls", directory]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.root_only
def test_only_its_own_user_reaches_an_unsandboxed_build_and_nobody_a_sandboxed_one(world):
    """Although each opens its directory to all, and all run at once."""
    world.conf |= {"sandbox": "relaxed", "max-jobs": "4", "machine-max-jobs": "4"}
    client = world.popen(["nix-build", "--no-out-link", "--max-jobs", "4", world.nix(f"""
        map (n: sh "in${{n}}" ''chmod 777 .; {WAIT}'' {{}}) [ "1" "2" ]
        ++ map (n: sh "out${{n}}" ''chmod 777 .; {WAIT}'' {{ __noChroot = true; }}) [ "1" "2" ]""")])
    try:
        started(world, client, 4)
        closed, reachable = list(world.tmp.glob("firn-0/*-*/b")), list(world.tmp.glob("firn-0-open/*-*/o/b"))
        assert len(closed) == len(reachable) == 2
        assert (world.tmp / "firn-0").stat().st_mode & 0o7777 == 0o700
        owner = {directory: directory.stat().st_uid for directory in closed + reachable}
        assert len(set(owner.values())) == 4 and 0 not in owner.values()
        uids = list(owner.values()) + [pwd.getpwnam("firntest").pw_uid]
        allowed = {(uid, directory) for uid in uids for directory in owner if reaches(uid, directory)}
        assert allowed == {(owner[directory], directory) for directory in reachable}
    finally:
        for directory in [*world.tmp.glob("firn-0/*-*/b"), *world.tmp.glob("firn-0-open/*-*/o/b")]:
            (directory / "go").touch()
        out, err = world.finish(client)
    assert client.returncode == 0, err


@both
@pytest.mark.parametrize("mode", ["555", "000", "777"])
def test_a_failed_build_s_directory_is_kept_for_the_client_s_user_whatever_the_build_did_to_it(world, sandbox, mode):
    world.conf["sandbox"] = sandbox
    if sandbox == "false":
        world.conf["trusted-users"] = "*"
    user = "firntest" if machine.is_root() else None
    world.build(f"sh \"broken\" ''echo text > file; chmod {mode} .; exit 1'' {{}}", "--keep-failed", user=user).fails() \
        .says(f"keeping build directory '{world.tmp}/nix-build-broken-0'")
    kept = world.tmp / "nix-build-broken-0"
    assert os.listdir(world.tmp) == [kept.name]
    status = kept.stat()
    assert status.st_mode & 0o7777 == 0o700 and status.st_uid == (pwd.getpwnam("firntest").pw_uid if user else os.geteuid())
    read = (["runuser", "-u", user, "--"] if user else []) + ["cat", kept / "file"]
    assert subprocess.run(read, capture_output=True, text=True).stdout == "text\n"
    world.allow_left.add("tmp")


def test_leftovers_are_swept_where_builds_are_now_and_where_they_would_be_by_default(world):
    """Also what a build had closed to its own user."""
    common = f"firn-{os.geteuid()}"
    bases = [world.tmp, world.state / "builds"]
    for base in bases:
        for left in (base / common / "1-1", base / f"{common}-open" / "1-2"):
            (left / "b" / "files").mkdir(parents=True)
            (left / "b").chmod(0)
            left.chmod(0)
    world.start()
    assert machine.wait_until(lambda: not any(os.listdir(base) for base in bases)), [os.listdir(base) for base in bases]


def noted_bases(world):
    noted = []
    for note in (world.state / "firn/build-bases").iterdir():
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            noted.append(note.read_text())
    return noted


@both
@pytest.mark.parametrize("chosen_by", ["client", "settings"])
def test_leftovers_are_swept_wherever_builds_have_been(world, sandbox, chosen_by):
    """Where one client alone wanted them, or the settings did before they changed."""
    base = world.root / "base"
    base.mkdir()
    world.conf["sandbox"] = sandbox
    if chosen_by == "settings":
        world.conf["build-dir"] = str(base)
    world.allow_left.add("store")
    [drv] = world.instantiate(f"sh \"t\" ''echo > file; {WAIT}'' {{}}")
    with protocol.Connection(world) as connection:
        if chosen_by == "client":
            connection.set_options(build_dir=str(base))
        connection.send(protocol.number(protocol.BUILD_PATHS) + protocol.texts([drv + "!*"]) + protocol.number(0))
        assert machine.wait_until(lambda: list(base.glob("firn-*/**/file")))
        for pid in Family(world)["all"]:
            kill_quietly(pid)
    end_of_connections(world)
    assert list(base.glob("firn-*/**/file")) and os.listdir(world.tmp) == []
    world.conf.pop("build-dir", None)
    world.start()
    assert machine.wait_until(lambda: os.listdir(base) == []), list(base.rglob("*"))
    assert machine.wait_until(lambda: str(base) not in noted_bases(world))


PASS_ON_WHAT_IS_ABOVE = """
import os, socket, sys
opened = []
for path in (".", "..", "../.."):
    try:
        opened.append(os.open(path, os.O_RDONLY))
    except PermissionError:
        pass
with socket.socket(socket.AF_UNIX) as accomplice:
    accomplice.connect(sys.argv[1])
    socket.send_fds(accomplice, [b"x"], opened)
"""


def passed_on(listener):
    connection, _ = listener.accept()
    with connection:
        return socket.recv_fds(connection, 1, 10)[1]


@pytest.mark.root_only
def test_a_build_without_a_sandbox_is_swept_once_it_is_dead_whatever_locks_an_accomplice_has(world):
    world.conf["sandbox"] = "false"
    world.allow_left.add("store")
    program = world.src / "pass_on.py"
    program.write_text(PASS_ON_WHAT_IS_ABOVE)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(machine.PATIENCE)
        listener.bind(str(world.root / "accomplice"))
        (world.root / "accomplice").chmod(0o777)
        listener.listen()
        client = world.popen(["nix-build", "--no-out-link", world.nix(f"sh \"t\" ''/usr/bin/python3 {program} {world.root}/accomplice; {WAIT}'' {{}}")])
        descriptors = passed_on(listener)
    [directory] = world.tmp.glob("firn-0-open/*-*/**/b")
    family = Family(world)

    kill_quietly(world.daemon.pid)
    world.daemon.wait()
    world.daemon = None
    last = world.tmp / "firn-0-open/99999999-1"
    last.mkdir()
    world.start()
    assert machine.wait_until(lambda: not last.exists())
    assert directory.exists(), "it was swept, and lives"

    for pid in family["all"]:
        kill_quietly(pid)
    world.finish(client)
    assert world.wait_for_quiet() == [] and directory.exists()
    for descriptor in descriptors:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    world.restart()
    assert machine.wait_until(lambda: os.listdir(world.tmp) == []), list(world.tmp.rglob("*"))
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.mark.root_only
def test_a_leftover_that_cannot_be_removed_is_told_and_stops_nothing(world):
    own_mount_namespace()
    stays, goes = world.tmp / "firn-0/1-1", world.tmp / "firn-0/1-2"
    for folder in (stays / "b/mounted", goes / "b"):
        folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", stays / "b/mounted"], check=True)
    try:
        world.start()
        assert machine.wait_until(lambda: f"sweeping '{world.tmp}/firn-0'" in (world.root / "daemon.log").read_text())
        assert stays.exists() and not goes.exists()
        world.build('sh "t" "echo > $out" {}').ok()
    finally:
        subprocess.run(["umount", stays / "b/mounted"], check=True)
    world.restart()
    assert machine.wait_until(lambda: not os.listdir(world.tmp))


@pytest.mark.root_only
def test_a_directory_that_a_group_may_write_is_refused_unless_it_is_sticky(world):
    group = grp.getgrnam("nixbld").gr_gid
    os.chown(world.tmp, 0, group)
    world.tmp.chmod(0o775)
    expression = 'sh "t" "echo > $out" {}'
    world.build(expression).fails().says(f"'{world.tmp}' cannot hold build directories", f"group {group}", f"chmod g-w '{world.tmp}'", "'build-dir'")
    world.tmp.chmod(0o1775)
    world.build(expression).ok()


@pytest.mark.root_only
def test_a_directory_that_no_build_user_reaches_is_an_error_that_names_what_is_closed(world):
    """Only for builds that go there by path: those without a sandbox."""
    closed = world.root / "closed"
    (closed / "base").mkdir(parents=True)
    closed.chmod(0o700)
    world.conf |= {"sandbox": "relaxed", "build-dir": str(closed / "base")}
    expression = 'sh "t" "echo running >&2; echo > $out" { __noChroot = true; }'
    result = world.build(expression).fails()
    result.says("Without a sandbox the build's user must find its way by path", f"'{closed}' is closed to it", f"chmod o+x '{closed}'", "'build-dir'")
    assert "running" not in result.err and os.listdir(closed / "base") == []
    world.build('sh "sandboxed" "echo > $out" {}').ok()
    closed.chmod(0o711)
    world.build(expression).ok()


@pytest.mark.user_only
def test_a_directory_that_the_user_s_own_group_may_write_is_good(world):
    """As umask 002 makes it."""
    assert grp.getgrgid(os.getegid()).gr_name == pwd.getpwuid(os.geteuid()).pw_name
    world.tmp.chmod(0o775)
    world.build('sh "t" "echo > $out" {}').ok()


def test_a_directory_that_somebody_may_write_by_an_acl_is_refused_unless_it_is_sticky(world):
    """The group bits of its mode are the ACL's mask then, also in a group of the owner's alone."""
    everybody = 0xFFFFFFFF
    entries = [(1, 7, everybody), (2, 7, 65534), (4, 5, everybody), (16, 7, everybody), (32, 5, everybody)]
    os.setxattr(world.tmp, "system.posix_acl_access", struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries))
    assert world.tmp.stat().st_mode & 0o7777 == 0o775
    expression = 'sh "t" "echo > $out" {}'
    world.build(expression).fails().says(f"'{world.tmp}' cannot hold build directories", "an ACL lets others write it", f"setfacl -b '{world.tmp}'")
    world.tmp.chmod(0o1775)
    world.build(expression).ok()


def compiled(world, program, **paths):
    """A program that stands in for sandbox-init, which it gets as INIT."""
    paths["INIT"] = Path(world.daemon_command()[0]).parent.parent / "sandbox-init/firn-sandbox-init"
    defines = [f'-D{name}="{path}"' for name, path in paths.items()]
    subprocess.run(["cc", "-x", "c", "-", "-o", world.root / "init"] + defines, input=program, text=True, check=True)
    return str(world.root / "init")


SWAPPING_INIT = r"""
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--nothing") == 0) return rename(BASE, ASIDE) != 0 || mkdir(BASE, 0755) != 0;
    execv(INIT, argv);
    return 1;
}
"""


COUNTING_INIT = r"""
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--nothing") == 0) {
        FILE *log = fopen(LOG, "a");
        return fputs("tried\n", log) < 0 || fclose(log) != 0;
    }
    execv(INIT, argv);
    return 1;
}
"""


def test_the_default_directory_is_tried_out_once_for_all_connections_also_on_a_fresh_installation(world):
    log, default = world.root / "log-of-init", world.state / "builds"
    world.daemon_env |= {"FIRN_SANDBOX_INIT": compiled(world, COUNTING_INIT, LOG=log), "TMPDIR": ""}
    assert not default.exists()
    for name in "ab":
        world.build(f'sh "{name}" "echo > $out" {{}}').ok()
    assert log.read_text() == "tried\n" and os.listdir(default) == []


def test_a_build_lies_in_the_very_directory_that_was_tried_out(world):
    """The program that is tried out in the base puts another in its place."""
    base, aside = world.root / "base", world.root / "aside"
    world.daemon_env |= {"FIRN_SANDBOX_INIT": compiled(world, SWAPPING_INIT, BASE=base, ASIDE=aside), "TMPDIR": str(base)}
    client = started(world, world.popen(["nix-build", "--no-out-link", world.nix(f"sh \"t\" ''{WAIT}'' {{}}")]), 1)
    places = list(world.root.glob("*/firn-*/*-*/b"))
    for place in places:
        (place / "go").touch()
    world.finish(client)
    assert [place.relative_to(world.root).parts[0] for place in places] == ["aside"]
    assert client.returncode == 0 and os.listdir(base) == os.listdir(aside) == []
