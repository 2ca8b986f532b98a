"""Dynamic derivations: a derivation as the output of a derivation, built in turn.

Stock Nix 2.34 is the measure for paths and realisations; its daemon takes no derived path of more than two steps, and has no
answer for the cases that are marked firn_only.
"""

import hashlib
import json
import os
import re
from pathlib import Path

import protocol
import pytest
from test_content_addressed import CA, IMPURE, realisations, references

pytestmark = [pytest.mark.needs_client("2.30"),
              pytest.mark.skipif(os.environ.get("FIRN_TEST_DAEMON") == "stock", reason="stock 2.8 does not know them")]

OUT = "/1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9"  # stands for the output's path until that is known
TEXT = '__contentAddressed = true; outputHashMode = "text"; outputHashAlgo = "sha256";'
DEFINITIONS = f"""let
  copyOf = drv: sh "${{drv.name}}.drv" "cp $src $out" {{ src = builtins.unsafeDiscardOutputDependency drv.drvPath; {TEXT} }};
  inner = sh "inner" "echo inner > $out; echo lib > $lib" {{ outputs = [ "out" "lib" ]; }};
  making = copyOf inner;
  outer = copyOf making;
  of = builtins.outputOf;
  user = sh "user" "cat ${{of making.outPath "out"}} ${{of making.outPath "lib"}} > $out" {{}};
in """


@pytest.fixture
def dynamic(world):
    features = "nix-command ca-derivations impure-derivations dynamic-derivations"
    world.conf["experimental-features"] = world.client_conf["experimental-features"] = features
    return world


def drv_of(world, name):
    return world.instantiate(DEFINITIONS + name)[0]


def built(result):
    return [line for line in result.err.splitlines() if line.startswith("building '")]


@pytest.mark.parametrize("sandbox", ["true", "false"])
def test_what_is_made_is_built(dynamic, sandbox):
    dynamic.conf["sandbox"] = sandbox
    result = dynamic.build(DEFINITIONS + "user").ok()
    assert Path(result.path).read_text() == "inner\nlib\n"
    assert len(built(result)) == 3, result
    inner, lib = (path for path in sorted(dynamic.valid_paths(), reverse=True) if path.endswith(("-inner", "-inner-lib")))
    assert references(dynamic, result.path) == set()
    assert {inner, lib, result.path} <= {path for _, _, path in realisations(dynamic)}
    again = dynamic.build(DEFINITIONS + "user").ok()
    assert again.path == result.path and not built(again)


def test_through_more_than_one_derivation(dynamic):
    expression = DEFINITIONS + 'sh "far" "cat ${of (of outer.outPath "out") "lib"} > $out" {}'
    assert dynamic.text(expression) == "lib\n"


@pytest.mark.stock_leaves("store")
def test_a_fixed_text_may_be_a_derivation(dynamic):
    text = Path(drv_of(dynamic, "inner")).read_bytes()
    digest = hashlib.sha256(text).hexdigest()
    fixed = 'fixed "inner.drv" "text" "%s" "cp $src $out" { src = builtins.unsafeDiscardOutputDependency inner.drvPath; }' % digest
    user = DEFINITIONS + f'sh "u" "cat ${{of ({fixed}).outPath "out"}} > $out" '
    assert dynamic.text(user + CA) == "inner\n"
    # Here the evaluator gives it a path that its resolved form cannot have: stock Nix fails when that is known.
    dynamic.build(user + "{}").fails()


def test_a_fixed_text_needs_no_other_feature(dynamic):
    text = Path(drv_of(dynamic, "inner")).read_bytes()
    fixed = 'fixed "inner.drv" "text" "%s" "cp $src $out" { src = builtins.unsafeDiscardOutputDependency inner.drvPath; }' \
        % hashlib.sha256(text).hexdigest()
    dynamic.stop()
    features = "nix-command dynamic-derivations"
    dynamic.conf["experimental-features"] = dynamic.client_conf["experimental-features"] = features
    making = dynamic.instantiate(DEFINITIONS.replace(TEXT, "") + fixed)[0]
    path = dynamic.run("nix", "build", "--no-link", "--print-out-paths", f"{making}^out^out").ok().path
    assert Path(path).read_text() == "inner\n" and not realisations(dynamic)


