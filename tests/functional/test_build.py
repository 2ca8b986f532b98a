"""Building input-addressed derivations: outputs, references, logs, the builder's environment."""

import bz2
import json
import os
import re
import shutil
from pathlib import Path

import pytest

HELLO = 'sh "hello" "echo hello > $out" {}'
TWO = 'sh "two" "mkdir $out $doc; echo see $doc > $out/a; echo text > $doc/b" { outputs = [ "out" "doc" ]; }'


@pytest.mark.every_client
def test_nix_build_builds_one_output(world):
    path = world.output(HELLO)
    assert path.read_text() == "hello\n"
    assert world.is_valid(path)


@pytest.mark.every_client
def test_nix_build_of_all_outputs_registers_each_with_its_references(world):
    result = world.build(f"let d = {TWO}; in [ d.out d.doc ]").ok()
    out, doc = result.lines
    assert out.endswith("-two") and doc.endswith("-two-doc")
    assert world.run("nix-store", "-q", "--references", out).ok().lines == [doc]
    assert world.run("nix-store", "-q", "--references", doc).ok().lines == []


@pytest.mark.every_client
def test_nix_build_command_prints_the_output(world):
    result = world.run("nix", "build", "-f", world.nix(HELLO), "--no-link", "--print-out-paths") \
        if world.client.number > (2, 8) else world.run("nix", "build", "-f", world.nix(HELLO), "--no-link", "--json")
    path = result.ok().path if world.client.number > (2, 8) else result.ok().json[0]["outputs"]["out"]
    assert open(path).read() == "hello\n"


@pytest.mark.every_client
def test_result_links_become_indirect_roots(world):
    path = world.run("nix-build", world.nix(HELLO), "-o", world.root / "result").ok().path
    assert os.readlink(world.root / "result") == path
    auto = list((world.state / "gcroots/auto").iterdir())
    assert [os.readlink(link) for link in auto] == [str(world.root / "result")]


@pytest.mark.every_client
def test_realise_builds_a_derivation(world):
    drv, = world.instantiate(HELLO)
    assert not world.is_valid(world.run("nix-store", "-q", "--outputs", drv).ok().path)
    path = world.run("nix-store", "-r", drv).ok().path
    assert open(path).read() == "hello\n"


@pytest.mark.every_client
def test_a_chain_of_derivations_is_built_in_order(world):
    expression = """
      let a = sh "a" "echo a > $out" {};
          b = sh "b" "cat ${a} > $out; echo b >> $out; echo ${a} >> $out" {};
          c = sh "c" "cat ${a} ${b} > $out" {};
      in c"""
    path = world.output(expression)
    assert path.read_text().startswith("a\na\nb\n")
    requisites = world.run("nix-store", "-q", "--requisites", path).ok().lines
    assert requisites[-1] == str(path) and requisites[0].endswith("-a")


def test_what_is_valid_is_not_built_again(world):
    world.output(HELLO)
    assert "building" not in world.build(HELLO).ok().err


def test_many_independent_derivations_are_built_in_parallel(world):
    """Each of the two waits for the other one's socket, so both must run at once."""
    world.conf["sandbox"] = "false"
    shared = world.root / "meet"
    shared.mkdir()
    shared.chmod(0o777)
    script = "touch ${meet}/$me; i=0; until test -e ${meet}/$other; do sleep 0.05; i=$((i+1)); test $i -lt 200; done; echo > $out"
    expression = f"""let meet = "{shared}"; f = me: other: sh me "{script}" {{ inherit me other; }}; in [ (f "x" "y") (f "y" "x") ]"""
    world.build(expression, "--max-jobs", "2").ok()


def test_outputs_are_canonical(world):
    """Modes 444 and 555, time 1, owner the store's."""
    path = world.output('sh "modes" "mkdir -p $out/d; echo > $out/f; echo > $out/x; chmod 751 $out/x; chmod 600 $out/f; ln -s f $out/l" {}')
    modes = {name: oct(os.lstat(path / name).st_mode & 0o7777) for name in ("d", "f", "x")}
    assert modes == {"d": "0o555", "f": "0o444", "x": "0o555"}
    for name in (".", "d", "f", "x", "l"):
        status = os.lstat(path / name)
        assert (status.st_mtime, status.st_uid) == (1, os.geteuid())


