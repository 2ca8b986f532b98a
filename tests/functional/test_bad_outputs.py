"""Builders that leave what must not get into a store, and leftovers in the way."""

import grp
import os
import shutil
import stat

import pytest

import machine
from test_sandbox import c_program

HELLO = 'sh "hello" "echo hello > $out" {}'

@pytest.mark.stock_leaves("store")
@pytest.mark.parametrize("script", ["mkdir $out; mkfifo $out/pipe", "mkfifo $out"], ids=["inside", "as-the-output"])
@pytest.mark.parametrize("sandbox", ["true", "false"])
def test_a_fifo_is_refused(world, script, sandbox):
    world.conf["sandbox"] = sandbox
    result = world.build(f'sh "fifo" "{script}" {{}}').fails()
    assert len(result.errors) == 1 and "unsupported type" in result.err or "fifo" in result.err.lower(), result
    assert not [path for path in world.valid_paths() if path.endswith("-fifo")]


SOCKET = r"""
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
int main(void) {
    mkdir(getenv("out"), 0755);
    if (chdir(getenv("out"))) return 1;
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "sock"};
    return bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&address, sizeof address);
}
"""


@pytest.mark.stock_leaves("store")
def test_a_socket_is_refused(world):
    c_program(world, "sock", SOCKET)
    result = world.build('derivation { name = "socket"; inherit system; builder = "${./sock}/sock"; }').fails()
    assert len(result.errors) == 1 and not [path for path in world.valid_paths() if path.endswith("-socket")]


@pytest.mark.stock_leaves("store")
def test_a_device_node_cannot_be_made_or_is_refused(world):
    """The build user may not make one at all; either way nothing is registered."""
    world.build('sh "device" "mkdir $out; mknod $out/null c 1 3" {}').fails()
    assert not [path for path in world.valid_paths() if path.endswith("-device")]


@pytest.mark.stock_leaves("store")
@pytest.mark.parametrize("mode", ["666", "664", "622"])
def test_an_output_that_others_may_write_is_refused_or_made_safe(world, mode):
    result = world.build(f'sh "loose" "echo > $out; chmod {mode} $out" {{}}')
    if result.status == 0:
        assert stat.S_IMODE(os.stat(result.path).st_mode) == 0o444
    else:
        result.says("suspicious ownership or permission")


@pytest.mark.stock_leaves("store")
def test_setuid_files_made_without_a_sandbox_lose_the_bit_or_are_refused(world):
    world.conf["sandbox"] = "false"
    result = world.build('sh "suid" "mkdir $out; echo x > $out/f; chmod 4755 $out/f 2>/dev/null || true" {}')
    if result.status == 0:
        assert stat.S_IMODE(os.stat(f"{result.path}/f").st_mode) in (0o444, 0o555)
    assert not [name for name in os.listdir(world.store) if os.path.isdir(world.store / name) and (world.store / name / "f").exists()
                and os.stat(world.store / name / "f").st_mode & 0o6000]


@pytest.mark.stock_leaves("store")
@pytest.mark.parametrize("sandbox", ["true", "false"])
def test_a_folder_that_its_maker_cannot_read_is_canonical_in_the_store(world, sandbox):
    """Firn makes it as every other folder of the store; stock Nix keeps that nobody may search it (444)."""
    stock = os.environ.get("FIRN_TEST_DAEMON", "firn") != "firn"
    world.conf["sandbox"] = sandbox
    result = world.build('sh "closed" "mkdir -p $out/d; echo x > $out/d/f; chmod 0 $out/d/f; chmod 0 $out/d" {}')
    if stock and not machine.is_root():
        return
    path = result.ok().path
    assert stat.S_IMODE(os.stat(f"{path}/d").st_mode) == (0o444 if stock else 0o555)
    assert stat.S_IMODE(os.stat(f"{path}/d/f").st_mode) == 0o444 and open(f"{path}/d/f").read() == "x\n"


def test_an_output_may_be_a_symlink(world):
    path = world.output('sh "link" "ln -s /nowhere $out" {}')
    assert os.readlink(path) == "/nowhere"


