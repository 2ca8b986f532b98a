"""Builds that fail, are killed, take too long or are given up, and what the client is told."""

import os
import re
import shutil
import signal
import time

import pytest

import machine


@pytest.mark.every_client
def test_a_failing_builder_s_exit_code_and_log_are_reported(world):
    result = world.build('sh "bad" "echo before the end; exit 3" {}').fails()
    assert result.status in (1, 100)
    assert len(result.errors) == 1
    result.says("-bad.drv'", "before the end", "exit code 3")
    assert re.search(r"builder for '.*-bad\.drv' failed with exit code 3;|Reason: builder failed with exit code 3\.", result.err)


def test_the_wording_of_a_failure_is_nix_2_8_s(world):
    """The whole message of the installed client, with the last log lines and where the rest is."""
    result = world.build('sh "bad" "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo line $i; done; exit 1" {}').fails()
    drv = re.search(r"/\S*-bad\.drv", result.err)[0]
    lines = result.err[result.err.index("error:"):].splitlines()
    assert lines[0] == f"error: builder for '{drv}' failed with exit code 1;"
    assert lines[1].strip() == "last 10 log lines:"
    assert [line.strip() for line in lines[2:12]] == [f"> line {n}" for n in range(3, 13)]
    assert lines[12].strip() == f"For full logs, run 'nix log {drv}'."


@pytest.mark.every_client
def test_the_log_of_a_failed_build_can_be_read(world):
    result = world.build('sh "bad" "echo why it failed; exit 1" {}').fails()
    drv = re.search(r"/\S*-bad\.drv", result.err)[0]
    assert world.run("nix", "log", drv).ok().out == "why it failed\n"


@pytest.mark.every_client
@pytest.mark.parametrize("sandbox", ["true", "false"])
def test_a_builder_killed_by_a_signal_is_reported(world, sandbox):
    world.conf["sandbox"] = sandbox
    mark = f"41{os.getpid() % 10000:04d}.5"
    client = world.popen(["nix-build", "--no-out-link", world.nix(f'sh "killed" "exec sleep {mark}" {{}}')])
    builder = lambda: [p for p in world.live_children() if repr(p).rstrip().endswith(f"sleep {mark}")]  # noqa: E731
    assert machine.wait_until(builder)
    os.kill(builder()[0].pid, signal.SIGKILL)
    _, errors = world.finish(client)
    assert "failed due to signal 9 (Killed)" in errors.decode()


@pytest.mark.every_client
def test_a_dependency_that_fails_is_named(world):
    expression = 'let a = sh "a" "exit 1" {}; in sh "b" "cat ${a} > $out" {}'
    result = world.build(expression).fails()
    result.says("-a.drv'")
    result = world.run("nix-store", "-r", world.instantiate(expression)[0]).fails().says("-b.drv'")
    assert re.search("1 dependencies of derivation '.*-b.drv' failed to build|Reason: 1 dependency failed", result.err)


@pytest.mark.every_client
def test_keep_going_builds_what_does_not_depend_on_the_failure(world):
    expression = 'let bad = sh "bad" "exit 1" {}; good = sh "good" "sleep 0.3; echo > $out" {}; in [ bad good ]'
    world.build(expression, "--keep-going", "--max-jobs", "1").fails()
    assert [path for path in world.valid_paths() if path.endswith("-good")]


def test_without_keep_going_the_first_failure_ends_it(world):
    expression = 'let bad = sh "bad" "sleep 0.2; exit 1" {}; slow = sh "slow" "sleep 30; echo > $out" {}; in [ bad slow ]'
    started = time.monotonic()
    world.build(expression, "--max-jobs", "2").fails()
    assert time.monotonic() - started < 15
    assert not [path for path in world.valid_paths() if path.endswith("-slow")]


@pytest.mark.firn_only("stock Nix moves a failed build's outputs out of the sandbox, for debugging, and leaves them")
def test_a_failure_leaves_no_output(world):
    world.build('sh "bad" "echo > $out; exit 1" {}').fails()
    assert not [name for name in os.listdir(world.store) if name.endswith("-bad")]


