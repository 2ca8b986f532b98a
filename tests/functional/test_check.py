"""`--check` and `--rebuild`: what they say when a build does not repeat, what they leave alone, and the diff-hook.

Builds differ by a file outside of the store, "noise", which a sandboxed build sees as well.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import time

import pytest

import machine
import protocol
import synthetic_macho
import world as worlds

pytestmark = pytest.mark.firn_only("stock daemons name one output and no file")

SANDBOXES = pytest.mark.parametrize("sandbox", ["true", "false"])
DIFFERS = r"error: derivation '(\S+)' may not be deterministic: output '(\S+)' differs"


class Noise:
    """A folder that builds see under the same path with and without a sandbox."""

    def __init__(self, world, sandbox):
        self.path = world.root / "noise"
        self.path.mkdir()
        world.conf["sandbox"] = sandbox
        world.conf["sandbox-paths"] += f" {self.path}"

    def set(self, name, data):
        (self.path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        (self.path / name).chmod(0o755)

    def shell(self, script, name="noisy", attrs="{}"):
        """A derivation whose builder is this script, with $noise."""
        (self.path / "script").write_text(script)
        return f'sh "{name}" "noise={self.path}; . $noise/script" {attrs}'


def report(world, drv):
    base = os.path.basename(drv)
    return json.loads((world.logs / "drvs" / base[:2] / f"{base[2:]}.check.json").read_text())


def check_of(world, *args, **options):
    result = world.build(*args, "--check", **options).fails()
    assert len(result.errors) == 1, result
    return result


def drv_of(result):
    return re.search(DIFFERS, result.err)[1]


@SANDBOXES
def test_what_a_sandbox_path_shows_can_be_checked(world, sandbox):
    world.conf["sandbox"] = sandbox
    expression = 'sh "tool" "mkdir $out; echo tool > $out/file" {}'
    out = world.build(expression).ok().lines[0]
    world.conf["sandbox-paths"] += f" /tool={out}/file"
    world.restart()
    world.build(expression, "--check").ok()
    uses = world.build('sh "uses" "cat /tool > $out" {}').ok().lines[0] if sandbox == "true" else f"{out}/file"
    with open(uses) as file:
        assert file.read() == "tool\n"


TREE = """mkdir -p $out/bin $out/lib
head -c 100000 /dev/zero > $out/lib/big; cat $noise/tail >> $out/lib/big
echo same > $out/same
cp $noise/tail $out/bin/tool; chmod $(cat $noise/mode) $out/bin/tool
ln -s $(cat $noise/tail) $out/link
if test -e $noise/second; then mkdir $out/changing $out/added; else touch $out/changing $out/gone; fi
"""


@pytest.mark.every_client
@SANDBOXES
def test_every_kind_of_difference_is_named(world, sandbox):
    noise = Noise(world, sandbox)
    noise.set("tail", "one")
    noise.set("mode", "755")
    out = world.output(noise.shell(TREE))
    noise.set("tail", "two-and-more")
    noise.set("mode", "644")
    noise.set("second", "")
    result = check_of(world, noise.shell(TREE))
    assert result.status in (1, 104)
    drv, path = re.search(DIFFERS, result.err).groups()
    assert path == str(out)
    result.says(
        f"output 'out' ('{out}'): 2 with other contents, 1 with another mode, 1 with another link target, 1 of another type, 1 missing, 1 new",
        "added: new (directory)", "bin/tool: executable, now not", "bin/tool: contents differ (12 bytes, the first at offset 0; 3 bytes long, now 12)",
        "changing: regular file, now a directory", "gone: missing now (regular file)",
        "lib/big: contents differ (12 bytes, the first at offset 100000; 100003 bytes long, now 100012)", "link: symlink to 'one', now to 'two-and-more'")
    found = report(world, drv)
    assert found["version"] == 1 and found["derivation"] == drv and found["deterministic"] is False
    output = found["outputs"]["out"]
    assert output["path"] == str(out) and output["verdict"] == "differs" and output["truncated"] is False
    assert output["counts"] == {"contents": 2, "executable": 1, "target": 1, "type": 1, "missing": 1, "extra": 1, "countsAsEqual": 0}
    kinds = {(difference["path"], difference["kind"]) for difference in output["differences"]}
    assert kinds == {("bin/tool", "contents"), ("bin/tool", "executable"), ("lib/big", "contents"), ("link", "target"),
                     ("changing", "type"), ("gone", "missing"), ("added", "extra")}
    big, = [difference for difference in output["differences"] if difference["path"] == "lib/big"]
    assert (big["firstOffset"], big["differingBytes"], big["registeredSize"], big["builtSize"]) == (100000, 12, 100003, 100012)
    # A hash by another implementation.
    assert output["narHash"]["registered"] == "sha256-" + world.run(
        "nix", "hash", "path", "--base64", out).ok().path.removeprefix("sha256-")
    assert (out / "bin/tool").read_text() == "one"


@pytest.mark.every_client
@SANDBOXES
def test_rebuild_tells_the_same(world, sandbox):
    noise = Noise(world, sandbox)
    noise.set("data", "one")
    file = world.nix(noise.shell("mkdir $out; cp $noise/data $out/file"))
    world.run("nix", "build", "--no-link", "-f", file).ok()
    world.run("nix", "build", "--no-link", "-f", file, "--rebuild").ok()
    noise.set("data", "onE")
    world.run("nix", "build", "--no-link", "-f", file, "--rebuild").fails().says(
        "may not be deterministic", "file: contents differ (1 byte, the first at offset 2)")


@SANDBOXES
def test_every_output_is_compared_and_kept_on_request(world, sandbox):
    noise = Noise(world, sandbox)
    noise.set("data", "one")
    expression = noise.shell("for output in $out $dev $doc; do mkdir $output; echo $out > $output/self; done\n"
                             "cp $noise/data $out/a; cp $noise/data $doc/b", attrs='{ outputs = [ "out" "dev" "doc" ]; }')
    out, = [path for path in world.build(f"let d = {expression}; in [ d.out d.dev d.doc ]").ok().lines if path.endswith("-noisy")]
    noise.set("data", "two")
    result = check_of(world, expression)
    result.says("output 'out' (", "  a: contents differ", "output 'doc' (", "  b: contents differ")
    assert "output 'dev' (" not in result.err and "self" not in result.err
    verdicts = {name: output["verdict"] for name, output in report(world, drv_of(result))["outputs"].items()}
    assert verdicts == {"out": "differs", "dev": "same", "doc": "differs"}
    assert world.stray_names() == []
    result = check_of(world, expression, "-K")
    kept = {name: world.store / name for name in world.stray_names() if name.endswith(".check")}
    assert sorted(name[33:] for name in kept) == ["noisy-doc.check", "noisy.check"]
    assert set(kept) == set(world.stray_names())
    for name, path in kept.items():
        result.says(f"'{path}'")
        file = path / ("a" if name.endswith("noisy.check") else "b")
        assert file.read_text() == "two" and (path / "self").read_text() == f"{out}\n"
        assert path.stat().st_uid == os.geteuid()
    outputs = report(world, drv_of(result))["outputs"]
    assert {output.get("kept") for output in outputs.values()} == {str(path) for path in kept.values()} | {None}
    world.allow_left |= {"store", "tmp"}


def test_a_kept_tree_goes_with_the_next_check_of_its_output(world):
    noise = Noise(world, "true")
    noise.set("data", "one")
    expression = noise.shell("cp $noise/data $out")
    out = world.output(expression)
    noise.set("data", "two")
    check_of(world, expression, "-K")
    assert (world.store / f"{out.name}.check").read_text() == "two"
    noise.set("data", "one")
    world.build(expression, "--check").ok()
    assert world.stray_names() == []
    world.allow_left.add("tmp")


def test_a_long_list_is_cut_and_counted(world):
    noise = Noise(world, "true")
    noise.set("data", "one")
    script = "mkdir $out; for i in $(seq 1500); do cp $noise/data $out/file$i; done"
    world.output(noise.shell(script))
    noise.set("data", "two")
    result = check_of(world, noise.shell(script))
    result.says("1500 with other contents", "… and 1490 more")
    assert result.err.count("contents differ") == 10
    output = report(world, drv_of(result))["outputs"]["out"]
    assert len(output["differences"]) == 1000 and output["truncated"] and output["counts"]["contents"] == 1500


def test_names_and_targets_that_are_no_text_are_shown_safely(world):
    noise = Noise(world, "true")
    noise.set("data", "one")
    script = r"""mkdir $out; cp $noise/data $out/$(printf 'a\033[31m\377'); ln -s $(printf '\033]0;')$(cat $noise/data) $out/link"""
    world.output(noise.shell(script))
    noise.set("data", "two")
    result = check_of(world, noise.shell(script))
    result.says(r"a\x1b[31m\xff: contents differ", r"symlink to '\x1b]0;one', now to '\x1b]0;two'")
    assert "\x1b]0;" not in result.err
    assert {difference["path"] for difference in report(world, drv_of(result))["outputs"]["out"]["differences"]} == {r"a\x1b[31m\xff", "link"}


def test_a_check_that_repeats_says_nothing_and_leaves_a_report_that_says_so(world):
    noise = Noise(world, "true")
    expression = noise.shell("echo same > $out")
    drv, = world.instantiate(expression)
    world.build(expression).ok()
    assert "output 'out'" not in world.build(expression, "--check").ok().err
    found = report(world, drv)
    assert found["deterministic"] is True and found["outputs"]["out"]["verdict"] == "same"
    assert found["outputs"]["out"]["damaged"] is False and found["outputs"]["out"]["stale"] == []
    world.run("nix", "log", drv).ok()

def test_an_output_that_cannot_be_read_any_more_is_told_to_be_damaged(world):
    expression = 'sh "many" "mkdir $out; echo one > $out/one; echo two > $out/two" {}'
    drv, = world.instantiate(expression)
    out = world.output(expression)
    out.chmod(0o755)
    (out / "two").unlink()
    os.mkfifo(out / "two")
    out.chmod(0o555)
    world.build(expression, "--check", "-K").fails(1).says(
        f"output '{out}' of derivation '{drv}' is damaged", "cannot be compared: 'two' is neither a regular file nor a directory nor a symlink")
    found = report(world, drv)["outputs"]["out"]
    assert found["damaged"] is True and found["verdict"] == "same" and "'two'" in found["unreadable"]
    # As the message says.
    world.build(expression, "--repair").ok()
    assert (out / "two").read_text() == "two\n"
    world.build(expression, "--check").ok()



def test_what_was_damaged_since_it_was_registered_is_not_the_builds_fault(world):
    noise = Noise(world, "true")
    noise.set("data", "one")
    expression = noise.shell("cp $noise/data $out")
    out = world.output(expression)
    noise.set("data", "two")
    out.chmod(0o755)
    out.write_text("two")
    check_of(world, expression).says("what is in the store is what was built now, but not what was registered")
    world.allow_left.add("verify")


def damage(path, data):
    path.chmod(0o755)
    path.write_text(data)
    path.chmod(0o444)


def test_a_file_with_the_length_of_before_is_found_by_its_time(world):
    expression = 'sh "many" "mkdir $out; echo one > $out/one; echo two > $out/two" {}'
    out = world.output(expression)
    world.build(expression, "--check").ok()
    for path, data in ((out / "one", "ONE\n"), (out / "two", "TWO\n")):
        damage(path, data)
    os.utime(out / "two", (1, 1))  # which is read all the same, since the other one tells
    world.build(expression, "--check").fails(1).says("damaged since it was registered, 2 with other contents")
    world.build(expression, "--repair").ok()
    world.build(expression, "--check").ok()


@pytest.mark.every_client
@SANDBOXES
def test_damaged_files_are_named_where_the_build_repeats(world, sandbox):
    """Which is no fault of the build, and no success of the check."""
    expression = 'sh "many" "mkdir $out $out/share; echo right > $out/share/file; echo other > $out/other; ln -s here $out/link" {}'
    drv, = world.instantiate(expression)
    out = world.output(expression)
    damage(out / "share/file", "wrong, and longer")
    damage(out / "other", "OTHER\n")
    out.chmod(0o755)
    (out / "link").unlink()
    (out / "added").write_text("")
    out.chmod(0o555)
    world.build(expression, "--check", "-K").fails(1).says(
        f"output '{out}' of derivation '{drv}' is damaged: what is in the store is not what was registered. The build itself repeats",
        f"output 'out' ('{out}'): damaged since it was registered, 2 with other contents, 1 missing, 1 new",
        "added: new (regular file)", "link: missing now (symlink)", "other: contents differ (5 bytes, the first at offset 0)",
        "share/file: contents differ (17 bytes, the first at offset 0; 6 bytes long, now 17)")
    found = report(world, drv)
    output = found["outputs"]["out"]
    assert found["deterministic"] is True and output["verdict"] == "same" and output["damaged"] is True
    assert {(one["path"], one["kind"]) for one in output["differences"]} == {("share/file", "contents"), ("other", "contents"), ("link", "extra"), ("added", "missing")}
    assert output["narHash"]["registered"] == output["narHash"]["built"]
    assert output["narHash"]["onDisk"] == "sha256-" + world.run("nix", "hash", "path", "--base64", out).ok().path.removeprefix("sha256-")
    assert world.stray_names() == []
    # As the message says.
    world.build(expression, "--repair").ok()
    world.build(expression, "--check").ok()
    assert report(world, drv)["outputs"]["out"]["damaged"] is False


def test_damage_to_what_does_not_repeat_either_is_told(world):
    noise = Noise(world, "true")
    noise.set("data", "one")
    expression = noise.shell("mkdir $out; cp $noise/data $out/data; echo same > $out/same")
    out = world.output(expression)
    damage(out / "same", "not")
    noise.set("data", "two")
    result = check_of(world, expression)
    result.says(f"output '{out}' differs", "  data: contents differ", "  same: contents differ",
                "what is in the store is not what was registered (registered: sha256-",
                "it cannot be told what was damaged and what the build does not repeat")
    output = report(world, drv_of(result))["outputs"]["out"]
    assert output["verdict"] == "differs" and output["damaged"] is True
    assert len({output["narHash"][which] for which in ("registered", "built", "onDisk")}) == 3
    world.allow_left.add("verify")


def test_a_registered_output_that_vanished_is_told_of(world):
    expression = 'sh "gone" "mkdir $out; echo > $out/file" {}'
    out = world.output(expression)
    out.chmod(0o755)
    shutil.rmtree(out)
    world.build(expression, "--check").fails(1).says("is damaged: what is in the store is not", "missing now (directory)")
    world.allow_left.add("verify")


def test_a_check_of_what_is_not_there_says_so(world):
    world.build(Noise(world, "true").shell("echo > $out"), "--check").fails().says("checking is not possible")


# --- repeatedly


def test_a_check_builds_as_often_as_it_is_told(world):
    world.conf["check-repeat"] = "3"
    noise = Noise(world, "false")
    noise.path.chmod(0o777)
    expression = noise.shell("touch $(mktemp $noise/run.XXXXXX); echo > $out")
    world.build(expression).ok()
    assert len(list(noise.path.glob("run.*"))) == 1
    world.build(expression, "--check").ok()
    assert len(list(noise.path.glob("run.*"))) == 5


def test_a_repeated_check_ends_with_the_first_difference(world):
    world.conf["check-repeat"] = "9"
    noise = Noise(world, "false")
    noise.path.chmod(0o777)
    expression = noise.shell("touch $(mktemp $noise/run.XXXXXX); set -- $noise/run.*; test $# -le 3 && echo > $out || echo $# > $out")
    world.build(expression).ok()
    check_of(world, expression).says("contents differ")
    assert len(list(noise.path.glob("run.*"))) == 4


# --- Mach-O


def macho(world, options="", more=""):
    """`out` holds a program with the path of `doc` in it, made without a sandbox."""
    shutil.copy(worlds.HERE / "synthetic_macho.py", world.src)
    world.conf["sandbox"] = "false"
    return f"""sh "prog" "mkdir -p $out/bin $doc; echo text > $doc/text; {more}
        python3 ${{./synthetic_macho.py}} $out/bin/prog {options} $doc/share" {{ outputs = [ "out" "doc" ]; }}"""