def test_a_symlink_output_is_not_followed(world):
    """What the link points at keeps its mode, owner and time."""
    world.conf["sandbox"] = "false"
    target = world.root / "target"
    target.mkdir()
    (target / "file").write_text("mine")
    target.chmod(0o750), (target / "file").chmod(0o640)
    before = os.stat(target), os.stat(target / "file")
    world.output(f'sh "link" "ln -s {target} $out" {{}}')
    world.output(f'sh "links" "mkdir $out; ln -s {target} $out/d; ln -s {target}/file $out/f" {{}}')
    after = os.stat(target), os.stat(target / "file")
    assert [(s.st_mode, s.st_uid, s.st_mtime) for s in before] == [(s.st_mode, s.st_uid, s.st_mtime) for s in after]


@pytest.mark.parametrize("sandbox", ["true", "false"])
def test_hard_links_inside_an_output_are_kept_as_files(world, sandbox):
    world.conf["sandbox"] = sandbox
    path = world.output('sh "hard" "mkdir $out; echo x > $out/a; ln $out/a $out/b" {}')
    assert (path / "a").read_text() == (path / "b").read_text() == "x\n"


@pytest.mark.stock_leaves("store", "verify")
def test_a_hard_link_to_a_file_outside_the_output_does_not_change_that_file(world):
    """protected_hardlinks usually forbids it; where it does not, the file outside keeps its mode."""
    world.conf["sandbox"] = "false"
    victim = world.root / "victim"
    victim.write_text("victim")
    victim.chmod(0o666)
    result = world.build(f'sh "thief" "mkdir $out; ln {victim} $out/stolen || echo could not" {{}}')
    assert victim.read_text() == "victim" and stat.S_IMODE(victim.stat().st_mode) == 0o666 or result.status == 0 and not machine.is_root()


def test_names_with_odd_bytes_are_kept(world):
    path = world.output(r'''sh "odd" "mkdir $out; printf x > \"$out/$(printf 'a\\nb\\377 c')\"; printf y > \"$out/ \"" {}''')
    assert sorted(os.listdir(os.fsencode(path))) == [b" ", b"a\nb\xff c"]


def test_a_very_long_symlink_target_is_kept(world):
    path = world.output(f'sh "long" "mkdir $out; ln -s {"x" * 4000} $out/l" {{}}')
    assert len(os.readlink(path / "l")) == 4000


def test_a_deep_output_is_registered(world):
    path = world.output('sh "deep" "mkdir $out; cd $out; i=0; while [ $i -lt 60 ]; do mkdir d; cd d; i=$((i+1)); done; echo x > f" {}')
    assert (path / "/".join(["d"] * 60) / "f").read_text() == "x\n"


@pytest.mark.stock_leaves("store", "verify")
@pytest.mark.firn_only("stock registers what no dump can be restored from, or crashes on it")
def test_an_output_that_is_too_deep_is_refused(world):
    c_program(world, "deepen", r"""
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
int main(void) {
    if (mkdir(getenv("out"), 0755) || chdir(getenv("out"))) return 1;
    for (int i = 0; i < 5000; i++) if (mkdir("d", 0755) || chdir("d")) return 2;
    return 0;
}
""")
    result = world.build('derivation { name = "too-deep"; inherit system; builder = "${./deepen}/deepen"; }').fails()
    assert len(result.errors) == 1
    assert not [path for path in world.valid_paths() if path.endswith("-too-deep")]


# --- what an earlier build left in the way


def planned_output(world, expression):
    drv, = world.instantiate(expression)
    return drv, world.run("nix-store", "-q", "--outputs", drv).ok().path


@pytest.mark.parametrize("sandbox", ["true", "false"])
@pytest.mark.parametrize("kind", ["a file", "a folder", "a closed folder", "a symlink to a folder", "a dangling symlink"])
def test_a_leftover_at_the_final_path_is_replaced(world, kind, sandbox):
    world.conf["sandbox"] = sandbox
    drv, path = planned_output(world, HELLO)
    outside = world.root / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    if kind == "a file":
        open(path, "w").write("old")
    elif kind in ("a folder", "a closed folder"):
        os.makedirs(f"{path}/sub")
        open(f"{path}/sub/file", "w").write("old")
        if kind == "a closed folder":
            os.chmod(f"{path}/sub", 0o500)
            os.chmod(path, 0o555)
    else:
        os.symlink(outside if kind == "a symlink to a folder" else "/nowhere", path)
    world.run("nix-store", "-r", drv).ok()
    assert open(path).read() == "hello\n"
    assert (outside / "precious").read_text() == "precious"