@pytest.mark.every_client
def test_references_are_found_in_contents_targets_and_names(world):
    expression = """
      let a = sh "a" "echo > $out" {}; b = sh "b" "echo > $out" {}; c = sh "c" "echo > $out" {}; d = sh "d" "echo > $out" {};
      in sh "refs" "mkdir $out; echo xx${a}yy > $out/f; ln -s ${b} $out/l; touch $out/prefix-$(basename ${c})-suffix; cat ${d}" {}"""
    path = world.output(expression)
    found = {line.rsplit("-", 1)[1] for line in world.run("nix-store", "-q", "--references", path).ok().lines}
    assert found == {"a", "b", "c"}


def test_an_output_may_refer_to_itself(world):
    path = world.output('sh "self" "mkdir $out; echo $out > $out/me; ln -s $out/me $out/l" {}')
    assert world.run("nix-store", "-q", "--references", path).ok().lines == [str(path)]


@pytest.mark.every_client
def test_the_build_log_is_kept_and_read_back(world):
    path = world.output('sh "talk" "echo said; echo complained >&2; echo > $out" {}')
    drv = world.run("nix-store", "-q", "--deriver", path).ok().path
    assert world.run("nix", "log", drv).ok().out == "said\ncomplained\n"
    assert world.run("nix-store", "--read-log", path).ok().out == "said\ncomplained\n"
    name = os.path.basename(drv)
    compressed = (world.logs / "drvs" / name[:2] / f"{name[2:]}.bz2").read_bytes()
    assert bz2.decompress(compressed) == b"said\ncomplained\n"


@pytest.mark.every_client
def test_build_log_lines_reach_the_client_as_they_are_said(world):
    result = world.build('sh "talk" "echo line one; printf \'two\\\\nthree\'; echo > $out" {}').ok()
    assert "line one" in result.err and "two" in result.err and "three" in result.err


def test_a_progress_stream_has_build_activities(world):
    """`--log-format internal-json` is what `nom` reads: build activity (105) with its fields, log lines (101)."""
    result = world.build('sh "talk" "echo said; echo > $out" {}', "--log-format", "internal-json", "-v").ok()
    events = [json.loads(line[5:]) for line in result.err.splitlines() if line.startswith("@nix ")]
    build, = [event for event in events if event["action"] == "start" and event["type"] == 105]
    assert build["fields"][0].endswith("-talk.drv") and build["fields"][1:] == ["", 1, 1]
    assert ["said"] in [event["fields"] for event in events if event["action"] == "result" and event["type"] == 101]
    assert build["id"] in [event["id"] for event in events if event["action"] == "stop"]


def environment_of(world, extra="{}"):
    text = world.text(f'sh "env" "export > /dev/null; set > $TMPDIR/vars; env > $out" ({extra})', "--cores", "3")
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def test_the_environment_of_a_sandboxed_builder_is_nix_s(world):
    found = environment_of(world, '{ greeting = "hi"; number = 3; yes = true; no = false; list = [ 1 "b" ]; PATH = "/usr/bin:/bin"; }')
    out, temporary = found.pop("out"), ("TMPDIR", "TEMPDIR", "TMP", "TEMP", "NIX_BUILD_TOP", "PWD")
    assert out.endswith("-env")
    assert {name: found.pop(name) for name in temporary} == dict.fromkeys(temporary, "/build")
    found.pop("SHLVL", None), found.pop("OLDPWD", None), found.pop("_", None)
    assert found == {
        "HOME": "/homeless-shelter", "PATH": "/usr/bin:/bin", "NIX_STORE": str(world.store), "NIX_BUILD_CORES": "3", "NIX_LOG_FD": "2", "TERM": "xterm-256color",
        "builder": "/bin/sh", "name": "env", "system": found["system"], "greeting": "hi", "number": "3", "yes": "1", "no": "",
        "list": "1 b"}
    assert found["system"] in ("x86_64-linux", "aarch64-linux")


def test_the_environment_of_an_unsandboxed_builder_is_nix_s(world):
    world.conf["sandbox"] = "false"
    found = environment_of(world)
    top = found["NIX_BUILD_TOP"]
    assert re.search(r"/nix-build-env\.drv-0(/build)?$|/(nix-)?\d+-\d+(/b|/o/b|/build)?$", top), top
    for name in ("TMPDIR", "TEMPDIR", "TMP", "TEMP", "PWD"):
        assert found[name] == top
    assert found["HOME"] == "/homeless-shelter" and found["PATH"] == "/usr/bin:/bin" and found["NIX_STORE"] == str(world.store)
    assert found["TERM"] == "xterm-256color" and found["NIX_LOG_FD"] == "2"