@pytest.mark.every_client
def test_a_uuid_that_was_computed_over_a_scratch_path_counts_as_equal(world):
    expression = macho(world, "uuid=content")
    drv, = world.instantiate(expression)
    out = world.build(f"({expression}).out").ok().path
    first = open(f"{out}/bin/prog", "rb").read()
    result = world.build(expression, "--check").ok()
    result.says("bin/prog: counts as equal: only the LC_UUID of the Mach-O")
    found = report(world, drv)
    assert found["deterministic"] is True and found["outputs"]["out"]["verdict"] == "equal" and found["outputs"]["doc"]["verdict"] == "same"
    difference, = found["outputs"]["out"]["differences"]
    assert difference["countsAsEqual"] and difference["macho"] == {
        "difference": "uuid", "registeredStale": False, "builtStale": False, "madeRight": False}
    assert open(f"{out}/bin/prog", "rb").read() == first


def test_one_other_byte_beside_the_uuid_differs(world):
    noise = world.root / "noise"
    noise.write_text("one")
    expression = macho(world, "uuid=content", f"cp {noise} $out/noise;")
    world.build(f"({expression}).out").ok()
    noise.write_text("two")
    check_of(world, expression).says("noise: contents differ", "bin/prog: counts as equal", "1 with other contents, 1 counting as equal")