@pytest.mark.root_only
@pytest.mark.parametrize("mode", [0o755, 0o1777])
def test_a_store_directory_made_by_somebody_else_is_opened_to_the_build_users(world, mode):
    world.conf["sandbox"] = "false"
    world.store.mkdir()
    world.store.chmod(mode)
    world.output('sh "plain" "echo > $out" {}')
    found = world.store.stat()
    assert (found.st_mode & 0o7777, found.st_uid, grp.getgrgid(found.st_gid).gr_name) == (0o1775, 0, "nixbld")


@pytest.mark.root_only
@pytest.mark.parametrize("owner", ["nixbld3", "root", "firntest"])
def test_a_leftover_of_another_user_is_replaced_and_not_trusted(world, owner):
    world.conf["sandbox"] = "false"
    drv, path = planned_output(world, 'sh "hello" "mkdir $out; echo hello > $out/file" {}')
    os.makedirs(f"{path}/sub")
    open(f"{path}/evil", "w").write("evil")
    for place in (path, f"{path}/sub", f"{path}/evil"):
        shutil.chown(place, owner)
    world.run("nix-store", "-r", drv).ok()
    assert os.listdir(path) == ["file"] and os.stat(path).st_uid == 0


@pytest.mark.root_only
def test_a_leftover_scratch_directory_of_another_user_is_not_trusted(world):
    """The directory that stock Nix would name for the build, made before by somebody else."""
    drv, path = planned_output(world, HELLO)
    left = world.tmp / "nix-build-hello.drv-0"
    left.mkdir()
    shutil.chown(left, "firntest")
    world.allow_left.add("tmp")
    world.run("nix-store", "-r", drv).ok()
    assert open(path).read() == "hello\n"
    assert left.exists() and os.listdir(left) == []


@pytest.mark.root_only
def test_processes_of_the_build_user_are_ended_before_and_after_a_build(world):
    """A stock daemon that was killed may leave one behind; only an unused build user's is tried."""
    world.conf["sandbox"] = "false"
    world.conf["build-users-group"] = "nixbld"
    (world.state / "userpool").mkdir(parents=True)
    first = world.text('sh "who" "id -un > $out; (setsid sleep 3500 </dev/null >/dev/null 2>&1 &)" {}').strip()
    left = [p for p in machine.all_processes().values() if p.name == "sleep" and "3500" in repr(p) and p.state != "Z"]
    assert first.startswith("nixbld") and left == []


def test_a_failed_build_is_built_again(world):
    world.conf["sandbox"] = "false"
    flag = world.root / "flag"
    expression = f'sh "second" "mkdir $out; echo partial > $out/x; test -e {flag}; rm $out/x; echo whole > $out/y" {{}}'
    world.allow_left.add("store") if os.environ.get("FIRN_TEST_DAEMON", "firn") != "firn" else None
    world.build(expression).fails()
    flag.write_text("")
    assert os.listdir(world.output(expression)) == ["y"]


def test_a_full_disk_style_write_error_in_the_builder_is_only_its_own_failure(world):
    world.build('sh "full" "echo x > /dev/full" {}').fails()
    world.output(HELLO)


@pytest.mark.root_only
@pytest.mark.firn_only("the stock daemon keeps the builder's inodes, and with them whoever can write to one")
def test_a_descriptor_into_an_unsandboxed_output_does_not_reach_the_registered_file(world):
    world.conf["sandbox"] = "false"
    expression = 'sh "shared" "mkdir $out; echo good > $out/f; chmod 0777 $out/f; while [ ! -e @/go ]; do sleep 0.05; done" {}'
    go = world.root / "go"
    process = world.popen(["nix-build", "--no-out-link", world.nix(expression.replace("@", str(world.root)))])
    machine.wait_until(lambda: list(world.store.glob("*-shared/f")))
    with open(next(iter(world.store.glob("*-shared/f"))), "r+") as kept:
        go.touch()
        out, err = world.finish(process)
        assert process.returncode == 0, err
        kept.write("evil")
    path = out.decode().strip()
    assert open(f"{path}/f").read() == "good\n"