def test_a_builder_without_path_gets_path_not_set(world):
    assert world.text('derivation { name = "p"; inherit system; builder = "/bin/sh"; args = [ "-c" "echo $PATH > $out" ]; }') \
        == "/path-not-set\n"


def test_the_daemon_s_environment_does_not_reach_builders(world):
    world.daemon_env["SECRET_OF_THE_DAEMON"] = "1"
    assert "SECRET_OF_THE_DAEMON" not in environment_of(world)


@pytest.mark.every_client
def test_cores_reach_the_builder(world):
    assert world.text('sh "cores" "echo $NIX_BUILD_CORES > $out" {}', "--cores", "7") == "7\n"


def test_the_builder_gets_its_arguments_as_they_are(world):
    text = world.text("""derivation { name = "args"; inherit system; builder = "/bin/sh"; PATH = "/bin:/usr/bin";
      args = [ "-c" "for a in \\"$0\\" \\"$@\\"; do echo \\"<$a>\\"; done > $out" "zero" "" "a b" "new\\nline" "ü$" ]; }""")
    assert text == "<zero>\n<>\n<a b>\n<new\nline>\n<ü$>\n"


def test_a_builder_from_the_store_is_run(world):
    (world.src / "tools").mkdir()
    shutil.copy("/usr/bin/busybox", world.src / "tools/busybox")
    expression = """derivation { name = "own"; inherit system; builder = "${./tools}/busybox"; args = [ "sh" "-c" "echo own > $out" ]; }"""
    assert world.text(expression) == "own\n"


@pytest.mark.every_client
def test_pass_as_file_hands_an_attribute_over_in_a_file(world):
    expression = """sh "pass" "test -z \\"\\${long-}\\"; cat $longPath > $out; echo >> $out; echo $longPath >> $out" {
      long = "a text\\nof two lines"; passAsFile = [ "long" ]; }"""
    lines = world.text(expression).splitlines()
    assert lines[:2] == ["a text", "of two lines"]
    assert re.fullmatch(r"/build/\.attr-[0-9a-z]{52}", lines[2])


def structured(world, copy):
    """The file that a builder with structured attributes finds, through a bash from the host."""
    world.conf["sandbox"] = "false"
    expression = """derivation { name = "structured"; inherit system; builder = "/bin/bash"; PATH = "/usr/bin:/bin";
      args = [ "-euc" '' . .attrs.sh; mkdir ''${outputs[doc]}; %s > ''${outputs[out]} '' ];
      __structuredAttrs = true; outputs = [ "out" "doc" ]; str = "it's \\"q\\" $x"; int = 12; neg = -3; yes = true; no = false; nil = null;
      list = [ "a b" "c'd" ]; set = { k = "v"; "odd-key" = "w"; n = 1; }; nested = { a = { b = [ 1 2 ]; }; }; mixed = [ { a = 1; } ];
      "odd-name" = "x"; unicode = "ü"; empty = [ ]; }""" % copy
    path = world.output(expression)
    drv = world.run("nix-store", "-q", "--deriver", path).ok().path
    outputs = dict(zip(("doc", "out"), world.run("nix-store", "-q", "--outputs", drv).ok().lines))
    if not outputs["out"].endswith("-structured"):
        outputs = {"out": outputs["doc"], "doc": outputs["out"]}
    return path.read_text(), outputs


def test_structured_attributes_are_in_a_json_file(world):
    text, outputs = structured(world, "cat .attrs.json")
    assert text.startswith('{"PATH":"/usr/bin:/bin","builder":"/bin/bash","empty":[],"int":12,"list":["a b","c\'d"],"mixed":[{"a":1}],')
    found = json.loads(text)
    assert found["outputs"] == outputs
    assert (found["str"], found["neg"], found["nil"], found["nested"]) == ('it\'s "q" $x', -3, None, {"a": {"b": [1, 2]}})
    assert found["set"] == {"k": "v", "odd-key": "w", "n": 1} and found["unicode"] == "ü"