@pytest.mark.every_client
def test_a_missing_output_is_a_failure(world):
    world.build('sh "none" "true" {}').fails().says("failed to produce output path")


def test_one_missing_output_of_two_registers_neither(world):
    world.build('let d = sh "two" "echo > $out" { outputs = [ "out" "doc" ]; }; in [ d.out d.doc ]').fails().says("failed to produce output path")
    assert not [path for path in world.valid_paths() if not path.endswith(".drv")]


@pytest.mark.every_client
def test_a_timeout_ends_the_build(world):
    result = world.build('sh "slow" "sleep 30; echo > $out" {}', "--timeout", "1").fails()
    result.says("timed out after 1 seconds")
    assert result.status in (1, 100, 101)


@pytest.mark.every_client
def test_silence_ends_the_build(world):
    result = world.build('sh "silent" "echo start; sleep 30; echo > $out" {}', "--max-silent-time", "1").fails()
    result.says("timed out after 1 seconds of silence")


def test_a_build_that_keeps_talking_is_not_silent(world):
    world.build('sh "chatty" "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.5; done; echo > $out" {}', "--max-silent-time", "3").ok()


def test_a_log_that_grows_beyond_the_limit_ends_the_build(world):
    world.build('sh "loud" "while true; do echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; done" {}',
                "--option", "max-build-log-size", "100000").fails().says("killed after writing more than 100000 bytes of log output")


@pytest.mark.every_client
def test_no_jobs_means_no_local_builds(world):
    result = world.build('sh "never" "echo > $out" {}', "--max-jobs", "0").fails()
    assert re.search("max-jobs|local builds are disabled|unable to start any build|Required system|required", result.err)
    assert not [path for path in world.valid_paths() if path.endswith("-never")]


def test_no_jobs_still_serves_what_is_valid(world):
    path = world.output('sh "there" "echo > $out" {}')
    assert world.build('sh "there" "echo > $out" {}', "--max-jobs", "0").ok().path == str(path)


@pytest.mark.every_client
@pytest.mark.allow_left("tmp", "store")
def test_keep_failed_keeps_the_build_directory_and_says_where(world):
    result = world.build('sh "bad" "echo kept > file; exit 1" {}', "-K").fails()
    place = re.search(r"(?:keeping build directory|note: keeping build directory) '([^']*)'", result.err)[1]
    files = [os.path.join(folder, "file") for folder, _, names in os.walk(place) if "file" in names]
    assert open(files[0]).read() == "kept\n"


@pytest.mark.root_only
@pytest.mark.allow_left("tmp", "store")
def test_a_kept_build_directory_can_be_read_by_the_client_s_user(world):
    result = world.build('sh "bad" "echo kept > file; exit 1" {}', "-K", user="firntest").fails()
    place = re.search(r"keeping build directory '([^']*)'", result.err)[1]
    files = [os.path.join(folder, "file") for folder, _, names in os.walk(place) if "file" in names]
    assert world.run("cat", files[0], user="firntest").ok().out == "kept\n"


def test_without_keep_failed_no_build_directory_stays(world):
    world.build('sh "bad" "echo kept > file; exit 1" {}').fails()
    assert os.listdir(world.tmp) == []


@pytest.mark.every_client
@pytest.mark.parametrize("sandbox", ["true", "false"])
def test_killing_the_client_ends_the_build(world, sandbox):
    """Nothing of the build keeps running, not even what ignores signals and hides in the background."""
    world.conf["sandbox"] = sandbox
    mark = f"31{os.getpid() % 10000:04d}.5"
    client = world.popen(["nix-build", "--no-out-link", world.nix(
        f'sh "endless" "trap : TERM HUP INT; (sleep {mark} &) ; echo started >&2; sleep {mark}" {{}}')])
    for line in client.stderr:
        if b"started" in line:
            break
    assert machine.wait_until(lambda: [p for p in world.live_children() if mark in repr(p)])
    client.send_signal(signal.SIGKILL)
    client.wait()
    assert world.wait_for_quiet() == []


