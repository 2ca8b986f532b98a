"""Checks of derivations of every kind: each is compared, told of, kept and given to the hook in the same way.

Builders copy a file from outside of the store, "noise", and repeat as long as that stays the same.
"""

import base64
import hashlib
import json
import os
import re

import protocol
import pytest
from test_check import SANDBOXES, Noise, report

pytestmark = pytest.mark.firn_only("stock daemons name one output and no file")

FEATURES = "nix-command ca-derivations impure-derivations"
NEWER = " dynamic-derivations git-hashing"
FLOATING = '__contentAddressed = true; outputHashAlgo = "sha256"; outputHashMode'
FILE = "cp $noise/data $out; chmod 644 $out"
TREE = "mkdir $out; cp $noise/data $out/file; chmod 644 $out/file"
URL = "https://example.org/some"
OUTPUT_REJECTED, NOT_DETERMINISTIC = 5, 12


def sri(digest, algorithm="sha256"):
    return f"{algorithm}-{base64.b64encode(digest).decode()}"


class Kind:
    """Where its file is in the output, and how a derivation of it is made of the attributes that every one has."""

    def __init__(self, make, file="", script=FILE):
        self.make, self.file, self.script = make, file, script

    def expression(self, world, noise):
        (noise.path / "script").write_text(self.script)
        return self.make(self, world, f'noise = "{noise.path}"')

    def hashes(self, world, data):
        """What a fixed output with that data has: none of another kind."""
        return None


class Fixed(Kind):
    def __init__(self, mode, digest, algorithm="sha256", **options):
        super().__init__(self.make_fixed, **options)
        self.mode, self.digest, self.algorithm = mode, digest, algorithm

    def make_fixed(self, _, world, noise):
        attributes = f'{noise}; url = "{URL}"; outputHashAlgo = "{self.algorithm}";'
        return f'fixed "kind" "{self.mode}" "{self.digest(world, b"one").hex()}" ". $noise/script" {{ {attributes} }}'

    def hashes(self, world, data):
        return sri(self.digest(world, b"one"), self.algorithm), sri(self.digest(world, data), self.algorithm)


def plain(attributes):
    return lambda kind, world, noise: f'sh "kind" ". $noise/script" {{ {noise}; {attributes} }}'


def on_top_of(input, use):
    return lambda kind, world, noise: f'let {input} in sh "kind" ": {use}; . $noise/script" {{ {noise}; }}'


def archive_hash(world, data):
    """Stock Nix's, of a folder as TREE makes it."""
    folder = world.root / f"hashed-{data.decode()}"
    folder.mkdir(exist_ok=True)
    (folder / "file").write_bytes(data)
    return bytes.fromhex(world.direct("nix-hash", "--type", "sha256", folder).ok().path)


def flat_hash(world, data):
    return hashlib.sha256(data).digest()


def git_hash(world, data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).digest()


MADE = """inner = sh "inner" "echo inner > $out" {};
  making = sh "inner.drv" "cp $src $out" { src = builtins.unsafeDiscardOutputDependency inner.drvPath;
    __contentAddressed = true; outputHashMode = "text"; outputHashAlgo = "sha256"; };"""
KINDS = {
    "input-addressed": Kind(plain(""), "file", TREE),
    "fixed flat": Fixed("flat", flat_hash),
    "fixed recursive": Fixed("recursive", archive_hash, file="file", script=TREE),
    "floating recursive": Kind(plain(f'{FLOATING} = "recursive";'), "file", TREE + "; ln -s $out/file $out/link"),
    "floating flat": Kind(plain(f'{FLOATING} = "flat";')),
    "deferred": Kind(on_top_of(f'a = sh "a" "echo a > $out" {{ {FLOATING} = "recursive"; }};', "${a}"), "file", TREE),
}
NEWER_KINDS = {
    "fixed text": Fixed("text", flat_hash),
    "fixed git": Fixed("git", git_hash, "sha1"),
    "dynamic": Kind(on_top_of(MADE, '${builtins.outputOf making.outPath "out"}'), "file", TREE),
}


def of_every(kinds):
    return pytest.mark.parametrize("kind", kinds.values(), ids=[name.replace(" ", "_") for name in kinds])


def prepared(world, kind, sandbox):
    """The noise and a file with the expression."""
    features = FEATURES + (NEWER if world.client.number >= (2, 30) else "")
    world.conf["experimental-features"] = world.client_conf["experimental-features"] = features
    world.verifier = world.client  # an older one cannot read every address
    noise = Noise(world, sandbox)
    noise.set("data", "one")
    noise.set("hook", '#!/bin/sh\necho "hook: $# $(id -u) $1 $2 $3 $(test -d "$4" && echo folder)"\n')
    world.conf |= {"diff-hook": noise.path / "hook", "run-diff-hook": "true"}
    return noise, world.nix(kind.expression(world, noise))