def test_structured_attributes_are_in_a_shell_file(world):
    text, outputs = structured(world, "cat .attrs.sh")
    expected = ["declare PATH='/usr/bin:/bin'", "declare builder='/bin/bash'", "declare -a empty=()", "declare int=12",
                """declare -a list=('a b' 'c'\\''d' )""", "declare name='structured'", "declare neg=-3", "declare nil=''", "declare no=",
                f"declare -A outputs=(['doc']='{outputs['doc']}' ['out']='{outputs['out']}' )",
                "declare -A set=(['k']='v' ['n']=1 ['odd-key']='w' )", """declare str='it'\\''s "q" $x'""",
                "declare system='x86_64-linux'" if os.uname().machine == "x86_64" else "declare system='aarch64-linux'",
                "declare unicode='ü'", "declare yes=1"]
    assert [line for line in text.splitlines()] == expected


def test_structured_attributes_have_their_files_places_in_the_environment(world):
    world.conf["sandbox"] = "false"
    expression = """derivation { name = "places"; inherit system; builder = "/bin/bash"; PATH = "/usr/bin:/bin"; secret = "x";
      args = [ "-euc" "PATH=/usr/bin:/bin; . .attrs.sh; env > ''${outputs[out]}; cmp $NIX_ATTRS_SH_FILE .attrs.sh; cmp $NIX_ATTRS_JSON_FILE .attrs.json" ];
      __structuredAttrs = true; }""".replace("''$", "\\$")
    text = world.text(expression)
    assert "secret=" not in text and "\nNIX_ATTRS_JSON_FILE=" in "\n" + text


def test_impure_environment_comes_from_the_daemon_for_fixed_outputs(world):
    world.daemon_env["FROM_DAEMON"] = "daemon"
    digest = "1f64ad0ffaba4bf34ed26d1ac8ea6e3f7ae9cb8b1d5fcd1b3a4b2a0c3e3d0c5f"
    result = world.build(f"""fixed "impure" "flat" "{digest}" "echo \\"<$FROM_DAEMON>\\" >&2; echo x > $out" {{
      impureEnvVars = [ "FROM_DAEMON" ]; }}""", env={"FROM_DAEMON": "client"})
    result.fails().says("<daemon>")


def test_impure_environment_is_ignored_for_other_derivations(world):
    world.daemon_env["FROM_DAEMON"] = "daemon"
    assert world.text("""sh "pure" "echo \\"<\\${FROM_DAEMON-unset}>\\" > $out" { impureEnvVars = [ "FROM_DAEMON" ]; }""") in \
        ("<unset>\n", "<>\n")


@pytest.mark.every_client
def test_export_references_graph_writes_the_closure(world):
    expression = """
      let a = sh "a" "echo > $out" {}; b = sh "b" "echo ${a} > $out" {};
      in sh "graph" "cat graph > $out" { exportReferencesGraph = [ "graph" b ]; }"""
    path = world.output(expression)
    text = path.read_text()
    closure, lines = {}, text.splitlines()
    while lines:
        name, _deriver, count = lines.pop(0), lines.pop(0), int(lines.pop(0))
        closure[name], lines = lines[:count], lines[count:]
    a, b = sorted(closure, key=lambda name: name[-1])
    assert (a[-2:], b[-2:]) == ("-a", "-b")
    assert closure == {a: [], b: [a]}


@pytest.mark.every_client
def test_two_clients_building_the_same_derivation_build_it_once(world):
    """The builder counts itself in a folder of the host."""
    world.conf["sandbox"] = "false"
    count = world.root / "count"
    count.mkdir()
    count.chmod(0o777)
    file = world.nix(f'sh "once" "mktemp {count}/XXXXXX; sleep 0.7; echo > $out" {{}}')
    world.run("nix-instantiate", file).ok()
    clients = [world.popen(["nix-build", "--no-out-link", file]) for _ in range(2)]
    outputs = [world.finish(client)[0] for client in clients]
    assert [client.returncode for client in clients] == [0, 0]
    assert outputs[0] == outputs[1]
    assert len(os.listdir(count)) == 1