@pytest.mark.every_client
@SANDBOXES
def test_a_program_is_said_to_differ_only_in_uuid_or_signature(world, sandbox):
    noise = Noise(world, sandbox)
    text = ["/" + "a" * 32 + "-x"]
    first = synthetic_macho.program(text, uuid="one")
    for name, data in (("uuid", first), ("signature", first), ("both", first), ("code", first), ("size", first)):
        noise.set(name, data)
    script = "mkdir $out; cp $noise/uuid $noise/signature $noise/both $noise/code $noise/size $out"
    out = world.output(noise.shell(script))
    noise.set("uuid", synthetic_macho.program(text, uuid="two"))
    noise.set("signature", synthetic_macho.program(text, uuid="one", stale=1))
    noise.set("both", synthetic_macho.program(text, uuid="two", stale=0))
    noise.set("code", synthetic_macho.program(["/" + "b" * 32 + "-x"], uuid="one"))
    noise.set("size", first + b"more")
    result = check_of(world, noise.shell(script))
    result.says("uuid: Mach-O that differs only in its LC_UUID and the page hashes over it (",
                "signature: Mach-O that differs only in its code signature (32 bytes,",
                "both: Mach-O that differs only in its LC_UUID and its code signature (",
                "code: contents of a Mach-O differ (", "size: contents of a Mach-O differ (4 bytes,")
    differences = {difference["path"]: difference for difference in report(world, drv_of(result))["outputs"]["out"]["differences"]}
    assert {path: difference["macho"]["difference"] for path, difference in differences.items()} == {
        "uuid": "uuid", "signature": "signature", "both": "uuid-and-signature", "code": "other", "size": "other"}
    assert [path for path, difference in differences.items() if difference["macho"]["builtStale"]] == ["both", "signature"]
    assert not any(difference["macho"]["registeredStale"] or difference["countsAsEqual"] for difference in differences.values())
    assert (out / "uuid").read_bytes() == first


