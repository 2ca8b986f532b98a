"""What `firn doctor` says of a host, and that it leaves the host as it was."""

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

import machine
from world import SYSTEM_PATH, Result

pytestmark = pytest.mark.firn_only("stock Nix has no such command")

LEVELS = ["ok", "note", "limit", "error"]


def doctor(world, *args, env=None, before=""):
    """Runs it as the world's daemon would be started; `before` is a shell script for a mount namespace of its own."""
    world.write_conf()
    program = world.daemon_command()[0]
    environment = world.environment() | {"TMPDIR": str(world.tmp), "NIX_CONF_DIR": str(world.root / "etc"), "PATH": SYSTEM_PATH}
    del environment["NIX_REMOTE"]
    environment |= env or {}
    command = [program, "doctor", *map(str, args)]
    if before:
        own_user = [] if machine.is_root() else ["--user", "--map-current-user", "--keep-caps"]
        # As on a host, where mounts are somebody else's to an ordinary user.
        drop = "" if machine.is_root() else "setpriv --inh-caps=-all --ambient-caps=-all --bounding-set=-all -- "
        command = ["unshare", *own_user, "--mount", "--propagation", "private", "sh", "-ec", f'{before}\nexec {drop}"$@"', "sh", *command]
    done = subprocess.run(command, env={name: value for name, value in environment.items() if value is not None},
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=60, cwd="/")
    return Result(command, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def findings(world, *args, status=None, **options):
    """All findings of `--json` by their ids, each a list."""
    result = doctor(world, "--json", *args, **options)
    report = json.loads(result.out)
    assert report["exitStatus"] == result.status
    assert status is None or result.status == status, str(result)
    found = {}
    for section in report["sections"]:
        for finding in section["findings"]:
            found.setdefault(finding["id"], []).append(finding)
    return found


def names_below(folder):
    return sorted(str(path) for path in Path(folder).rglob("*"))


def mount_noexec(folder):
    return f"mount -t tmpfs -o noexec,nosuid,nodev,mode=1777 tmpfs '{folder}'"


def test_a_healthy_host_is_well_and_stays_as_it_was(world):
    world.write_conf()
    before = names_below(world.root)
    result = doctor(world)
    assert result.status == 0, str(result)
    assert "Firn works here.\n" in result.out
    assert str(world.tmp) in result.out and "TMPDIR" in result.out and "(tried)" in result.out
    assert "\x1b" not in result.out and result.err == ""
    assert names_below(world.root) == before


def test_without_anything_the_default_directory_is_tried_and_not_made(world):
    found = findings(world, env={"TMPDIR": None}, status=0)
    assert found["build-directory"][0]["details"]["origin"] == "default"
    assert found["build-directory-execution"][0]["details"]["mechanism"] == "direct"
    assert not (world.state / "builds").exists() and not world.store.exists()


def test_a_relative_tmpdir_is_told_and_not_followed(world):
    found = findings(world, env={"TMPDIR": "tmp"}, status=1)
    assert found["build-directory-tmpdir"][0]["details"]["value"] == "tmp"
    [finding] = found["build-directory"]
    assert finding["details"]["origin"] == "default" and "TMPDIR" not in finding["text"], finding


def test_a_build_directory_that_is_a_symlink_to_nothing_is_one_error(world):
    (world.root / "link").symlink_to(world.root / "nothing")
    for tmpdir in (world.root / "link", world.root / "link/below"):
        found = findings(world, env={"TMPDIR": str(tmpdir)}, status=2)
        [finding] = found["build-directory"]
        assert finding["level"] == "error" and f"'{world.root}/link' is in the way" in finding["text"], finding
        assert "symlink to nothing" in finding["text"] and "build-directory-execution" not in found


def test_a_build_directory_that_others_could_replace_is_one_error(world):
    world.tmp.chmod(0o777)
    found = findings(world, status=2)
    [finding] = found["build-directory"]
    assert finding["level"] == "error" and "others could replace" in finding["text"] and "build-dir" in finding["remedy"]
    assert "build-directory-execution" not in found


def test_json_has_the_documented_shape(world):
    report = json.loads(doctor(world, "--json").out)
    assert set(report) == {"version", "firn", "user", "verdict", "exitStatus", "sections"}
    assert report["version"] == 1 and report["verdict"] == "ok" and report["exitStatus"] == 0
    assert [section["id"] for section in report["sections"]] == ["store", "build-directory", "sandbox", "build-users", "settings"]
    document = (Path(__file__).parents[2] / "doc/doctor.md").read_text()
    for section in report["sections"]:
        assert set(section) == {"id", "title", "findings"} and section["findings"]
        for finding in section["findings"]:
            assert set(finding) == {"id", "level", "text", "remedy", "details"}
            assert finding["level"] in LEVELS and finding["text"] and "\n" not in finding["text"]
            assert all(isinstance(value, str) for value in finding["details"].values())
            assert f"`{finding['id']}`" in document


def test_build_dir_wins_over_tmpdir(world):
    (world.root / "b").mkdir()
    world.conf["build-dir"] = world.root / "b"
    finding = findings(world)["build-directory"][0]
    assert finding["details"]["origin"] == "build-dir" and finding["details"]["path"] == str(world.root / "b")


def test_settings_on_the_command_line_count(world):
    (world.root / "b").mkdir()
    for args in [("--option", "build-dir", world.root / "b"), ("--build-dir", world.root / "b")]:
        assert findings(world, *args)["build-directory"][0]["details"]["origin"] == "build-dir"


def test_another_store_on_the_command_line_is_looked_at(world):
    found = findings(world, "--store", f"local?store={world.root}/other&state={world.root}/ostate")
    assert found["store-directory"][0]["details"]["path"] == f"{world.root}/other"
    assert found["state-directory"][0]["details"]["path"] == f"{world.root}/ostate"


def test_a_store_behind_another_daemon_is_an_error(world):
    assert findings(world, "--store", "daemon", status=2)["store-uri"][0]["remedy"]
    assert "ssh://x" in findings(world, "--store", "ssh://x", status=2)["store-uri"][0]["text"]


@pytest.mark.root_only
def test_root_lifts_noexec_from_the_build_directory(world):
    found = findings(world, before=mount_noexec(world.tmp), status=0)
    finding = found["build-directory-execution"][0]
    assert finding["details"]["mechanism"] in ("bind-mount", "classic-bind-mount")
    assert finding["details"]["mountPoint"] == str(world.tmp) and "noexec" in finding["details"]["options"]
    assert finding["level"] == "ok"


def test_a_noexec_build_directory_that_is_refused_is_an_error_with_remedies(world):
    world.conf["noexec-build-dir"] = "refuse"
    finding = findings(world, before=mount_noexec(world.tmp), status=2)["build-directory-execution"][0]
    assert finding["level"] == "error" and "TMPDIR" in finding["text"] and "noexec-build-dir" in finding["text"]
    assert "build-dir" in finding["remedy"]


def test_a_tmpfs_in_place_of_a_noexec_build_directory_is_a_limit(world):
    world.conf["noexec-build-dir"] = "tmpfs"
    finding = findings(world, before=mount_noexec(world.tmp), status=1)["build-directory-execution"][0]
    assert finding["level"] == "limit" and finding["details"]["mechanism"] == "tmpfs"


@pytest.mark.parametrize("option", ["exec", "noexec"])
def test_a_directory_too_full_for_a_trial_is_not_said_to_be_tried(world, option):
    """As it is it counts as executable if its mount says so."""
    full = f"mount -t tmpfs -o size=64k,{option},mode=1777 tmpfs '{world.tmp}'"
    finding = findings(world, before=full)["build-directory-execution"][0]
    assert "(not tried: No space left on device)" in finding["text"] and "(tried)" not in finding["text"], finding
    assert finding["details"]["tried"] == "false"


@pytest.mark.user_only
def test_an_ordinary_user_gets_an_overlay(world):
    found = findings(world, before=mount_noexec(world.tmp), status=0)
    assert found["build-directory-execution"][0]["details"]["mechanism"] == "overlay"


def mount_noexec_overlay(world):
    """No overlay can have its files on an overlay, so this way out is closed."""
    (world.root / "ov").mkdir()
    return f"""cd '{world.root}/ov'
mount -t tmpfs -o mode=0755 none .
cd '{world.root}/ov'
mkdir l u w
mount -t overlay -o noexec,userxattr,lowerdir=l,upperdir=u,workdir=w none '{world.tmp}'
cd /"""


@pytest.mark.user_only
def test_where_no_overlay_is_possible_the_state_directory_is_a_limit_and_not_left_behind(world):
    finding = findings(world, before=mount_noexec_overlay(world), status=1)["build-directory-execution"][0]
    assert finding["details"]["mechanism"] == "state-directory" and finding["details"]["base"] == str(world.state / "builds")
    assert str(world.tmp) in finding["remedy"] and "build-dir" in finding["remedy"]
    assert not (world.state / "builds").exists()


@pytest.mark.user_only
def test_where_nothing_is_executable_it_is_an_error(world):
    before = mount_noexec_overlay(world) + "\n" + mount_noexec(world.state)
    finding = findings(world, before=before, status=2)["build-directory-execution"][0]
    assert finding["level"] == "error" and "build-dir" in finding["remedy"]


@pytest.mark.user_only
def test_a_host_without_user_namespaces_is_told_with_the_switch(world):
    finding = findings(world, before="echo 0 > /proc/sys/user/max_user_namespaces", status=2)["sandbox"][0]
    assert finding["level"] == "error" and "user.max_user_namespaces" in finding["remedy"]
    assert "max_user_namespaces" not in finding["text"]


def test_a_read_only_tmp_is_none_of_its_business(world):
    """The world's own directory below it stays as it is."""
    before = f"""mount --bind '{world.root}' '{world.root}'
mount --rbind /tmp /tmp
mount -o remount,bind,ro /tmp
if mkdir /tmp/firn-test-written 2>/dev/null; then exit 99; fi"""
    assert findings(world, before=before, status=0)["sandbox"][0]["level"] == "ok"


def test_classic_mounts_that_were_asked_for_are_not_the_kernels_fault(world):
    features = findings(world, env={"FIRN_CLASSIC_MOUNTS": "1"}, status=1)["kernel-feature"]
    [finding] = [feature for feature in features if feature["details"]["feature"] == "mount_setattr"]
    assert "FIRN_CLASSIC_MOUNTS=1" in finding["text"] and "unset FIRN_CLASSIC_MOUNTS" in finding["remedy"] and "5.12" not in finding["remedy"]


def test_a_store_on_noexec_is_an_error_of_its_own(world):
    world.store.mkdir()
    finding = findings(world, before=mount_noexec(world.store), status=2)["store-noexec"][0]
    assert str(world.store) in finding["text"] and "noexec" in finding["text"] and "remount,exec" in finding["remedy"]


@pytest.mark.root_only
def test_a_missing_group_of_build_users_is_an_error_that_says_how_to_make_it(world):
    world.conf["build-users-group"] = "firn-no-such-group"
    finding = findings(world, status=2)["build-users"][0]
    assert "firn-no-such-group" in finding["text"] and "groupadd -r firn-no-such-group" in finding["remedy"]


@pytest.mark.root_only
def test_too_few_build_users_are_a_limit(world):
    world.conf["max-jobs"] = "500"
    assert findings(world, status=1)["build-users"][0]["level"] == "limit"


@pytest.mark.user_only
def test_directories_of_root_are_errors_for_others(world):
    found = findings(world, env={"NIX_STATE_DIR": "/etc/firn-test-state", "NIX_STORE_DIR": "/etc/firn-test-store"}, status=2)
    for name in ("store-directory", "state-directory"):
        assert found[name][0]["level"] == "error" and "Permission denied" in found[name][0]["text"]


def test_unknown_and_unsupported_settings_are_limits_with_their_line(world):
    world.extra_conf = "sandbx = true\nbuilders = ssh://elsewhere\nwarn-dirty = false\n"
    found = findings(world, status=1)
    assert [finding["details"]["setting"] for finding in found["unknown-setting"]] == ["sandbx"]
    assert "nix.conf:" in found["unknown-setting"][0]["details"]["origin"]
    assert [finding["details"]["setting"] for finding in found["unsupported-setting"]] == ["builders"]


def test_a_malformed_setting_is_an_error_and_the_others_still_count(world):
    world.extra_conf = "cores = many\ntrusted-users = *\n"
    found = findings(world, status=2)
    assert "cores" in found["bad-setting"][0]["text"]
    assert found["trusted-everybody"][0]["level"] == "limit"


def test_a_configuration_that_cannot_be_understood_is_an_error(world):
    world.extra_conf = "what is this\n"
    finding = findings(world, status=2)["configuration"][0]
    assert "nix.conf:" in finding["text"] and finding["level"] == "error"


@pytest.mark.user_only
def test_an_unreadable_configuration_is_an_error_that_names_it(world):
    world.write_conf()
    (world.root / "etc/nix.conf").chmod(0)
    world.write_conf = lambda: None
    finding = findings(world, status=2)["configuration"][0]
    assert str(world.root / "etc/nix.conf") in finding["text"] and "Permission denied" in finding["text"]


def test_a_fifo_as_configuration_is_an_error_and_nobody_waits_for_it(world):
    os.mkfifo(world.root / "etc/nix.conf")
    world.write_conf = lambda: None
    finding = findings(world, status=2)["configuration"][0]
    assert "pipe" in finding["text"]
    daemon = subprocess.run([*world.daemon_command(), "--stdio"], env=world.environment() | {"NIX_CONF_DIR": str(world.root / "etc")},
                            stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
    assert daemon.returncode != 0 and b"pipe" in daemon.stderr


def test_sandbox_paths_that_do_not_exist_are_errors(world):
    world.conf["sandbox-paths"] = "/bin/sh=/usr/bin/busybox /no/such/thing /no/such/other?"
    found = findings(world, status=2)["sandbox-path"]
    assert [finding["details"]["word"] for finding in found] == ["/no/such/thing"]


def test_without_a_shell_and_without_a_sandbox_it_works_with_limits(world):
    world.conf["sandbox-paths"] = ""
    assert findings(world, status=1)["sandbox-shell"]
    world.conf["sandbox"] = "false"
    assert findings(world, status=1)["sandbox-setting"][0]["details"]["sandbox"] == "false"


def test_a_missing_sandbox_program_is_an_error(world):
    for variable, id in [("FIRN_MACHO_JAIL", "macho-jail"), ("FIRN_BUILTIN", "builtin")]:
        helper = findings(world, env={variable: "/no/such/program"}, status=1)[id][0]
        assert helper["level"] == "limit" and "/no/such/program" in helper["text"] and variable in helper["remedy"]
    finding = findings(world, env={"FIRN_SANDBOX_INIT": "/no/such/init"}, status=2)["sandbox-init"][0]
    assert "/no/such/init" in finding["text"]


def test_a_daemon_that_listens_is_named(world):
    world.start()
    finding = findings(world, status=0)["socket"][0]
    assert finding["details"]["pid"] == str(world.daemon.pid) and "firn" in finding["details"]["program"]


def test_what_is_no_socket_is_in_the_way_and_a_stale_one_is_not(world):
    world.socket.write_text("")
    assert findings(world, status=2)["socket"][0]["level"] == "error"
    world.socket.unlink()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(world.socket))
    assert findings(world, status=0)["socket"][0]["level"] == "ok"
    world.socket.unlink()


def test_a_symlink_on_the_store_s_path_is_an_error(world):
    (world.root / "real").mkdir()
    (world.root / "link").symlink_to(world.root / "real")
    assert findings(world, env={"NIX_STORE_DIR": str(world.root / "link/store")}, status=2)["store-directory"][0]["remedy"]


def test_a_wrong_word_on_the_command_line_does_not_look_like_success_with_limits(world):
    assert doctor(world, "--no-such-setting").status not in (0, 1, 2)
    assert doctor(world, "--cores", "many").status == 2


def test_long_lines_fit_a_terminal(world):
    world.write_conf()
    program = world.daemon_command()[0]
    environment = world.environment() | {"TMPDIR": str(world.tmp), "NIX_CONF_DIR": str(world.root / "etc"), "TERM": "xterm"}
    script = f"stty cols 60; '{program}' doctor"
    done = subprocess.run(["script", "-qec", script, "/dev/null"], env=environment, stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=60)
    lines = done.stdout.decode().replace("\r", "").splitlines()
    assert done.returncode == 0 and any("\x1b[32m" in line for line in lines)
    for line in lines:
        plain = line.replace("\x1b[32m", "").replace("\x1b[36m", "").replace("\x1b[33m", "").replace("\x1b[0m", "")
        assert len(plain) <= 60 or " " not in plain[9:].strip(), plain
