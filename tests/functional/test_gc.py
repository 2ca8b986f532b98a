"""Garbage collection: what is live, what is dead, and collections while the daemon works."""

import os
import re
import signal
import subprocess
import threading

import pytest

import machine
from protocol import Connection, DaemonError, text

HELLO = 'sh "hello" "echo hello > $out" {}'


@pytest.mark.every_client
def test_a_collection_deletes_the_dead_and_keeps_the_live(world):
    live = world.run("nix-build", world.nix('let a = sh "a" "echo > $out" {}; in sh "live" "echo ${a} > $out" {}'),
                     "-o", world.root / "result").ok().path
    dead = world.output('sh "dead" "echo > $out" {}')
    needed, = world.run("nix-store", "-q", "--references", live).ok().lines
    result = world.run("nix-store", "--gc").ok()
    assert world.is_valid(live) and world.is_valid(needed) and os.path.exists(needed)
    assert not world.is_valid(dead) and not dead.exists()
    assert "store paths deleted" in result.out


@pytest.mark.every_client
def test_a_removed_result_link_releases_its_path(world):
    path = world.run("nix-build", world.nix(HELLO), "-o", world.root / "result").ok().path
    world.run("nix-store", "--gc").ok()
    assert world.is_valid(path)
    (world.root / "result").unlink()
    world.run("nix-store", "--gc").ok()
    assert not world.is_valid(path)


def test_a_collection_removes_stale_indirect_roots(world):
    world.run("nix-build", world.nix(HELLO), "-o", world.root / "result").ok()
    (world.root / "result").unlink()
    world.run("nix-store", "--gc").ok()
    assert os.listdir(world.state / "gcroots/auto") == []


@pytest.mark.every_client
def test_a_root_below_gcroots_keeps_a_path(world):
    path = world.output(HELLO)
    (world.state / "gcroots/mine").symlink_to(path)
    world.run("nix-store", "--gc").ok()
    assert world.is_valid(path)
    assert world.run("nix-store", "-q", "--roots", path).ok().lines == [f"{world.state}/gcroots/mine -> {path}"]


def test_profiles_are_roots(world):
    path = world.output(HELLO)
    (world.state / "profiles").mkdir(exist_ok=True)
    (world.state / "profiles/p-1-link").symlink_to(path)
    world.run("nix-store", "--gc").ok()
    assert world.is_valid(path)


@pytest.mark.every_client
def test_print_live_dead_and_roots_agree_with_stock_nix(world):
    world.run("nix-build", world.nix(HELLO), "-o", world.root / "result").ok()
    world.output('sh "dead" "echo > $out" {}')
    for what in ("--print-live", "--print-dead", "--print-roots"):
        answer = world.run("nix-store", "--gc", what).ok()
        oracle = world.direct("nix-store", "--gc", what, client=world.client).ok()
        mine = lambda lines: sorted(line for line in lines if "/proc/" not in line and "{" not in line)  # noqa: E731
        assert mine(answer.lines) == mine(oracle.lines)
        assert answer.lines


def test_max_freed_stops_early(world):
    for number in range(6):
        world.output(f'sh "dead{number}" "head -c 200000 /dev/zero > $out; echo {number} >> $out" {{}}')
    world.run("nix-store", "--gc", "--max-freed", "300000").ok()
    left = [path for path in world.valid_paths() if "-dead" in path and not path.endswith(".drv")]
    assert 0 < len(left) < 6


def test_delete_ignores_liveness_only_when_told(world):
    path = world.run("nix-build", world.nix(HELLO), "-o", world.root / "result").ok().path
    world.run("nix-store", "--delete", path).fails()
    assert world.is_valid(path)


def test_old_names_in_the_store_folder_are_collected(world):
    world.output(HELLO)
    stray = world.store / f"{'c' * 32}-stray"
    stray.mkdir()
    (stray / "file").write_text("x")
    world.run("nix-store", "--gc").ok()
    assert not stray.exists()


