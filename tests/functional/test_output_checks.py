"""What a derivation says its outputs may refer to and how large they may be, with and without structured attributes."""

import pytest

import world as worlds

pytestmark = [pytest.mark.every_client, pytest.mark.stock_leaves("store")]

FORBIDDEN = "is not allowed to refer to the following paths"

# `low` is referred to by `high`; `self` names itself.
INPUTS = """low = sh "low" "echo low > $out" {}; high = sh "high" "echo ${low} > $out" {};"""


def plain(script, attrs):
    return f'let {INPUTS} in sh "checked" "{script}" {{ {attrs} }}'


def structured(script, attrs, outputs='[ "out" ]'):
    return f"""let {INPUTS} in derivation {{ name = "checked"; inherit system; builder = "/bin/bash"; __structuredAttrs = true; outputs = {outputs};
        args = [ "-euc" ". .attrs.sh; export PATH=/usr/bin:/bin; for name in \\${{!outputs[@]}}; do declare \\$name=\\${{outputs[\\$name]}}; done; {script}" ];
        {attrs} }}"""


SANDBOXED = pytest.mark.parametrize("with_bash", ["true"], ids=["sandboxed"], indirect=True)


@pytest.fixture
def with_bash(request, world):
    """What structured attributes want."""
    world.conf["sandbox"] = getattr(request, "param", "false")
    world.conf["sandbox-paths"] = worlds.HOST_TOOLS
    return world


def refused(world, expression, *paths):
    result = world.build(expression).fails()
    if paths:
        result.says(FORBIDDEN, *paths)
    assert "-checked" not in " ".join(world.valid_paths() - {path for path in world.valid_paths() if path.endswith(".drv")})
    return result


def path_of(world, name):
    return world.build(f"let {INPUTS} in {name}").ok().path


# Attribute, what is refused (as the message names it), and one that is accepted; the builder refers to `high` and itself.
CASES = {
    "allowed references": ("allowedReferences = [ low ];", ["high"], 'allowedReferences = [ high "out" ];'),
    "allowed references without itself": ("allowedReferences = [ high ];", ["checked"], 'allowedReferences = [ high "out" ];'),
    "disallowed references": ("disallowedReferences = [ high ];", ["high"], "disallowedReferences = [ low ];"),
    "disallowed reference to itself": ('disallowedReferences = [ "out" ];', ["checked"], "disallowedReferences = [ low ];"),
    "allowed requisites": ("allowedRequisites = [ high ];", ["low"], "allowedRequisites = [ high low SELF ];"),
    "disallowed requisites": ("disallowedRequisites = [ low ];", ["low"], "disallowedRequisites = [ ];"),
}


@pytest.mark.parametrize("case", CASES)
def test_lists_hold_for_every_output(world, case):
    wrong, named, right = CASES[case]
    script = "echo ${high} $out > $out"
    refused(world, plain(script, wrong.replace("SELF", "")), *[f"-{name}" for name in named])
    world.build(plain(script, right.replace("SELF", ""))).ok()


FLOATING = '__contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256";'


@pytest.mark.firn_only("stock Nix has such an output registered before it refuses it")
@pytest.mark.parametrize("form, with_bash", [("plain", "true"), ("structured", "false")], ids=["plain-sandboxed", "structured-unsandboxed"],
                         indirect=["with_bash"])
@pytest.mark.parametrize("case", CASES)
def test_lists_hold_for_paths_that_follow_from_contents(with_bash, case, form):
    """Inputs and outputs are built at other paths than those that the lists mean in the end."""
    world = with_bash
    world.conf["experimental-features"] = world.client_conf["experimental-features"] = "nix-command ca-derivations"
    wrong, named, right = CASES[case]
    if form == "plain":
        script = "echo ${high} $out > $out"
        make = lambda text: plain(script, text.replace("SELF", "") + FLOATING)  # noqa: E731
    else:
        script = "echo ${high} \\$out > \\$out"
        make = lambda text: structured(script, f"outputChecks.out = {{ {text} }}; {FLOATING}".replace("SELF", '"out"'))  # noqa: E731
    floating = lambda text: make(text).replace(INPUTS, INPUTS.replace("{}", f"{{ {FLOATING} }}"))  # noqa: E731
    refused(world, floating(wrong), *[f"-{name}" for name in named])
    path = world.output(floating(right))
    assert str(path) in path.read_text() and "-high" in path.read_text()


@SANDBOXED
@pytest.mark.parametrize("case", CASES)
def test_structured_lists_hold_for_their_output(with_bash, case):
    world = with_bash
    wrong, named, right = CASES[case]
    script = "echo ${high} $out > $out; echo ${high} $doc > $doc"
    script = script.replace("$out", "\\$out").replace("$doc", "\\$doc")
    outputs = '[ "out" "doc" ]'

    def checks(text, output="out"):
        return f"outputChecks.{output} = {{ {text.replace('SELF', chr(34) + output + chr(34))} }};"

    refused(world, structured(script, checks(wrong), outputs), *[f"-{name}" for name in named])
    refused(world, structured(script, checks(wrong.replace('"out"', '"doc"'), "doc"), outputs),
            *[f"-{name}" + ("-doc" if name == "checked" else "") for name in named])
    world.build(structured(script, checks(right), outputs)).ok()


