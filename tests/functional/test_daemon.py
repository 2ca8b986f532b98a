"""The daemon as a program: configuration, users and trust, start and end."""

import os
import pwd
import signal
import socket
import stat
import subprocess
import time

import pytest

import machine
import protocol
from protocol import Connection, nar, regular

HELLO = 'sh "hello" "echo hello > $out" {}'


# --- nix.conf


def starts(world, text):
    world.extra_conf = text
    world.start()
    return world.output(HELLO)


@pytest.mark.parametrize("text", ["\n\n# a comment\n   \n", "cores = 3 # trailing comment\n", "unknown-setting = whatever\n", "repl-overlays = a b\n",
                                  "  cores   =   2  \n", "extra-unknown = x\n", "!include /no/such/file\n", "cores = 1\ncores = 2\n",
                                  "access-tokens = a=b\nflake-registry =\n"], ids=range(9))
def test_tolerable_configuration_is_tolerated(world, text):
    starts(world, text)


@pytest.mark.parametrize("text", ["cores\n", "cores = many\n", "include /no/such/file\n", "sandbox = perhaps\n", "max-jobs = -x\n", "fsync-metadata = 7\n"], ids=range(6))
def test_a_malformed_configuration_is_refused_with_a_message(world, text):
    world.extra_conf = text
    try:
        world.start()
        result = world.build(HELLO)
        assert result.status != 0, "a malformed configuration was taken silently"
    except AssertionError as refused:
        assert "error" in str(refused)


@pytest.mark.parametrize("data", [b"\xff\xfe\x00garbage\n", b"a" * 100000 + b"\n", b"= = =\n", b"cores = 1\0\n" * 3, b"include " + b"x" * 5000 + b"\n"], ids=range(5))
def test_garbage_in_the_configuration_does_not_crash_the_daemon(world, data):
    """It may be refused or warned about; a signal would be a crash."""
    world.write_conf()
    with open(world.root / "etc/nix.conf", "ab") as conf:
        conf.write(data)
    command = world.daemon_command()
    environment = world.environment() | {"NIX_CONF_DIR": str(world.root / "etc"), "NIX_REMOTE": ""}
    with open(world.root / "errors", "wb") as file:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    machine.wait_until(lambda: process.poll() is not None or machine.is_listened_on(world.socket))
    if process.poll() is None:
        process.terminate()
        process.wait(10)
        return
    errors = (world.root / "errors").read_bytes()
    assert process.returncode > 0 and b"error" in errors, (process.returncode, errors)


def test_include_is_relative_to_the_configuration_directory(world):
    (world.root / "etc/more.conf").write_text("timeout = 1\n")
    world.extra_conf = "include more.conf\n"
    world.build('sh "slow" "sleep 30" {}').fails().says("timed out after 1 seconds")


def test_nix_config_comes_from_the_environment_too(world):
    world.daemon_env["NIX_CONFIG"] = "timeout = 1"
    world.build('sh "slow" "sleep 30" {}').fails().says("timed out after 1 seconds")


def test_extra_settings_are_appended(world):
    (world.root / "one").write_text("1\n"), (world.root / "two").write_text("2\n")
    world.conf["sandbox-paths"] += f" /one={world.root}/one"
    world.extra_conf = f"extra-sandbox-paths = /two={world.root}/two\n"
    assert world.text('sh "both" "cat /one /two > $out" {}') == "1\n2\n"


def test_command_line_options_override_the_configuration(world):
    world.daemon_args = ["--option", "timeout", "1"]
    world.build('sh "slow" "sleep 30" {}').fails().says("timed out after 1 seconds")


# --- users and trust


def test_the_socket_is_open_to_everybody(world):
    world.start()
    assert stat.S_IMODE(os.stat(world.socket).st_mode) == 0o666


@pytest.mark.root_only
@pytest.mark.every_client
def test_another_user_builds_through_the_daemon(world):
    path = world.output(HELLO, user="firntest")
    assert path.read_text() == "hello\n" and path.stat().st_uid == 0