@pytest.mark.firn_only("stock Nix does not find what was made")
def test_an_impure_derivation_may_make_one(dynamic):
    impure = '__impure = true; outputHashMode = "text"; outputHashAlgo = "sha256";'
    made = DEFINITIONS.replace(TEXT, impure)
    user = dynamic.nix(made + f'sh "user" "cat ${{of making.outPath "out"}} > $out" {IMPURE}')
    path = dynamic.run("nix", "build", "--no-link", "--print-out-paths", "-f", user).ok().path
    assert Path(path).read_text() == "inner\n"
    dynamic.build(made + "user").fails().says("depends on impure derivation")


def test_what_is_made_may_be_content_addressed(dynamic):
    expression = f'let inner = sh "inner" "echo ca > $out" {CA}; making = sh "inner.drv" "cp $src $out" ' \
        f'{{ src = builtins.unsafeDiscardOutputDependency inner.drvPath; {TEXT} }}; ' \
        f'in sh "user" "cat ${{builtins.outputOf making.outPath "out"}} > $out" {CA}'
    assert dynamic.text(expression) == "ca\n"


def test_derived_paths_name_what_is_made(dynamic):
    making = drv_of(dynamic, "making")
    command = ["nix", "build", "--no-link", "--print-out-paths"]
    assert Path(dynamic.run(*command, f"{making}^out^lib").ok().path).read_text() == "lib\n"
    both = dynamic.run(*command, f"{making}^out^*").ok().lines
    assert sorted(Path(path).read_text() for path in both) == ["inner\n", "lib\n"]
    told = dynamic.run("nix", "build", "--no-link", "--json", f"{making}^out^out").ok().json[0]
    assert told["drvPath"]["drvPath"] == making and told["drvPath"]["outputPath"].endswith("-inner.drv")
    assert told["outputs"]["out"] in both
    dynamic.run("nix", "build", "--no-link", "--rebuild", f"{making}^out^*").ok()


@pytest.mark.firn_only("stock Nix does not read such a path")
def test_derived_paths_of_more_steps(dynamic):
    outer = drv_of(dynamic, "outer")
    path = dynamic.run("nix", "build", "--no-link", "--print-out-paths", f"{outer}^out^out^lib").ok().path
    assert Path(path).read_text() == "lib\n"


@pytest.mark.firn_only("stock Nix leaves them out, with a warning")
def test_what_would_be_built_is_told_as_far_as_it_is_known(dynamic):
    user, making = drv_of(dynamic, "user"), drv_of(dynamic, "making")
    result = dynamic.build(DEFINITIONS + "user", "--dry-run").ok()
    assert user in result.err and making in result.err and "-inner.drv\n" not in result.err
    inner = dynamic.output(DEFINITIONS + "making")
    result = dynamic.build(DEFINITIONS + "user", "--dry-run").ok()
    assert user in result.err and making not in result.err and str(inner) in result.err
    dynamic.output(DEFINITIONS + "user")
    assert "will be built" not in dynamic.build(DEFINITIONS + "user", "--dry-run").ok().err


def test_the_same_derivation_made_another_way_rebuilds_nothing(dynamic):
    dynamic.output(DEFINITIONS + "user")
    result = dynamic.build(DEFINITIONS.replace('"cp $src $out"', '"cat $src > $out"') + "user").ok()
    assert len(built(result)) == 1 and "-inner.drv.drv'" in built(result)[0], result


def test_a_check_compares_what_it_resolves_to(dynamic):
    dynamic.output(DEFINITIONS + "user")
    dynamic.build(DEFINITIONS + "user", "--check").ok()