@pytest.mark.every_client
@pytest.mark.firn_only("a stock daemon has no limit for all its clients together")
def test_a_build_that_is_a_client_itself_runs_what_it_asks_for_on_its_own_slot(world):
    """Two levels deep, with one slot in all; and two at once inside the innermost. (Members of the group of build users are no clients.)"""
    world.conf["sandbox"] = "false"
    world.conf["build-users-group"] = ""
    world.extra_conf = "machine-max-jobs = 1\n"
    variables = {name: value for name, value in world.environment().items() if name.startswith("NIX_")}
    run = f"HOME=$PWD TMPDIR=$PWD {' '.join(f'{name}={value}' for name, value in variables.items())} {world.client.bin}/nix-build --no-out-link"
    two = world.nix('[ (sh "two-a" "echo a > $out" {}) (sh "two-b" "echo b > $out" {}) ]')
    one = world.nix(f'sh "one" "{run} {two} >list; cat $(cat list) > $out" {{}}')
    assert world.text(f'sh "outer" "cat $({run} {one}) > $out; echo outer >> $out" {{}}') == "a\nb\nouter\n"


def test_check_mode_accepts_a_build_that_repeats(world):
    world.output(HELLO)
    world.build(HELLO, "--check").ok()


@pytest.mark.every_client
@pytest.mark.allow_left("store")
def test_check_mode_names_an_output_that_differs(world):
    world.conf["sandbox"] = "false"
    noise = world.root / "noise"
    noise.write_text("one")
    expression = f'sh "noisy" "cat {noise} > $out" {{}}'
    path = world.output(expression)
    noise.write_text("two")
    result = world.build(expression, "--check").fails()
    assert result.status in (1, 104)
    result.says("may not be deterministic", f"output '{path}' differs")
    assert path.read_text() == "one"


@pytest.mark.allow_left("store", "tmp")
def test_check_with_keep_failed_keeps_the_other_output(world):
    world.conf["sandbox"] = "false"
    noise = world.root / "noise"
    noise.write_text("one")
    expression = f'sh "noisy" "cat {noise} > $out" {{}}'
    path = world.output(expression)
    noise.write_text("two")
    world.build(expression, "--check", "-K").fails().says(f"{path}.check")
    assert open(f"{path}.check").read() == "two"


@pytest.mark.every_client
@pytest.mark.parametrize("sandbox", ["true", "false"])
def test_repair_builds_a_damaged_output_again(world, sandbox):
    world.conf["sandbox"] = sandbox
    path = world.output(HELLO)
    drv = world.run("nix-store", "-q", "--deriver", path).ok().path
    for command in world.repairs(HELLO) + [["nix-store", "--realise", "--repair", drv]]:
        os.chmod(path, 0o644)
        path.write_text("damaged\n")
        world.run(*command).ok()
        assert path.read_text() == "hello\n"


@pytest.mark.every_client
@pytest.mark.parametrize("sandbox", ["true", "false"])
def test_repair_leaves_the_outputs_that_are_good(world, sandbox):
    """Also where the builder does not make the same again."""
    world.conf["sandbox"] = sandbox
    script = "mkdir $out $dev; cat /proc/sys/kernel/random/uuid > $out/a; echo $out > $dev/x"
    expression = f'let d = sh "two" "{script}" {{ outputs = [ "out" "dev" ]; }}; in [ d.out d.dev ]'
    out, dev = world.build(expression).ok().lines
    kept, inode = snapshot(out), os.stat(f"{out}/a").st_ino
    for command in world.repairs(expression):
        os.chmod(f"{dev}/x", 0o644)
        Path(f"{dev}/x").write_text("damaged\n")
        world.run(*command).ok()
        assert snapshot(out) == kept and os.stat(f"{out}/a").st_ino == inode
        assert Path(f"{dev}/x").read_text() == out + "\n"


def test_a_missing_output_that_names_a_valid_one_is_built_alone(world):
    """Without a sandbox the valid output stays untouched, and the new one names it by its real path, not by the scratch path."""
    world.conf["sandbox"] = "false"
    script = ("mkdir $out $doc; echo $doc > $doc/a; echo $doc > $out/doc; echo $out > $out/self; ln -s $doc/a $out/link; "
              "touch $out/name-$(basename $doc)")
    expression = f'let d = sh "two" "{script}" {{ outputs = [ "out" "doc" ]; }}; in [ d.out d.doc ]'
    out, doc = world.build(expression).ok().lines
    kept, inode = snapshot(doc), os.stat(f"{doc}/a").st_ino
    before = snapshot(out)
    world.run("nix-store", "--delete", out).ok()
    assert not os.path.exists(out) and world.is_valid(doc)
    world.build(expression).ok()
    assert snapshot(doc) == kept and os.stat(f"{doc}/a").st_ino == inode
    assert snapshot(out) == before
    assert sorted(world.run("nix-store", "-q", "--references", out).ok().lines) == sorted([out, doc])