def test_a_registered_program_with_a_stale_signature_is_named_as_such(world):
    """Left behind by a daemon that rewrites without repairing: stock Nix does, Firn where it is told to."""
    world.conf["macho-signatures"] = "warn"
    expression = macho(world)
    out = world.build(f"({expression}).out").ok().path
    world.direct("nix-store", "--delete", out).ok()
    world.build(f"({expression}).out").ok()
    assert synthetic_macho.stale_slots(open(f"{out}/bin/prog", "rb").read()) == [0, 1]
    world.stop()
    world.conf["macho-signatures"] = "repair"
    result = check_of(world, expression)
    result.says("bin/prog: Mach-O that differs only in its code signature", "the code signature of the registered file is stale")
    difference, = report(world, drv_of(result))["outputs"]["out"]["differences"]
    assert difference["macho"] == {"difference": "signature", "registeredStale": True, "builtStale": False, "madeRight": False}


@pytest.mark.every_client
@SANDBOXES
def test_a_stale_registered_program_that_is_built_the_same_is_named_too(world, sandbox):
    noise = Noise(world, sandbox)
    noise.set("stale", synthetic_macho.program([], stale=1))
    noise.set("good", synthetic_macho.program([]))
    noise.set("data", "one")
    expression = noise.shell("mkdir $out; cp $noise/stale $noise/good $noise/data $out; cp $noise/stale $out/again")
    drv, = world.instantiate(expression)
    world.build(expression).ok()
    result = world.build(expression, "--check").ok()
    words = "stale: the code signature of the registered file is stale, and that of the new one, which is the same"
    result.says(words, "again: the code signature")
    assert "good: " not in result.err
    assert report(world, drv)["outputs"]["out"]["stale"] == ["again", "stale"]
    noise.set("data", "two")
    check_of(world, expression).says(words, "data: contents differ")


def test_a_program_that_its_builder_leaves_stale_differs_where_it_is_rewritten_and_it_is_said_why(world):
    expression = macho(world, "stale=1")
    out = world.build(f"({expression}).out").ok().path
    assert synthetic_macho.stale_slots(open(f"{out}/bin/prog", "rb").read()) == [1]
    result = check_of(world, expression)
    result.says("bin/prog: Mach-O that differs only in its code signature",
                "the code signature of the registered file is stale, as its builder makes it, and the new one was made right")
    difference, = report(world, drv_of(result))["outputs"]["out"]["differences"]
    assert difference["macho"] == {"difference": "signature", "registeredStale": True, "builtStale": False, "madeRight": True}


def test_a_jail_that_dies_leaves_the_difference_itself(world):
    jail = world.root / "jail"
    jail.write_text("#!/bin/sh\nkill -9 $$\n")
    jail.chmod(0o755)
    world.daemon_env["FIRN_MACHO_JAIL"] = str(jail)
    noise = Noise(world, "true")
    noise.set("prog", synthetic_macho.program([], uuid="one"))
    world.build(noise.shell("cp $noise/prog $out")).ok()
    noise.set("prog", synthetic_macho.program([], uuid="two"))
    result = check_of(world, noise.shell("cp $noise/prog $out"))
    result.says("could not be looked at: ", "killed by signal 9", "contents differ (")