@pytest.mark.root_only
def test_a_user_who_is_not_allowed_is_turned_away(world):
    world.conf["allowed-users"] = "root nobody"
    result = world.build(HELLO, user="firntest").fails()
    assert "not allowed" in result.err or "closed" in result.err or "disconnected" in result.err or "reset" in result.err, result
    world.build(HELLO, user="nobody").ok()
    world.build(HELLO).ok()


@pytest.mark.root_only
def test_a_group_may_be_allowed(world):
    world.conf["allowed-users"] = "@firntest"
    world.build(HELLO, user="firntest").ok()
    world.build(HELLO, user="nobody").fails()


@pytest.mark.root_only
@pytest.mark.every_client
def test_an_untrusted_user_cannot_turn_the_sandbox_off(world):
    (world.root / "secret").write_text("host\n")
    expression = f'sh "peek" "test -e {world.root}/secret && echo seen > $out || echo hidden > $out" {{}}'
    assert world.text(expression, "--option", "sandbox", "false", user="firntest") == "hidden\n"


@pytest.mark.root_only
@pytest.mark.every_client
def test_a_trusted_user_can_turn_the_sandbox_off(world):
    world.conf["trusted-users"] = "root firntest"
    (world.root / "secret").write_text("host\n")
    expression = f'sh "peek" "test -e {world.root}/secret && echo seen > $out || echo hidden > $out" {{}}'
    assert world.text(expression, "--option", "sandbox", "false", user="firntest") == "seen\n"


@pytest.mark.root_only
@pytest.mark.firn_only("the stock 2.8 daemon says so only to debug")
def test_an_untrusted_user_is_warned_that_a_setting_is_ignored(world):
    result = world.build(HELLO, "--option", "sandbox", "false", user="firntest").ok()
    assert "ignoring" in result.err and "sandbox" in result.err


@pytest.mark.root_only
def test_an_untrusted_user_may_set_what_harms_nobody(world):
    result = world.build('sh "slow" "sleep 30" {}', "--timeout", "1", user="firntest").fails()
    result.says("timed out after 1 seconds")


@pytest.mark.root_only
@pytest.mark.every_client
def test_an_untrusted_user_cannot_import_unsigned_paths(world):
    path = world.output(HELLO)
    cache = f"file://{world.root}/cache"
    world.run("nix", "copy", "--to", cache, path).ok()
    world.run("nix-store", "--delete", path).ok()
    result = world.run("nix", "copy", "--from", cache, path, "--no-check-sigs", user="firntest").fails()
    assert "lacks a" in result.err
    assert not world.is_valid(path)


@pytest.mark.root_only
def test_an_untrusted_user_cannot_add_a_public_key(world):
    world.write_conf()
    secret, public = world.root / "k.secret", world.root / "k.public"
    world.direct("nix-store", "--generate-binary-cache-key", "mine-1", secret, public).ok()
    path = world.output(HELLO)
    cache = f"file://{world.root}/cache"
    world.run("nix", "copy", "--to", f"{cache}?secret-key={secret}", path).ok()
    world.run("nix-store", "--delete", path).ok()
    world.run("nix", "copy", "--from", cache, path, "--option", "trusted-public-keys", public.read_text().strip(), user="firntest").fails()
    assert not world.is_valid(path)


@pytest.mark.root_only
def test_an_untrusted_user_cannot_choose_what_a_path_contains(world):
    """AddToStoreNar with "do not check signatures" counts only for trusted users."""
    os.makedirs(world.root / "home-firntest", exist_ok=True)
    world.start()
    script = f"""
import sys; sys.path.insert(0, {str(os.path.dirname(os.path.abspath(__file__)))!r})
import protocol
class W: socket = {str(world.socket)!r}; start = lambda self: None
with protocol.Connection(W()) as c:
    try:
        c.add_nar({str(world.store)!r} + "/" + "d" * 32 + "-evil", protocol.nar(protocol.regular(b"x")), check=False)
        print("added" if c.is_valid({str(world.store)!r} + "/" + "d" * 32 + "-evil") else "not there")
    except (protocol.DaemonError, protocol.Closed) as error:
        print("refused", error)
"""
    result = world.run("/usr/bin/python3", "-B", "-c", script, user="firntest").ok()
    assert result.out.startswith("refused"), result