def only_report(world):
    file, = world.logs.glob("drvs/*/*.check.json")
    return json.loads(file.read_text())


@pytest.mark.every_client
@SANDBOXES
@of_every(KINDS)
def test_a_check_of_every_kind_tells_what_differs(world, kind, sandbox):
    expect_a_check_that_tells(world, kind, sandbox)


@pytest.mark.needs_client("2.30")
@SANDBOXES
@of_every(NEWER_KINDS)
def test_a_check_of_every_newer_kind_tells_what_differs(world, kind, sandbox):
    expect_a_check_that_tells(world, kind, sandbox)


def expect_a_check_that_tells(world, kind, sandbox):
    """By every command that a user has for it."""
    noise, file = prepared(world, kind, sandbox)
    commands = [["nix-build", "--no-out-link", file, "--check"], ["nix", "build", "--no-link", "-f", file, "--rebuild"]]
    out = world.run("nix-build", "--no-out-link", file).ok().path
    for command in commands:
        result = world.run(*command).ok()
        assert "hook:" not in result.err
        found = only_report(world)
        assert found["deterministic"] is True and found["outputs"]["out"]["verdict"] == "same" and "refused" not in found
    noise.set("data", "onE!")
    drv, shown = found["derivation"], f"{kind.file}: contents differ" if kind.file else "contents differ"
    for command, keep in [(commands[0], False), (commands[1], False), (commands[0], True), (commands[1], True)]:
        result = world.run(*command, *(["--keep-failed"] if keep else [])).fails()
        assert len(result.errors) == 1, result
        result.says(f"derivation '{drv}' may not be deterministic: output '{out}' differs" + (f" from '{out}.check'" if keep else "\n"),
                    f"output 'out' ('{out}'): 1 with other contents\n",
                    f"  {shown} (2 bytes, the first at offset 2; 3 bytes long, now 4)\n")
        hashes = kind.hashes(world, b"onE!")
        if hashes:
            result.says(f"error: hash mismatch in fixed-output derivation '{drv}':", f"likely URL: {URL}\n",
                        f"specified: {hashes[0]}\n", f"got:    {hashes[1]}\n")
        found = only_report(world)
        output = found["outputs"]["out"]
        assert found["deterministic"] is False and found["derivation"] == drv and output["verdict"] == "differs" and output["path"] == out
        assert ("refused" in found) == bool(hashes) and output["narHash"]["registered"] != output["narHash"]["built"]
        difference, = output["differences"]
        assert difference == {"path": kind.file, "kind": "contents", "registeredSize": 3, "builtSize": 4, "firstOffset": 2,
                              "differingBytes": 2, "countsAsEqual": False}
        user, = re.findall(rf"hook: 4 (\d+) {out} {out}\.check {drv} folder$", result.err, re.MULTILINE)
        kept = [os.path.basename(out) + ".check"] if keep else []
        assert world.stray_names() == kept and output.get("kept") == (f"{out}.check" if keep else None)
        for name in kept:
            assert (world.store / name / kind.file).read_text() == "onE!"
    assert (world.store / os.path.basename(out) / kind.file).read_text() == "one"
    world.allow_left |= {"store", "tmp"}


# --- impure derivations


@pytest.mark.needs_client("2.30")
@SANDBOXES
def test_an_impure_derivation_has_nothing_to_compare_with(world, sandbox):
    noise, file = prepared(world, Kind(plain('__impure = true; outputHashMode = "recursive"; outputHashAlgo = "sha256";'), script="echo built >&2; " + FILE), sandbox)
    world.run("nix", "build", "--no-link", "-f", file).ok()
    for command in (["nix-build", "--no-out-link", file, "--check"], ["nix", "build", "--no-link", "-f", file, "--rebuild"]):
        result = world.run(*command).fails().says("-kind.drv' are not valid, so checking is not possible: the derivation is impure")
        assert "built" not in result.err.replace("will be built", "") and len(result.errors) == 1
    assert not list(world.logs.glob("drvs/*/*.check.json"))