def test_the_same_paths_and_realisations_as_of_stock_nix(dynamic):
    """Builds once through the daemon and once with the client itself on the same, emptied store."""
    dynamic.conf["sandbox"] = "false"
    expression = dynamic.nix(DEFINITIONS + """
      [ user (sh "far" "cat ${inner.lib} ${of (of outer.outPath "out") "lib"} > $out" {}) ]""")
    lines = dynamic.run("nix-build", "--no-out-link", expression).ok().lines
    dynamic.stop()
    paths, known = dynamic.valid_paths(), realisations(dynamic)
    dynamic.direct("nix-collect-garbage", client=dynamic.client).ok()
    assert not dynamic.valid_paths()
    dynamic.conf["build-users-group"] = dynamic.conf["build-hook"] = ""
    assert dynamic.direct("nix-build", "--no-out-link", expression, client=dynamic.client).ok().lines == lines
    assert dynamic.valid_paths() == paths
    assert realisations(dynamic) == known


# --- what cannot be built


@pytest.mark.allow_left("store")
def test_an_output_that_is_no_derivation_is_refused(dynamic):
    bad = 'bad = sh "bad.drv" "echo no derivation > $out" { %s };' % TEXT
    result = dynamic.build(f'let {bad} in sh "user" "cat ${{builtins.outputOf bad.outPath "out"}} > $out" {{}}').fails()
    result.says("error parsing derivation", "-bad.drv'")
    assert not [path for path in dynamic.valid_paths() if path.endswith("-bad.drv")]


@pytest.mark.firn_only("stock Nix words them in its own way")
def test_what_has_the_wrong_name_is_refused(dynamic):
    plain = 'plain = sh "plain" "echo > $out" { %s };' % TEXT
    user = f'let {plain} in sh "user" "cat ${{builtins.outputOf plain.outPath "out"}} > $out" {{}}'
    dynamic.build(user).fails().says("-plain.drv^out'", "-plain', which is not a derivation", "1 dependency failed")
    drv = dynamic.instantiate(f"let {plain} in plain")[0]
    dynamic.run("nix", "build", "--no-link", f"{drv}^out^out").fails().says("which is not a derivation")


def test_an_output_that_what_is_made_does_not_have_is_refused(dynamic):
    user = DEFINITIONS + 'sh "user" "cat ${of making.outPath "none"} > $out" {}'
    dynamic.build(user).fails().says("-inner.drv' does not have", "'none'")
    making = drv_of(dynamic, "making")
    dynamic.run("nix", "build", "--no-link", f"{making}^none^out").fails().says("-inner.drv.drv' does not have", "'none'")
    dynamic.run("nix", "build", "--no-link", f"{making}^out^none").fails().says("-inner.drv' does not have", "'none'")


@pytest.mark.firn_only("stock Nix words it in its own way")
def test_a_derivation_that_cannot_be_made_is_told_of(dynamic):
    failing = 'failing = sh "failing.drv" "exit 3" { %s };' % TEXT
    user = f'let {failing} in sh "user" "cat ${{builtins.outputOf failing.outPath "out"}} > $out" {{}}'
    dynamic.build(user).fails().says("exit code 3", "cannot make a derivation: output 'out' of", "-failing.drv.drv'",
                                     "-user.drv'", "1 dependency failed")


@pytest.mark.firn_only("stock Nix builds with it, though it refuses impure inputs otherwise")
def test_an_impure_derivation_that_is_made_is_refused(dynamic):
    expression = f'let inner = sh "inner" "echo > $out" {IMPURE}; making = sh "inner.drv" "cp $src $out" ' \
        f'{{ src = builtins.unsafeDiscardOutputDependency inner.drvPath; {TEXT} }}; ' \
        'in sh "user" "cat ${builtins.outputOf making.outPath "out"} > $out" {}'
    dynamic.build(expression).fails().says("depends on impure derivation", "-inner.drv'")
    assert not [path for path in dynamic.valid_paths() if path.endswith("-user")]