@pytest.mark.root_only
def test_an_untrusted_user_cannot_repair_or_delete_what_is_needed(world):
    path = world.run("nix-build", world.nix(HELLO), "-o", world.root / "result").ok().path
    world.build(HELLO, "--repair", user="firntest").fails()
    world.run("nix-store", "--delete", path, user="firntest").fails()
    assert world.is_valid(path)


@pytest.mark.root_only
def test_a_group_may_be_trusted(world):
    world.conf["trusted-users"] = "root @firntest"
    (world.root / "secret").write_text("host\n")
    expression = f'sh "peek" "test -e {world.root}/secret && echo seen > $out || echo hidden > $out" {{}}'
    assert world.text(expression, "--option", "sandbox", "false", user="firntest") == "seen\n"


# --- start and end


def test_the_daemon_makes_its_directories(world):
    world.start()
    world.run("nix-store", "--verify").ok()
    for name in ("db/db.sqlite", "db/big-lock", "db/schema", "gcroots", "temproots"):
        assert (world.state / name).exists(), name


def test_a_socket_left_by_a_dead_daemon_is_replaced(world):
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(world.socket))
    left.close()
    assert world.output(HELLO)


def test_a_daemon_can_be_restarted(world):
    path = world.output(HELLO)
    world.restart()
    assert world.output(HELLO) == path


def test_connections_outlive_the_listener(world):
    with Connection(world) as connection:
        world.stop()
        assert connection.all_paths() == []
        path, _ = connection.add_to_store("file", "fixed:r:sha256", nar(regular(b"x")))
        assert connection.is_valid(path)


def test_version_is_printed_like_nix_s(world):
    program = world.daemon_command()
    result = world.run(*program, "--version").ok()
    assert result.out.startswith("nix-daemon (Nix) ") or "firn" in result.out


def test_a_crash_of_one_connection_does_not_reach_another(world):
    with Connection(world) as first, Connection(world) as second:
        children = [p for p in machine.descendants(of=world.daemon.pid) if p.parent == world.daemon.pid]
        os.kill(children[0].pid, signal.SIGKILL)
        answers = []
        for connection in (first, second):
            try:
                answers.append(connection.all_paths())
            except (protocol.Closed, OSError):
                answers.append("closed")
        assert sorted(map(str, answers)) == ["[]", "closed"]


def test_an_idle_daemon_uses_no_processor(world):
    world.start()
    ticks = lambda: sum(map(int, open(f"/proc/{world.daemon.pid}/stat").read().rsplit(") ", 1)[1].split()[11:13]))  # noqa: E731
    before = ticks()
    time.sleep(1)
    assert ticks() - before <= 2


@pytest.mark.root_only
@pytest.mark.every_client
def test_another_user_has_a_profile(world):
    path = world.output(HELLO, user="firntest")
    profile = world.state / "profiles/per-user/firntest/mine"
    world.run("nix-env", "--profile", profile, "--set", path, user="firntest").ok()
    assert profile.resolve() == path
    for kind in ("profiles", "gcroots"):
        folder = os.stat(world.state / kind / "per-user/firntest")
        assert (folder.st_uid, stat.S_IMODE(folder.st_mode)) == (pwd.getpwnam("firntest").pw_uid, 0o755)
    world.run("nix-store", "--gc").ok()
    assert path.exists()


@pytest.mark.root_only
def test_a_user_whose_directory_cannot_be_made_is_served(world):
    world.start()
    world.run("nix-store", "--gc", "--print-roots").ok()
    (world.state / "profiles/per-user/firntest").write_text("in the way\n")
    world.output(HELLO, user="firntest")
    assert "user 'firntest' has no directory for profiles" in world.log_file.read_text()


@pytest.mark.root_only
def test_a_user_without_a_name_is_served(world):
    world.start()
    result = world.run("setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "nix-store", "-q", "--requisites",
                       f"{world.store}/{'d' * 32}-none", env={"HOME": "/nonexistent"})
    result.fails().says("is not valid")