def test_a_missing_output_that_names_itself_is_patched_in_contents_targets_and_names(world):
    world.conf["sandbox"] = "false"
    script = ("mkdir $out $doc; echo text > $out/a; echo $doc $out > $doc/self; ln -s $doc/self $doc/link; "
              "echo named > $doc/x-$(basename $doc)-y; mkdir $doc/d-$(basename $doc); echo $doc > $doc/d-$(basename $doc)/in; echo unpatched > $doc/plain")
    expression = f'let d = sh "two" "{script}" {{ outputs = [ "out" "doc" ]; }}; in [ d.out d.doc ]'
    out, doc = world.build(expression).ok().lines
    before = snapshot(doc)
    world.run("nix-store", "--delete", doc).ok()
    assert world.is_valid(out) and not world.is_valid(doc)
    world.build(expression).ok()
    assert snapshot(doc) == before
    name = os.path.basename(doc)
    assert open(f"{doc}/self").read() == f"{doc} {out}\n" and os.readlink(f"{doc}/link") == f"{doc}/self"
    assert open(f"{doc}/d-{name}/in").read() == f"{doc}\n" and open(f"{doc}/x-{name}-y").read() == "named\n"


def snapshot(folder):
    """Every name below a folder with its kind, mode and contents."""
    found = {}
    for place, folders, names in os.walk(folder):
        for name in folders + names:
            path = os.path.join(place, name)
            status = os.lstat(path)
            content = os.readlink(path) if os.path.islink(path) else open(path, "rb").read() if os.path.isfile(path) else None
            found[os.path.relpath(path, folder)] = (status.st_mode, content)
    return found


@pytest.mark.root_only
def test_builds_run_as_a_build_user(world):
    world.conf["sandbox"] = "false"
    user = world.text('sh "who" "id -un > $out" {}').strip()
    assert user.startswith("nixbld")


@pytest.mark.root_only
def test_simultaneous_builds_have_different_users(world):
    world.conf["sandbox"] = "false"
    expression = 'let f = n: sh n "id -u > $out; sleep 0.5" {}; in [ (f "a") (f "b") ]'
    users = [open(path).read() for path in world.build(expression, "--max-jobs", "2").ok().lines]
    assert len(set(users)) == 2


@pytest.mark.user_only
def test_an_ordinary_user_s_daemon_builds_as_that_user(world):
    world.conf["sandbox"] = "false"
    assert world.text('sh "who" "id -u > $out" {}').strip() == str(os.geteuid())


def test_a_build_of_no_derivation_but_a_valid_path_succeeds(world):
    path = world.output(HELLO)
    assert world.run("nix-store", "-r", path).ok().path == str(path)


def test_a_path_that_nothing_can_make_is_an_error(world):
    path = f"{world.store}/{'a' * 32}-nothing"
    result = world.run("nix-store", "-r", path).fails()
    assert len(result.errors) == 1 and path in result.err


def test_sources_are_inputs_of_builds(world):
    (world.src / "file.txt").write_text("source\n")
    assert world.text('sh "copy" "cat ${./file.txt} > $out" {}') == "source\n"


def test_dry_run_says_what_would_be_built(world):
    result = world.build(HELLO, "--dry-run").ok()
    result.says("will be built", "-hello.drv")
    assert not [path for path in world.valid_paths() if path.endswith("-hello")]


def test_a_large_output_is_registered(world):
    path = world.output('sh "large" "head -c 50000000 /dev/zero > $out" {}')
    assert path.stat().st_size == 50000000
    assert world.run("nix-store", "-q", "--size", path).ok().path == "50000112"


def test_a_thousand_files_are_registered_in_order(world):
    path = world.output('sh "many" "mkdir $out; i=0; while [ $i -lt 1000 ]; do echo $i > $out/$i; i=$((i+1)); done" {}')
    assert len(os.listdir(path)) == 1000
    oracle = world.direct("nix-hash", "--type", "sha256", "--base32", path).ok().path
    assert world.run("nix-store", "-q", "--hash", path).ok().path == f"sha256:{oracle}"