@pytest.mark.needs_client("2.30")
@SANDBOXES
def test_a_fixed_output_made_from_impure_ones_is_compared(world, sandbox):
    impure = 'i = sh "i" "cat /proc/sys/kernel/random/uuid > $out" { __impure = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; };'
    noise, _ = prepared(world, KINDS["fixed flat"], sandbox)
    file = world.nix(f"let {impure} in " + KINDS["fixed flat"].expression(world, noise).replace(". $noise", ": ${i}; . $noise"))
    world.run("nix", "build", "--no-link", "-f", file).ok()
    world.run("nix-build", "--no-out-link", file, "--check").ok()
    noise.set("data", "onE")
    world.run("nix-build", "--no-out-link", file, "--check").fails().says("hash mismatch in ", "  contents differ (1 byte, the first at offset 2)")


# --- what may not be an output is compared first


def status_of_check(world, drv):
    """What a newer client is told beside the message."""
    with protocol.Connection(world) as connection:
        connection.request(protocol.BUILD_PATHS_WITH_RESULTS, protocol.texts([f"{drv}!out"]), protocol.number(2))
        assert connection.number() == 1
        connection.text()
        return connection.number()


def test_a_fixed_output_with_another_hash_has_the_status_of_that(world):
    noise, file = prepared(world, KINDS["fixed flat"], "true")
    world.run("nix-build", "--no-out-link", file).ok()
    noise.set("data", "two")
    world.run("nix-build", "--no-out-link", file, "--check").fails().says(
        "error: hash mismatch in fixed-output derivation '", "likely URL: ", "  contents differ (3 bytes, the first at offset 0)")
    assert status_of_check(world, only_report(world)["derivation"]) == OUTPUT_REJECTED


def test_a_fixed_output_that_becomes_executable_is_told_to(world):
    noise, file = prepared(world, KINDS["fixed flat"], "true")
    world.run("nix-build", "--no-out-link", file).ok()
    noise.set("script", "cp $noise/data $out; chmod 755 $out")
    world.run("nix-build", "--no-out-link", file, "--check").fails().says(
        "should be a non-executable regular file", ": 1 with another mode\n", "  not executable, now it is\n")


@SANDBOXES
@pytest.mark.parametrize("fixed", [True, False])
def test_references_that_are_not_allowed_are_told_beside_what_differs(world, sandbox, fixed):
    noise = Noise(world, sandbox)
    noise.set("data", "one")
    a = 'a = sh "a" "echo > $out" {};'
    attrs = "{ inherit a; disallowedReferences = [ a ]; }"
    expression = f"let {a} in " + noise.shell("cat $noise/data > $out", attrs=attrs)
    if fixed:
        expression = expression.replace("disallowedReferences = [ a ]", f"""outputHashMode = "flat"; outputHash = "{sri(flat_hash(world, b'one'))}" """)
    out = world.output(expression)
    drv, = world.instantiate(expression)
    noise.set("script", "echo $a > $out")
    result = world.build(expression, "--check").fails().says(
        f"derivation '{drv}' may not be deterministic: output '{out}' differs", "contents differ (", "the first at offset 0", "3 bytes long, now ",
        "is not allowed to refer to ")
    assert len(result.errors) == 1
    found = report(world, drv)
    assert found["deterministic"] is False and "is not allowed to refer to " in found["refused"]
    assert status_of_check(world, drv) == (OUTPUT_REJECTED if fixed else NOT_DETERMINISTIC)


def test_what_is_refused_but_repeats_is_told_to_be_refused(world):
    """As what was imported may be, which nobody has held against the derivation."""
    expression = """let a = sh "a" "echo > $out" {}; in sh "refers" "echo -n $a > $out" { inherit a; disallowedReferences = [ a ]; }"""
    drv, = world.instantiate(expression)
    out = world.run("nix-store", "--query", "--outputs", drv).ok().path
    a = world.build('sh "a" "echo > $out" {}').ok().path
    with protocol.Connection(world) as connection:
        connection.add_nar(out, protocol.nar(protocol.regular(a.encode())), references=[a])
    refused = f"output '{out}' is not allowed to refer to the following paths:"
    result = world.build(expression, "--check", "-K").fails().says(refused)
    assert "deterministic" not in result.err
    found = report(world, drv)
    assert found["deterministic"] is True and found["outputs"]["out"]["verdict"] == "same" and found["refused"].startswith(refused)
    assert status_of_check(world, drv) == OUTPUT_REJECTED
    # And damage is told as well.
    path = world.store / os.path.basename(out)
    path.chmod(0o644)
    path.write_text("damage")
    path.chmod(0o444)
    result = world.build(expression, "--check", "-K").fails().says(
        refused, "is damaged: what is in the store is not what was registered", "keeping build directory '")
    assert status_of_check(world, drv) == OUTPUT_REJECTED
    world.allow_left |= {"verify", "tmp"}