def test_keep_outputs_and_keep_derivations_are_followed(world):
    world.conf |= {"keep-outputs": "true", "keep-derivations": "true"}
    expression = 'let a = sh "tool" "echo > $out" {}; in sh "user" "cat ${a} > $out" {}'
    world.run("nix-build", world.nix(expression), "-o", world.root / "result").ok()
    world.run("nix-store", "--gc").ok()
    assert [path for path in world.valid_paths() if path.endswith("-tool")]


def test_a_running_client_s_temporary_roots_are_kept(world):
    """The inputs of a build that runs are not collected by stock Nix, working directly on the store."""
    expression = 'let a = sh "input" "echo needed > $out" {}; in sh "user" "sleep 1; cat ${a} > $out" {}'
    client = world.popen(["nix-build", "--no-out-link", world.nix(expression)])
    assert machine.wait_until(lambda: [path for path in world.valid_paths() if path.endswith("-input")])
    world.direct("nix-store", "--gc").ok()
    out, errors = world.finish(client)
    assert client.returncode == 0, errors


def test_a_client_that_went_away_has_no_temporary_roots(world):
    path = world.run("nix-store", "--add", world.nix(HELLO)).ok().path
    world.wait_for_quiet()
    world.direct("nix-store", "--gc").ok()
    assert not world.is_valid(path)


@pytest.mark.parametrize("through", ["the daemon", "the store itself"])
def test_builds_succeed_while_garbage_is_collected_in_a_loop(world, through):
    """Chains of builds in which every path is young, beside collections that delete whatever nobody holds."""
    world.run("nix-instantiate", world.nix(HELLO)).ok()
    collect = world.run if through == "the daemon" else world.direct
    done, problems, count = threading.Event(), [], [0]

    def collections():
        while not done.is_set():
            result = collect("nix-store", "--gc")
            count[0] += 1
            if result.status != 0:
                problems.append(str(result))
                return
    thread = threading.Thread(target=collections)
    thread.start()
    try:
        for number in range(8):
            expression = f"""let a = sh "a{number}" "echo > $out" {{}}; b = sh "b{number}" "cat ${{a}} > $out; echo ${{a}} >> $out" {{}};
                c = sh "c{number}" "cat ${{a}} ${{b}} ${{./lib.nix}} > $out" {{}}; in c"""
            link = world.root / f"result{number}"
            result = world.run("nix-build", world.nix(expression), "-o", link)
            assert result.status == 0, str(result)
            # Stock's collector reads the lasting roots first and the temporary ones then; a path that goes from one to
            # the other in between is lost to it. Firn reads them the other way round.
            assert through == "the store itself" or "FIRN_TEST_DAEMON" in os.environ or os.path.exists(link)
    finally:
        done.set()
        thread.join()
    assert not problems, problems[0]
    assert count[0] > 2
    # Stock Nix reads temporary roots after it has read the roots, and so misses a path that moves from one to the other meanwhile.
    if through == "the daemon" and os.environ.get("FIRN_TEST_DAEMON", "firn") == "firn":
        for number in range(8):
            assert world.is_valid(os.readlink(world.root / f"result{number}"))


def test_a_file_opened_by_a_process_in_the_store_keeps_its_path(world):
    """Programs that run from the store are roots."""
    (world.src / "tools").mkdir()
    subprocess.run(["cp", "/usr/bin/busybox", world.src / "tools/busybox"], check=True)
    path = world.run("nix-store", "--add", world.src / "tools").ok().path
    process = world.popen([f"{path}/busybox", "sleep", "60"])
    try:
        world.run("nix-store", "--gc").ok()
        assert world.is_valid(path)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_deleting_many_paths_reports_what_was_freed(world):
    world.output('sh "dead" "head -c 1000000 /dev/zero > $out" {}')
    result = world.run("nix-store", "--gc").ok()
    assert re.search(r"\d store paths deleted, 0\.9\d MiB freed", result.out)


@pytest.mark.firn_only("such a root stops every later collection of the stock daemon")
def test_an_indirect_root_that_no_file_can_have_is_refused_and_stops_no_collection(world):
    path = world.output(HELLO)
    with Connection(world) as connection:
        with pytest.raises(DaemonError, match="no path that a file can have"):
            connection.request(12, text("/tmp/" + "a" * 300))
    world.run("nix-store", "--gc").ok()
    assert not os.path.exists(path)