@pytest.mark.firn_only("stock Nix 2.8 loses the log of a cancelled build")
def test_the_log_of_a_cancelled_build_can_be_read(world):
    [drv] = world.instantiate('sh "endless" "echo so far >&2; sleep 3105" {}')
    client = world.popen(["nix-store", "--realise", drv])
    for line in client.stderr:
        if b"so far" in line:
            break
    client.send_signal(signal.SIGKILL)
    client.wait()
    assert world.wait_for_quiet() == []
    assert world.run("nix-store", "-l", drv).ok().out == "so far\n"


@pytest.mark.firn_only("stock Nix reads such an output to its end")
def test_killing_the_client_ends_the_reading_of_an_endless_output(world):
    client = world.popen(["nix-build", "--no-out-link", world.nix('sh "holes" "truncate -s $((1 << 40)) $out; echo made >&2" {}')])
    for line in client.stderr:
        if b"made" in line:
            break
    time.sleep(1)  # the builder is gone, its output is being hashed
    assert client.poll() is None
    client.send_signal(signal.SIGKILL)
    client.wait()
    assert world.wait_for_quiet() == []
    assert not [name for name in os.listdir(world.store) if name.endswith("-holes")]


@pytest.mark.firn_only("stock Nix reads such an output to its end")
def test_reading_the_output_counts_towards_the_timeout(world):
    started = time.monotonic()
    world.build('sh "holes" "truncate -s $((1 << 40)) $out" {}', "--timeout", "2").fails().says("timed out after 2 seconds")
    assert time.monotonic() - started < 15


def test_interrupting_the_client_ends_the_build(world):
    client = world.popen(["nix-build", "--no-out-link", world.nix('sh "endless" "echo started >&2; sleep 3100" {}')])
    for line in client.stderr:
        if b"started" in line:
            break
    client.send_signal(signal.SIGINT)
    client.wait(10)
    assert world.wait_for_quiet() == []


@pytest.mark.parametrize("sandbox", ["true", "false"])
def test_background_processes_end_with_the_build(world, sandbox):
    if sandbox == "false" and not machine.is_root() and os.environ.get("FIRN_TEST_DAEMON", "firn") != "firn":
        pytest.skip("firn_only: stock Nix without build users does not see what leaves the builder's session")
    world.conf["sandbox"] = sandbox
    world.output('sh "daemonise" "(trap : HUP; setsid sleep 3300 </dev/null >/dev/null 2>&1 &) ; echo > $out" {}')
    assert world.wait_for_quiet() == []


def test_a_background_process_that_holds_the_log_open_does_not_hang_the_build(world):
    """The builder is gone when its first process is; in the sandbox the rest dies with it."""
    started = time.monotonic()
    world.output('sh "holder" "(sleep 3300 &) ; echo > $out" {}')
    assert time.monotonic() - started < 20


def test_an_unknown_builder_is_reported(world):
    world.build('derivation { name = "x"; inherit system; builder = "/no/such/builder"; }').fails().says("/no/such/builder")


def test_a_derivation_for_another_system_is_refused(world):
    result = world.build('sh "other" "echo > $out" { system = "mips-plan9"; }').fails()
    result.says("mips-plan9")
    assert len(result.errors) == 1


def test_an_unmet_system_feature_is_refused(world):
    world.build('sh "feature" "echo > $out" { requiredSystemFeatures = [ "antigravity" ]; }').fails().says("antigravity")


@pytest.mark.stock_leaves("store")
def test_disallowed_references_are_refused(world):
    expression = 'let a = sh "a" "echo > $out" {}; in sh "b" "echo ${a} > $out" { %s }'
    world.build(expression % "allowedReferences = [ ];").fails().says("not allowed to refer to the following paths")
    world.build(expression % "disallowedReferences = [ a ];").fails().says("not allowed to refer to the following paths")
    world.build(expression % "allowedReferences = [ a ];").ok()


@pytest.mark.stock_leaves("store")
def test_disallowed_requisites_are_refused(world):
    expression = """let a = sh "a" "echo > $out" {}; b = sh "b" "echo ${a} > $out" {};
      in sh "c" "echo ${b} > $out" { %s }"""
    world.build(expression % "allowedRequisites = [ b ];").fails().says("not allowed to refer to the following paths")
    world.build(expression % "disallowedRequisites = [ a ];").fails().says("not allowed to refer to the following paths")
    world.build(expression % "allowedRequisites = [ a b ];").ok()