# --- the hook


def hook(world, script, sandbox="true"):
    """Two outputs that will differ, and a hook; returns the expression and the outputs' paths."""
    noise = Noise(world, sandbox)
    noise.set("data", "one")
    noise.set("hook", f"#!/bin/sh\n{script}\n")
    world.conf |= {"diff-hook": noise.path / "hook", "run-diff-hook": "true"}
    expression = noise.shell("for output in $out $dev; do mkdir $output; cp $noise/data $output/data; done",
                             attrs='{ outputs = [ "out" "dev" ]; }')
    paths = world.build(f"let d = {expression}; in [ d.out d.dev ]").ok().lines
    noise.set("data", "two")
    return expression, *paths


@pytest.mark.every_client
@SANDBOXES
def test_the_hook_sees_every_output_that_differs(world, sandbox):
    expression, *paths = hook(world, 'echo "user $(id -u)"; echo "old $1 $(cat $1/data)"; echo "new $2 $(cat $2/data)"; '
                                  'echo "drv $3"; head -c 6 $3; echo; echo "tmp $4"; ls -ld "$4"; (echo x > $1/data || echo x > $2/new) 2>/dev/null && echo writable; true', sandbox)
    # Who a builder is can be seen outside of its sandbox.
    noise = world.root / "noise"
    noise.chmod(0o777)
    (noise / "script").write_text("touch $noise/mine\n" + (noise / "script").read_text())
    result = check_of(world, expression)
    builder = (noise / "mine").stat().st_uid
    for path in paths:
        result.says(f"old {path} one", f"new {path}.check two")
    result.says(f"drv {drv_of(result)}", "Derive")
    assert "writable" not in result.err and "warning" not in result.err
    user, = set(re.findall(r"^user (\d+)$", result.err, re.MULTILINE))
    assert int(user) == builder and (builder in machine.build_uids() if machine.is_root() else builder == os.geteuid())
    assert world.stray_names() == []
    # It is in the log, too.
    assert f"old {paths[0]} one" in world.run("nix-store", "--read-log", drv_of(result)).ok().out


@SANDBOXES
@pytest.mark.parametrize("keep", [False, True])
def test_the_hook_reads_what_the_build_left_in_its_directory(world, sandbox, keep):
    expression, out, dev = hook(world, 'cat "$4/left"', sandbox)
    (world.root / "noise/script").write_text("echo this was left > left; chmod 777 .\n" + (world.root / "noise/script").read_text())
    result = check_of(world, expression, *(["-K"] if keep else []))
    assert "warning: diff-hook" not in result.err and result.err.count("this was left") == 2
    if keep:
        kept, = re.findall(r"keeping build directory '(\S+)'", result.err)
        assert open(f"{kept}/left").read() == "this was left\n"
        world.allow_left |= {"store", "tmp"}


def test_the_hook_does_not_run_when_a_build_repeats_or_when_it_is_off(world):
    noise = Noise(world, "true")
    noise.set("hook", "#!/bin/sh\necho ran\n")
    noise.set("data", "one")
    world.conf |= {"diff-hook": noise.path / "hook", "run-diff-hook": "false"}
    expression = noise.shell("cp $noise/data $out")
    world.build(expression).ok()
    noise.set("data", "two")
    assert "ran" not in check_of(world, expression).err
    noise.set("data", "one")
    world.stop()
    world.conf["run-diff-hook"] = "true"
    assert "ran" not in world.build(expression, "--check").ok().err


def test_a_hook_that_fails_is_a_warning_and_the_check_fails_as_ever(world):
    expression, out, _ = hook(world, "echo something first; exit 7")
    check_of(world, expression).says("something first", "warning: diff-hook '", "failed with exit code 7", f"output '{out}' differs")


def test_a_hook_that_cannot_be_run_is_a_warning(world):
    expression, out, _ = hook(world, "")
    (world.root / "noise/hook").unlink()
    check_of(world, expression).says("warning: diff-hook '", "could not be executed", f"output '{out}' differs")


def test_a_hook_that_hangs_is_ended_with_all_its_processes(world):
    world.conf["diff-hook-timeout"] = "1"
    expression, out, _ = hook(world, "echo it hangs; (trap '' TERM HUP; exec sleep 4300) & setsid sleep 4301 & exec sleep 4302")
    started = time.monotonic()
    check_of(world, expression).says("it hangs", "was ended after 1 seconds", f"output '{out}' differs")
    assert time.monotonic() - started < 20
    assert not [process for process in world.live_children() if "430" in str(process)]


def test_a_hook_that_writes_gigabytes_is_cut_and_counted(world):
    expression, out, _ = hook(world, "yes lots of output | head -c 2000000000")
    result = check_of(world, expression)
    assert len(result.err) < 300000 and result.err.count("lots of output") > 1000
    assert re.search(r"diff-hook wrote 19999\d{5} bytes more, which are not shown", result.err)


@pytest.mark.user_only
def test_a_hook_may_build_on_the_slot_of_its_check(world):
    """As root it runs as a build user, and those may not connect."""
    world.conf |= {"machine-max-jobs": "1", "diff-hook-timeout": "60"}
    inner = world.root / "noise/inner"
    expression, *_ = hook(world, f"NIX_REMOTE=daemon nix-store --realise $(cat {inner})")
    inner.write_text(*world.instantiate('sh "inner" "echo built inside > $out" {}'))
    result = check_of(world, expression)
    assert "warning: diff-hook" not in result.err
    built, = {line.strip() for line in result.err.splitlines() if line.endswith("-inner")}
    assert open(built).read() == "built inside\n"