def test_requisites_count_the_output_itself_with_structured_attributes_alone(with_bash):
    """As in every stock version."""
    world = with_bash
    world.build(plain("echo ${high} $out > $out", "allowedRequisites = [ high low ];")).ok()
    script = "echo ${high} \\$out > \\$out"
    world.build(structured(script, "outputChecks.out.allowedRequisites = [ high low ];")).fails().says(FORBIDDEN, "-checked")
    world.build(structured(script, 'outputChecks.out.allowedRequisites = [ high low "out" ];')).ok()


def test_requisites_are_those_of_the_other_outputs_too(world):
    expression = f"""let {INPUTS} in sh "checked" "echo ${{high}} > $doc; echo $doc > $out" {{ outputs = [ "out" "doc" ]; %s }}"""
    refused(world, expression % "disallowedRequisites = [ low ];", "-low")
    refused(world, expression % 'allowedReferences = [ "doc" ];', "-high")
    world.build(expression % 'allowedReferences = [ "doc" high ];').ok()


def test_sizes_are_limited_per_output(with_bash):
    world = with_bash
    script = "head -c 1000 /dev/zero > \\$out; head -c 5000 /dev/zero > \\$doc"
    build = lambda attrs: structured(script, attrs, '[ "out" "doc" ]')  # noqa: E731
    # 112 bytes of an archive are not contents.
    refused(world, build("outputChecks.out.maxSize = 1111;")).says("is too large", "1112 bytes", "1111 bytes")
    refused(world, build("outputChecks.doc.maxSize = 1112;")).says("-checked-doc' is too large")
    world.build(build("outputChecks.out.maxSize = 1112; outputChecks.doc.maxSize = 5112;")).ok()


def test_closures_are_limited_with_all_they_contain(with_bash):
    world = with_bash
    sizes = [int(world.run("nix-store", "-q", "--size", path_of(world, name)).ok().path) for name in ("low", "high")]
    script = "echo ${high} > \\$out"
    own = 112 + (len(path_of(world, "high")) + 1 + 7) // 8 * 8
    limit = sum(sizes) + own
    refused(world, structured(script, f"outputChecks.out.maxClosureSize = {limit - 1};")).says("closure of path", "is too large", str(limit))
    world.build(structured(script, f"outputChecks.out.maxClosureSize = {limit};")).ok()


@pytest.mark.parametrize("attrs", ['allowedReferences = [ "nonsense" ];', "disallowedRequisites = [ ../x ];"])
def test_what_is_no_path_and_no_output_is_refused(world, attrs):
    result = world.build(plain("echo > $out", attrs.replace("../x", '"no/where"'))).fails()
    assert "illegal reference specifier" in result.err or "is not a valid output of this derivation" in result.err, result


@pytest.mark.firn_only("stock 2.8 does not know it; 2.34 does the same")
def test_references_are_discarded_where_the_output_asks_for_it(with_bash):
    world = with_bash
    script = "echo ${high} \\$out > \\$out; echo ${high} > \\$doc"
    out, doc = [path for path in world.build(f"""let d = {structured(script, "unsafeDiscardReferences.out = true;", '[ "out" "doc" ]')};
        in [ d.out d.doc ]""").ok().lines]
    assert world.run("nix-store", "-q", "--references", out).ok().lines == []
    assert world.run("nix-store", "-q", "--references", doc).ok().lines == [path_of(world, "high")]


@pytest.mark.firn_only("stock 2.8 does not know it; 2.34 does the same")
def test_discarded_references_are_not_checked(with_bash):
    world = with_bash
    script = "echo ${high} \\$out > \\$out"
    checks = "outputChecks.out = { allowedReferences = [ ]; disallowedRequisites = [ low ]; };"
    refused(world, structured(script, checks), "-high")
    world.build(structured(script, checks + "unsafeDiscardReferences.out = true;")).ok()


@pytest.mark.firn_only("stock versions take another value as false, or refuse it in other words")
@pytest.mark.parametrize("attrs, name", [("outputChecks.out.maxSize = -1;", "outputChecks.out.maxSize"),
                                         ('outputChecks.out.allowedReferences = "x";', "outputChecks.out.allowedReferences"),
                                         ('unsafeDiscardReferences.out = "yes";', "unsafeDiscardReferences.out")])
def test_a_check_of_the_wrong_type_is_refused_by_name(with_bash, attrs, name):
    with_bash.build(structured("echo > \\$out", attrs)).fails().says(name)


@pytest.mark.firn_only("stock 2.8 leaves the output")
def test_a_check_mode_build_is_held_to_them_too(world):
    noise = world.root / "noise"
    noise.write_text("one")
    world.conf["sandbox"] = "false"
    expression = plain(f"cat {noise} > $out", "inherit low; disallowedReferences = [ low ];")
    world.build(expression).ok()
    noise.write_text(path_of(world, "low"))
    world.build(expression, "--check").fails().says(FORBIDDEN)