@pytest.mark.firn_only("stock Nix waits for ever")
def test_a_derivation_that_was_made_for_another_may_not_need_it(dynamic):
    user = drv_of(dynamic, "user")
    masked = re.sub(r'\("out","/[^"]*"\)', '("out","")', Path(drv_of(dynamic, "making")).read_text())
    identity = f"sha256:{hashlib.sha256(masked.encode()).hexdigest()}!out"
    text = json.dumps({"id": identity, "outPath": Path(user).name, "signatures": [], "dependentRealisations": {}})
    with protocol.Connection(dynamic) as connection:
        connection.request(42, protocol.text(text))
    result = dynamic.build(DEFINITIONS + "user").fails()
    result.says("needs it in turn", f"which needs '{user}'")


@pytest.mark.firn_only("stock Nix dies of it")
def test_a_derivation_may_not_need_itself(dynamic):
    """Which it can where its own hash leaves its inputs out: the builder puts its own path in as an input."""
    digest = hashlib.sha256(b"never").hexdigest()
    fixed = dynamic.run("nix-store", "--print-fixed-path", "sha256", digest, "d").ok().path
    inner = f'Derive([("out","{fixed}","sha256","{digest}")],[("%s",["out"])],[],"x86_64-linux","/bin/sh",[],[("out","{fixed}")])'
    script = f"printf '{inner}' $out > $out".replace('"', '\\"')
    outer = 'Derive([("out","","r:sha256","")],[],[],"x86_64-linux","/bin/sh",["-c","%s"],[("out","%s")])' % (script, OUT)
    with protocol.Connection(dynamic) as connection:
        connection.request(protocol.ADD_TEXT_TO_STORE, protocol.text("d.drv.drv") + protocol.text(outer) + protocol.texts([]))
        drv = connection.text()
    made, = dynamic.run("nix", "build", "--no-link", "--print-out-paths", drv + "^out").ok().out.split()
    dynamic.run("nix-store", "-r", made).fails().says("needs it in turn", f"which needs '{made}'")


@pytest.mark.firn_only("stock Nix uses what the other one built")
def test_derivations_that_differ_in_what_is_made_alone_are_told_apart(dynamic):
    """Nix's identity of a realisation leaves dynamic inputs out, so both have the same."""
    two = DEFINITIONS + """let other = sh "other" "echo other > $out" {};
      quiet = made: sh "quiet" "echo > $out" { needs = builtins.substring 0 0 (of made.outPath "out"); }; in """
    first = dynamic.output(two + "quiet making")
    dynamic.build(two + 'quiet (copyOf other)').fails().says(f"is known to be '{first}'", f"nix-store --delete {first}")
    assert dynamic.output(two + "quiet making") == first
    dynamic.run("nix-store", "--delete", first).ok()
    assert dynamic.output(two + 'quiet (copyOf other)') != first


@pytest.mark.firn_only("its words are Firn's")
def test_chains_over_the_protocol_are_bounded(dynamic):
    making = drv_of(dynamic, "making")
    with protocol.Connection(dynamic) as connection:
        with pytest.raises(protocol.DaemonError, match="nested more than 32 deep"):
            connection.request(protocol.BUILD_PATHS, protocol.texts([making + 40 * "!out"]) + protocol.number(0))
        connection.request(protocol.BUILD_PATHS, protocol.texts([making + "!out!lib"]) + protocol.number(0))
        assert connection.number() == 1
    assert [path for path in dynamic.valid_paths() if path.endswith("-inner-lib")]


@pytest.mark.stock_leaves("store")
def test_without_the_feature_the_daemon_refuses(dynamic):
    making = drv_of(dynamic, "making")
    dynamic.stop()
    dynamic.conf["experimental-features"] = "nix-command ca-derivations"
    with protocol.Connection(dynamic) as connection, pytest.raises(protocol.DaemonError, match="dynamic-derivations"):
        connection.request(protocol.BUILD_PATHS, protocol.texts([making + "!out!out"]) + protocol.number(0))