def test_a_client_that_goes_away_ends_its_hook(world):
    expression, *_ = hook(world, "echo hanging; sleep 4310")
    client = world.popen(["nix-build", "--no-out-link", "--check", world.nix(expression)])
    for line in client.stderr:
        if b"hanging" in line:
            break
    client.kill()
    client.wait()
    assert world.wait_for_quiet(10) == []
    assert world.stray_names() == []


def test_a_hook_must_be_named_by_an_absolute_path(world):
    world.conf["diff-hook"] = "diff"
    with pytest.raises(AssertionError, match="diff-hook.*'diff'.*absolute path"):
        world.start()
    world.conf["diff-hook"] = ""


@pytest.mark.root_only
def test_an_untrusted_user_cannot_choose_the_hook(world):
    noise = Noise(world, "true")
    noise.set("data", "one")
    noise.set("hook", "#!/bin/sh\necho ran\n")
    expression = noise.shell("cp $noise/data $out")
    world.build(expression).ok()
    noise.set("data", "two")
    options = ("--option", "diff-hook", noise.path / "hook", "--option", "run-diff-hook", "true")
    assert "ran\n" not in check_of(world, expression, *options, user="firntest").err
    assert "ran\n" in check_of(world, expression, *options).err


# --- beside others


def kill_the_daemon(world, client):
    """With the processes of its connections; returns when nothing of them runs any more."""
    connections = [process for process in machine.descendants(of=world.daemon.pid) if process.parent == world.daemon.pid]
    world.stop(signal.SIGKILL)
    for process in connections:
        os.kill(process.pid, signal.SIGKILL)
    client.wait(10)
    assert world.wait_for_quiet(10) == []


@SANDBOXES
def test_a_check_that_is_killed_leaves_the_registered_output(world, sandbox):
    noise = Noise(world, sandbox)
    noise.set("data", "one")
    expression = noise.shell("mkdir $out; cp $noise/data $out/data; echo made >&2; test -e $noise/go || sleep 4400")
    noise.set("go", "")
    out = world.output(expression)
    before = (os.stat(out).st_ino, os.stat(out / "data").st_ino)
    (noise.path / "go").unlink()
    noise.set("data", "two")
    client = world.popen(["nix-build", "--no-out-link", "--check", world.nix(expression)])
    for line in client.stderr:
        if b"made" in line:
            break
    kill_the_daemon(world, client)
    assert (out / "data").read_text() == "one" and (os.stat(out).st_ino, os.stat(out / "data").st_ino) == before
    world.verify()
    # And the next one is not disturbed by what was left.
    noise.set("go", "")
    check_of(world, expression).says("data: contents differ")
    world.allow_left |= {"tmp", "store"}


@SANDBOXES
@pytest.mark.parametrize("differs", [True, False])
def test_a_check_killed_at_any_moment_after_its_build_leaves_the_registered_output(world, sandbox, differs):
    """While it scans, compares, moves what differs to `.check`, or removes what repeats."""
    noise = Noise(world, sandbox)
    noise.set("data", "one")
    expression = noise.shell("mkdir $out; head -c 50000000 /dev/zero > $out/large; cat $noise/data >> $out/large\n"
                             "for i in $(seq 300); do echo $i > $out/$i; done; echo made >&2")
    file = world.nix(expression)
    out = world.output(expression)
    look = lambda: {name: (os.lstat(out / name).st_ino, os.lstat(out / name).st_size) for name in [".", *os.listdir(out)]}  # noqa: E731
    before = look()
    if differs:
        noise.set("data", "two")

    def check_until_made():
        client = world.popen(["nix-build", "--no-out-link", file, "--check", "-K"])
        for line in client.stderr:
            if b"made" in line:
                return client
        raise AssertionError("the builder said nothing")

    client = check_until_made()
    started = time.monotonic()
    world.finish(client)
    whole = time.monotonic() - started
    assert (client.returncode == 0) != differs
    rounds, interrupted = 8, 0
    for i in range(rounds):
        client = check_until_made()
        time.sleep(whole * i / rounds)  # where it is by then is what varies
        for process in machine.descendants(of=world.daemon.pid):
            if process.parent == world.daemon.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
        message = world.finish(client)[1].decode()
        interrupted += client.returncode != 0 and "deterministic" not in message
        assert world.wait_for_quiet(10) == [] and look() == before
    assert interrupted
    world.verify()
    # And what was left is in nobody's way.
    result = world.build(expression, "--check")
    if differs:
        result.fails().says("large: contents differ (3 bytes, the first at offset 50000000)")
    else:
        result.ok()
    world.allow_left |= {"tmp", "store"}


def test_a_killed_hook_leaves_the_registered_output(world):
    expression, out, _ = hook(world, "echo hanging; sleep 4410")
    client = world.popen(["nix-build", "--no-out-link", "--check", world.nix(expression)])
    for line in client.stderr:
        if b"hanging" in line:
            break
    kill_the_daemon(world, client)
    assert open(f"{out}/data").read() == "one"
    # What is left is garbage to a stock collection.
    assert [name for name in world.stray_names() if name.endswith(".check")]
    world.direct("nix-store", "--gc").ok()
    assert not [name for name in os.listdir(world.store) if name.endswith(".check")]
    world.allow_left |= {"tmp", "store"}


# --- what is removed when the client has its answer


MANY_FILES = """
mkdir $out; i=0
while [ $i -lt %d ]; do mkdir $out/$i; j=0; while [ $j -lt 100 ]; do echo $i $j > $out/$i/$j; j=$((j+1)); done; i=$((i+1)); done
"""


def many_files(directories=5):
    return f"sh \"many\" ''{MANY_FILES % directories}'' {{}}"