def test_outputs_that_refer_to_each_other_are_refused(world):
    result = world.build('let d = sh "cycle" "echo $doc > $out; echo $out > $doc" { outputs = [ "out" "doc" ]; }; in [ d.out d.doc ]').fails()
    result.says("cycle detected")


def test_the_daemon_s_death_ends_its_builds(world):
    """SIGKILL to the listener leaves the connection; once its client goes too, nothing is left."""
    client = world.popen(["nix-build", "--no-out-link", world.nix('sh "endless" "echo started >&2; sleep 3200" {}')])
    for line in client.stderr:
        if b"started" in line:
            break
    world.stop(signal.SIGKILL)
    client.kill()
    client.wait()
    assert world.wait_for_quiet() == []


@pytest.mark.firn_only("stock Nix leaves the builder running when the process of its connection is killed")
@pytest.mark.allow_left("tmp", "store")
def test_killing_every_process_of_the_daemon_ends_its_builds(world):
    client = world.popen(["nix-build", "--no-out-link", world.nix('sh "endless" "echo started >&2; sleep 3210" {}')])
    for line in client.stderr:
        if b"started" in line:
            break
    connections = [p for p in machine.descendants(of=world.daemon.pid) if p.parent == world.daemon.pid]
    world.stop(signal.SIGKILL)
    for process in connections:
        os.kill(process.pid, signal.SIGKILL)
    client.wait(10)
    assert world.wait_for_quiet() == []


@pytest.mark.firn_only("stock Nix leaves the builder running when the process of its connection is killed")
def test_what_killed_daemons_left_behind_is_swept_when_the_next_one_starts(world):
    """Not what is alive: another daemon's build, or what stock Nix has there, which nobody locks."""
    [dead, alive] = world.instantiate('[ (sh "dead" "echo started >&2; sleep 3220" {}) (sh "alive" "echo started >&2; cat /signal/*; echo > $out" {}) ]')
    stocks = [world.store / f"{'a' * 32}-{name}.drv.chroot" for name in ("old", "new", "empty")]
    for path, inner, mode in zip(stocks, (["build", "etc", "store"], ["root"], []), (0o750, 0o700, 0o700)):
        path.mkdir()
        for name in inner:
            (path / name).mkdir()
        path.chmod(mode)
    signals = world.root / "signal"
    signals.mkdir()
    os.mkfifo(signals / "go")
    signals.joinpath("go").chmod(0o666)
    world.stop()
    world.conf["sandbox-paths"] += f" /signal={signals}"

    def start(drv):
        client = world.popen(["nix-store", "--realise", drv])
        for line in client.stderr:
            if b"started" in line:
                return client

    killed = start(dead)
    connections = [p for p in machine.descendants(of=world.daemon.pid) if p.parent == world.daemon.pid]
    world.stop(signal.SIGKILL)
    for process in connections:
        os.kill(process.pid, signal.SIGKILL)
    killed.wait(10)
    assert world.wait_for_quiet() == []
    chroots = lambda: {name for name in os.listdir(world.store) if name.endswith(".chroot")} - {path.name for path in stocks}  # noqa: E731
    folders = lambda: [path for path in world.root.rglob("nix-[0-9]*-[0-9]*") if path.parent.name.startswith("firn-")]  # noqa: E731
    assert chroots() == {os.path.basename(dead) + ".chroot"} and len(folders()) == 1
    world.start()
    assert machine.wait_until(lambda: not chroots() and not folders()), (chroots(), folders())

    client = start(alive)
    world.stop()
    world.start()
    world.run("nix-store", "-q", "--requisites", alive).ok()
    time.sleep(0.3)
    assert chroots() == {os.path.basename(alive) + ".chroot"} and len(folders()) == 1
    (signals / "go").write_text("go\n")
    assert client.wait(10) == 0
    for path in stocks:
        assert path.is_dir()
        shutil.rmtree(path)


def test_sigterm_ends_the_listener_at_once(world):
    world.run("nix-store", "--version")
    started = time.monotonic()
    world.stop()
    assert time.monotonic() - started < 2