@pytest.mark.every_client
@SANDBOXES
def test_nothing_is_left_of_a_check_of_many_files_when_its_connection_has_ended(world, sandbox):
    world.conf["sandbox"] = sandbox
    expression = many_files()
    out = world.output(expression)
    assert world.output(expression, "--check") == out
    assert world.wait_for_quiet() == []
    assert world.stray_names() == [] and os.listdir(world.state / "temproots") == []
    assert "warning" not in world.log_file.read_text()


@SANDBOXES
def test_the_next_check_of_many_files_need_not_wait_for_what_the_last_one_leaves(world, sandbox):
    world.conf["sandbox"] = sandbox
    expression = many_files()
    drv, = world.instantiate(expression)
    out = world.run("nix-store", "--realise", drv).ok().path
    check = (protocol.number(9), protocol.texts([f"{drv}!out"]), protocol.number(2))
    with protocol.Connection(world, timeout=60) as connection:
        for _ in range(3):
            connection.send(b"".join(check))
            connection.answer()
            assert connection.number() == 1
    for _ in range(3):
        assert world.run("nix-store", "--realise", "--check", drv).ok().path == out
    world.run("nix-store", "--realise", "--check", drv, "--option", "check-repeat", "2").ok()
    assert world.wait_for_quiet() == [] and world.stray_names() == []


def removed_names(world):
    return [name for name in os.listdir(world.store) if name.endswith("-firn-removed.drv.chroot")]


def has_database_open(pid):
    """Throws for a process that has ended."""
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            if "/db/" in os.readlink(f"/proc/{pid}/fd/{fd}"):
                return True
        except FileNotFoundError:
            pass  # closed meanwhile
    return False


def stop_in_mid_removal(world, expression):
    """Checks, and stops the connection's process once it has given its store back and while it still removes; returns its pid."""
    for _ in range(20):
        world.build(expression, "--check").ok()
        for process in machine.descendants(of=world.daemon.pid):
            try:
                assert machine.wait_until(lambda: not has_database_open(process.pid), step=0), "the store is kept open"
                os.kill(process.pid, signal.SIGSTOP)
            except OSError:
                continue  # it has ended
            if removed_names(world):
                return process.pid
            os.kill(process.pid, signal.SIGCONT)
        assert world.wait_for_quiet() == []
    raise AssertionError("what twenty checks have made was removed before anybody could look")


@SANDBOXES
def test_a_kill_in_the_middle_of_the_removal_leaves_what_is_registered_and_the_rest_is_swept(world, sandbox):
    world.conf["sandbox"] = sandbox
    expression = many_files(50)
    out = world.output(expression)
    before = (os.stat(out).st_ino, os.stat(out / "49/99").st_ino)
    pid = stop_in_mid_removal(world, expression)
    # The locks are free, and nothing is in the way.
    world.build(expression, "--check").ok()
    os.kill(pid, signal.SIGKILL)
    assert world.wait_for_quiet() == []
    assert len(removed_names(world)) == 1
    world.restart()
    assert machine.wait_until(lambda: not removed_names(world)), removed_names(world)
    assert (os.stat(out).st_ino, os.stat(out / "49/99").st_ino) == before


def test_collections_in_the_middle_of_the_removal(world):
    expression = many_files(50)
    out = world.output(expression)
    pid = stop_in_mid_removal(world, expression)
    world.direct("nix-store", "--gc").ok()
    # The connection's roots have ended with it.
    assert not world.is_valid(out)
    world.run("nix-store", "--gc").ok()
    left = removed_names(world)
    os.kill(pid, signal.SIGCONT)
    assert len(left) == 1, "what is being removed is not for a collection"
    assert world.wait_for_quiet() == [] and world.stray_names() == []


@pytest.mark.every_client
@SANDBOXES
def test_clients_that_check_and_build_the_same_derivation_at_once(world, sandbox):
    noise = Noise(world, sandbox)
    noise.set("data", "one")
    expression = noise.shell("sleep 0.5; mkdir $out; cp $noise/data $out/data")
    file = world.nix(expression)
    out = world.run("nix-build", "--no-out-link", file).ok().path
    at_once = [("--check",), ("--check",), (), ("--check",)]

    def all_at_once():
        # Every other one is the next version's.
        turn = world.clients.index(world.client)
        clients = [world.popen(["nix-build", "--no-out-link", file, *args], client=world.clients[(turn + i) % len(world.clients)])
                   for i, args in enumerate(at_once)]
        messages = [world.finish(client)[1].decode() for client in clients]
        return [client.returncode for client in clients], messages

    statuses, messages = all_at_once()
    assert statuses == [0] * 4, messages
    noise.set("data", "two")
    statuses, messages = all_at_once()
    assert [status == 0 for status in statuses] == [False, False, True, False], messages
    assert all("data: contents differ" in message for message, args in zip(messages, at_once) if args), messages
    assert open(f"{out}/data").read() == "one" and world.stray_names() == []


def test_names_that_collide_after_the_rewrite_are_refused(world):
    noise = Noise(world, "false")
    noise.set("data", "x")
    expression = noise.shell("mkdir $out; echo 1 > $out/$(basename $out | cut -c1-32); echo 2 > $out/$(cat $noise/data)")
    out = world.output(expression)
    noise.set("data", out.name[:32])
    world.build(expression, "--check").fails().says("two entries of ")
    assert (out / "x").read_text() == "2\n" and world.stray_names() == []


@pytest.mark.every_client
@SANDBOXES
def test_what_a_build_makes_of_its_path_but_the_path_itself_differs_where_it_is_built_at_another(world, sandbox):
    """Half a hash and a compressed path cannot be rewritten. With a sandbox nothing has to be."""
    noise = Noise(world, sandbox)
    expression = noise.shell("mkdir $out; basename $out | cut -c1-16 > $out/half; echo $out | gzip -n > $out/packed.gz; echo $out > $out/whole")
    world.build(expression).ok()
    result = world.build(expression, "--check")
    if sandbox == "true":
        result.ok()
        return
    result.fails().says("2 with other contents", "  half: contents differ", "  packed.gz: contents differ")
    assert "whole" not in result.err


# --- content-addressed outputs


FLOATING = '{ __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; outputs = [ "out" "dev" ]; }'


@pytest.fixture
def ca(world):
    world.conf["experimental-features"] = world.client_conf["experimental-features"] = "nix-command ca-derivations"
    return world


@pytest.mark.every_client
@SANDBOXES
def test_a_floating_output_is_compared_at_the_path_that_is_recorded(ca, sandbox):
    """So its own path, which stands everywhere in it, is no difference, nor is it in the output that refers to it."""
    noise = Noise(ca, sandbox)
    noise.set("data", "one")
    expression = noise.shell("mkdir $out; echo $out > $out/self; ln -s $out/self $out/link; cp $noise/data $out/a; echo $out > $dev", attrs=FLOATING)
    out, dev = ca.build(f"let d = {expression}; in [ d.out d.dev ]").ok().lines
    ca.build(expression, "--check").ok()
    noise.set("data", "two")
    result = check_of(ca, expression, "-K")
    result.says(f"output 'out' ('{out}'): 1 with other contents", "  a: contents differ", f"differs from '{out}.check'")
    assert "self" not in result.err and "link" not in result.err
    verdicts = {name: output["verdict"] for name, output in report(ca, drv_of(result))["outputs"].items()}
    assert verdicts == {"out": "differs", "dev": "same"}
    assert open(f"{out}.check/self").read() == f"{out}\n" and open(f"{out}.check/a").read() == "two"
    assert open(f"{out}/a").read() == "one" and set(ca.stray_names()) == {os.path.basename(out) + ".check"}
    ca.allow_left |= {"store", "tmp"}


@pytest.mark.every_client
def test_a_damaged_floating_output_is_repaired(ca):
    expression = f'sh "a" "mkdir $out; echo $out > $out/self; echo $out > $dev" {FLOATING}'
    out, dev = ca.build(f"let d = {expression}; in [ d.out d.dev ]").ok().lines
    file = os.path.join(out, "self")
    os.chmod(file, 0o644)
    with open(file, "a") as damaged:
        damaged.write("damage")
    os.chmod(file, 0o444)
    assert set(ca.build(f"let d = {expression}; in [ d.out d.dev ]", "--repair").ok().lines) == {out, dev}
    assert open(file).read() == f"{out}\n"
    ca.verify()


@pytest.mark.every_client
@pytest.mark.parametrize("resolved", [False, True])
def test_a_repair_that_does_not_repeat_fails_and_says_what_stays_damaged(ca, resolved):
    noise = Noise(ca, "true")
    noise.set("data", "one")
    single = '{ __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; }'
    script = "mkdir $out; cp $noise/data $out/data"
    expression = noise.shell(script, attrs=single)
    if resolved:
        expression = f"""let a = sh "a" "echo > $out" {single}; in {noise.shell(f': ${{a}}; {script}', attrs=single)}"""
        (noise.path / "script").write_text(script)
    drv, = ca.instantiate(expression)
    out = ca.output(expression)
    damage(out / "data", "damage")
    noise.set("data", "two")
    result = ca.build(expression, "--repair").fails().says(f"cannot repair '{out}': derivation '")
    assert f"'{out}' stays damaged" in result.err and "known to be" not in result.err
    other, = re.findall(r"came out with other contents, at '(\S+)'", result.err)
    assert other != str(out) and open(f"{other}/data").read() == "two" and (out / "data").read_text() == "damage"
    # What is said helps.
    ca.run("nix-store", "--delete", out).ok()
    assert ca.build(expression).ok().path == other


# --- why paths are rewritten


@pytest.mark.every_client
@pytest.mark.parametrize("command", ["nix-build", "nix build"])
def test_a_build_that_has_to_rewrite_says_why(world, command):
    world.conf["sandbox"] = "false"
    expression = 'sh "two" "echo $doc > $out; echo > $doc" { outputs = [ "out" "doc" ]; }'
    file = world.nix(f"({expression}).out")
    arguments = ["nix-build", "--no-out-link", file] if command == "nix-build" else ["nix", "build", "--no-link", "-f", file]
    first = world.run(*arguments).ok()
    assert "rewritten" not in first.err
    out = world.run("nix-build", "--no-out-link", file).ok().path
    world.run("nix-store", "--delete", out).ok()
    result = world.run(*arguments).ok()
    line, = [line for line in result.err.splitlines() if "rewritten" in line]
    assert re.fullmatch(r"note: '\S+-two\.drv' is built without a sandbox, and of its outputs '\S+-two-doc' is in the store already: "
                        "what is there is built at another path, which is rewritten to the real one in all outputs", line), result
    # Who wonders later finds it.
    drv = re.search(r"'(\S+\.drv)'", line)[1]
    assert line in world.run("nix-store", "--read-log", drv).ok().out.splitlines()


def test_a_sandboxed_build_rewrites_nothing(world):
    expression = 'sh "two" "echo $doc > $out; echo > $doc" { outputs = [ "out" "doc" ]; }'
    out = world.build(f"({expression}).out").ok().path
    world.run("nix-store", "--delete", out).ok()
    assert "rewritten" not in world.build(expression).ok().err
    assert "rewritten" not in world.build(expression, "--check").ok().err
