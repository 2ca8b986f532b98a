"""Derivations whose output paths follow from what was built: floating, deferred, impure; and their resolution.

What stock Nix makes of the same expressions is the measure: run the file with FIRN_TEST_DAEMON=stock (2.8) and
stock-2.34 as well. The address of an output that names itself differs between those two; Firn follows the newer.
"""

import ast
import contextlib
import fcntl
import gzip
import hashlib
import json
import os
import re
import sqlite3
from pathlib import Path

import machine
import protocol
import pytest
from world import wait_for_file

BASE32 = "0123456789abcdfghijklmnpqrsvwxyz"
CA = '{ __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; }'
IMPURE = '{ __impure = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; }'


@pytest.fixture
def ca(world):
    features = "nix-command ca-derivations impure-derivations"
    world.conf["experimental-features"] = features
    world.client_conf["experimental-features"] = features
    return world


def base32(digest):
    number = int.from_bytes(digest, "little")
    return "".join(BASE32[(number >> (5 * i)) & 31] for i in reversed(range((len(digest) * 8 + 4) // 5)))


def fold(digest, size=20):
    folded = bytearray(size)
    for i, byte in enumerate(digest):
        folded[i % size] ^= byte
    return bytes(folded)


def dump(world, path):
    return world.run_bytes("nix-store", "--dump", path, env={"NIX_REMOTE": "dummy://"})


def addressed_path(world, path, references=(), offsets=False):
    """The path that these contents should have: an implementation of its own of Nix's rule."""
    path = Path(path)
    part = path.name[:32].encode()
    nar = dump(world, path)
    zeroed = nar.replace(part, bytes(32))
    if offsets:
        zeroed += b"".join(b"|%d" % match.start() for match in re.finditer(re.escape(part), nar))
    content = hashlib.sha256(zeroed).hexdigest()
    kind = ":".join(["source", *sorted(map(str, references))] + (["self"] if part in nar else []))
    inner = f"{kind}:sha256:{content}:{world.store}:{path.name[33:]}"
    return f"{world.store}/{base32(fold(hashlib.sha256(inner.encode()).digest()))}-{path.name[33:]}"


def realisations(world):
    with contextlib.closing(world.database()) as connection:
        return set(connection.execute("select drvPath, outputName, path from Realisations r join ValidPaths v on r.outputPath = v.id"))


def references(world, path):
    return set(world.direct("nix-store", "-q", "--references", path).ok().lines)


def content_address(world, path):
    with contextlib.closing(world.database()) as connection:
        return connection.execute("select ca from ValidPaths where path = ?", (str(path),)).fetchone()[0]


def old_rule():
    return os.environ.get("FIRN_TEST_DAEMON") == "stock"


@pytest.mark.every_client
def test_a_floating_output_lies_where_its_content_says(ca):
    path = ca.output(f'sh "a" "echo hello > $out" {CA}')
    assert path.read_text() == "hello\n"
    assert str(path) == addressed_path(ca, path)
    assert content_address(ca, path).startswith("fixed:r:sha256:")


@pytest.mark.every_client
@pytest.mark.parametrize("sandbox", ["true", "false"])
def test_a_floating_output_may_name_itself(ca, sandbox):
    ca.conf["sandbox"] = sandbox
    path = ca.output(f'sh "self" "mkdir -p $out/bin; echo $out/bin > $out/bin/self; ln -s $out/bin $out/link; echo x > $out/x" {CA}')
    assert (path / "bin/self").read_text() == f"{path}/bin\n"
    assert os.readlink(path / "link") == f"{path}/bin"
    assert str(path) == addressed_path(ca, path, offsets=old_rule())
    assert references(ca, path) == {str(path)}


@pytest.mark.firn_only("stock Nix uses, and vouches for, whatever is valid there")
def test_contents_that_somebody_else_chose_are_not_vouched_for(ca):
    """Zeros and the path's own hash part are the same to an address: the altered output is a right import."""
    ca.conf["trusted-users"] = "root"
    ca.direct("nix-store", "--generate-binary-cache-key", "here-1", ca.root / "secret", ca.root / "public").ok()
    ca.conf["secret-key-files"] = str(ca.root / "secret")
    expression = f'sh "zeros" "head -c 96 /dev/zero > $out; echo $out >> $out" {CA}'
    path = ca.output(expression)
    good, ca_text, nar = path.read_bytes(), content_address(ca, path), dump(ca, path)
    ca.direct("nix-store", "--delete", "--ignore-liveness", path).ok()
    with contextlib.closing(ca.database()) as connection:
        before = connection.execute("select count(*) from Realisations").fetchone()
    at = nar.index(bytes(96)) + 32
    altered = nar[:at] + path.name[:32].encode() + nar[at + 32:]
    with protocol.Connection(ca) as connection:
        connection.add_nar(path, altered, references=[str(path)], ca=ca_text, check=True)
    assert ca.is_valid(path) and path.read_bytes() != good
    ca.build(expression).fails().says("valid with other contents", f"nix-store --delete {path}", "--repair")
    assert path.read_bytes() != good and realisations(ca) == set() and before == (0,)
    ca.run("nix-store", "--delete", path).ok()
    assert ca.output(expression) == path and path.read_bytes() == good
    assert {to for _, _, to in realisations(ca)} == {str(path)}


@pytest.mark.firn_only("stock Nix takes an executable file for a plain one")
@pytest.mark.parametrize("what", ["executable", "a directory", "a symlink"])
@pytest.mark.parametrize("trusted", [False, True])
def test_what_is_no_plain_file_is_not_taken_under_the_address_of_one(ca, what, trusted):
    ca.conf["trusted-users"] = ca.conf["trusted-users"] if trusted else "nobody"
    node = {"executable": protocol.regular(b"echo\n", executable=True), "a symlink": protocol.symlink("echo"),
            "a directory": protocol.directory(protocol.entry("echo", protocol.regular(b"echo\n"))),
            "plain": protocol.regular(b"echo\n")}
    digest = hashlib.sha256(b"echo\n").hexdigest()
    path = ca.run("nix-store", "--print-fixed-path", "sha256", digest, "tool").ok().path
    with protocol.Connection(ca) as connection, pytest.raises(protocol.DaemonError, match=f"is that of a plain file, and what came is {what}"):
        connection.add_nar(path, protocol.nar(node[what]), ca=f"fixed:sha256:{digest}", check=True)
    assert not ca.is_valid(path)
    with protocol.Connection(ca) as connection:
        connection.add_nar(path, protocol.nar(node["plain"]), ca=f"fixed:sha256:{digest}", check=True)
    assert ca.is_valid(path)


@pytest.mark.every_client
def test_outputs_may_refer_to_each_other(ca):
    script = "echo $out > $out; echo $out $dev > $dev; mkdir $lib; echo $dev > $lib/dev"
    expression = f'let d = sh "many" "{script}" ({CA} // {{ outputs = [ "out" "dev" "lib" ]; }}); in [ d.out d.dev d.lib ]'
    out, dev, lib = map(Path, ca.build(expression).ok().lines)
    assert out.read_text() == f"{out}\n" and dev.read_text() == f"{out} {dev}\n" and (lib / "dev").read_text() == f"{dev}\n"
    assert str(out) == addressed_path(ca, out, offsets=old_rule())
    assert str(dev) == addressed_path(ca, dev, [out], offsets=old_rule())
    assert str(lib) == addressed_path(ca, lib, [dev])
    assert references(ca, dev) == {str(out), str(dev)} and references(ca, lib) == {str(dev)}


@pytest.mark.allow_left("store")
def test_outputs_in_a_cycle_are_refused(ca):
    result = ca.build(f'sh "cycle" "echo $dev > $out; echo $out > $dev" ({CA} // {{ outputs = [ "out" "dev" ]; }})').fails()
    assert "cycle" in result.err


@pytest.mark.every_client
def test_dependents_of_floating_outputs_are_resolved(ca):
    expression = f"""let a = sh "a" "echo a > $out" {CA}; b = sh "b" "echo ${{a}} > $out; echo b > $dev" ({CA} // {{ outputs = [ "out" "dev" ]; }});
      c = sh "c" "echo ${{b}} ${{b.dev}} > $out" {{}}; in [ a b b.dev c ]"""
    a, b, dev, c = map(Path, ca.build(expression).ok().lines)
    assert b.read_text() == f"{a}\n" and c.read_text() == f"{b} {dev}\n"
    assert str(b) == addressed_path(ca, b, [a])
    known = realisations(ca)
    # Two of `a`'s one form, and two forms of each of the others.
    assert {path for _, _, path in known} == {str(a), str(b), str(dev), str(c)}
    assert len([1 for _, _, path in known if path == str(b)]) == 2
    again = ca.build(expression).ok()
    assert again.lines == [str(a), str(b), str(dev), str(c)] and "building" not in again.err


@pytest.mark.every_client
def test_an_unchanged_input_rebuilds_nothing(ca):
    chain = 'let a = sh "a" "echo same > $out # %s" ' + CA + '; b = sh "b" "cat ${a} > $out" ' + CA + \
        '; c = sh "c" "cat ${b} > $out" {}; in c'
    first = ca.build(chain % "one").ok()
    second = ca.build(chain % "two").ok()
    assert first.lines == second.lines
    assert "-a.drv'" in second.err
    assert not re.search(r"building '[^']*-[bc]\.drv'", second.err), second


def test_a_changed_input_rebuilds_what_depends_on_it(ca):
    chain = 'let a = sh "a" "echo %s > $out" ' + CA + '; in sh "b" "cat ${a} > $out" ' + CA
    assert ca.text(chain % "one") == "one\n" and ca.text(chain % "two") == "two\n"


@pytest.mark.every_client
def test_the_other_modes_and_algorithms(ca):
    flat = ca.output('sh "f" "echo flat > $out" { __contentAddressed = true; outputHashMode = "flat"; outputHashAlgo = "sha256"; }')
    expected = ca.direct("nix-store", "--print-fixed-path", "sha256", hashlib.sha256(b"flat\n").hexdigest(), "f").ok().path
    assert str(flat) == expected
    tree = ca.output('sh "t" "mkdir $out; echo 1 > $out/x" { __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha512"; }')
    digest = hashlib.sha512(dump(ca, tree)).hexdigest()
    assert str(tree) == ca.direct("nix-store", "--print-fixed-path", "--recursive", "sha512", digest, "t").ok().path


@pytest.mark.allow_left("store")
@pytest.mark.firn_only("stock 2.8 ends the connection")
@pytest.mark.parametrize("script", ["mkdir $out", "echo > $out; chmod +x $out", "echo $out > $out"])
def test_what_a_flat_floating_output_cannot_be_is_refused(ca, script):
    ca.build(f'sh "f" "{script}" {{ __contentAddressed = true; outputHashMode = "flat"; outputHashAlgo = "sha256"; }}').fails()


@pytest.mark.stock_leaves("store")
def test_without_the_feature_the_daemon_refuses(ca):
    ca.conf["experimental-features"] = "nix-command"
    result = ca.build(f'sh "a" "echo hello > $out" {CA}').fails()
    assert "experimental Nix feature 'ca-derivations' is disabled" in result.err


@pytest.mark.every_client
def test_a_vanished_input_is_built_again(ca):
    expression = f'let a = sh "a" "echo a > $out" {CA}; in sh "b" "cat ${{a}} > $out; %s" {CA}'
    ca.output(expression % ":")
    a = next(path for _, _, path in realisations(ca) if path.endswith("-a"))
    users = ca.direct("nix-store", "-q", "--referrers-closure", a).ok().lines
    ca.direct("nix-store", "--delete", "--ignore-liveness", *users).ok()
    assert not ca.is_valid(a)
    assert ca.text(expression % "true") == "a\n"
    assert ca.is_valid(a)


@pytest.mark.every_client
@pytest.mark.firn_only("stock Nix says what the builder says")
@pytest.mark.allow_left("verify", "store")
@pytest.mark.parametrize("sandbox", ["true", "false"])
@pytest.mark.parametrize("attrs", [CA, "{}"], ids=["floating", "input-addressed"])
def test_an_input_that_is_valid_but_gone_from_disk_is_named(ca, sandbox, attrs):
    ca.conf["sandbox"] = sandbox
    expression = f'let a = sh "a" "echo a > $out" {attrs}; in sh "b" "cat ${{a}} > $out; %s" {attrs}'
    ca.output(expression % ":")
    a = next(path for path in ca.valid_paths() if path.endswith("-a"))
    os.unlink(a)
    ca.build(expression % "true").fails().says(f"its input '{a}' is valid in the store's database, but is not on disk")


def resolved_derivation(world, name, path):
    """The one that lies in the store with that path as a source."""
    found = [drv for drv in world.valid_paths() if drv.endswith(f"-{name}.drv") and path in references(world, drv)]
    assert len(found) == 1
    return found[0]


@pytest.mark.every_client
@pytest.mark.firn_only("stock Nix says that dependencies are missing, and not which")
@pytest.mark.parametrize("attrs", [CA, "{}"], ids=["floating", "input-addressed"])
def test_a_resolved_derivation_whose_input_was_deleted_cannot_be_built_and_says_so(ca, attrs):
    """It knows no derivation that would make it again; the one that it was resolved from does."""
    expression = f'let a = sh "a" "echo a > $out" {CA}; in sh "b" "cat ${{a}} > $out" {attrs}'
    b = ca.output(expression)
    a = next(path for path in ca.valid_paths() if path.endswith("-a"))
    drv = resolved_derivation(ca, "b", a)
    text, nar = Path(drv).read_text(), dump(ca, drv)
    ca.run("nix-store", "--delete", b, drv, a).ok()
    # Who has it elsewhere cannot bring it along without its source.
    with protocol.Connection(ca) as connection, pytest.raises(protocol.DaemonError, match=re.escape(a)):
        connection.add_nar(drv, nar, references=[a], ca=f"text:sha256:{hashlib.sha256(text.encode()).hexdigest()}")
    with protocol.Connection(ca) as connection:
        connection.request(protocol.BUILD_DERIVATION, basic_derivation(drv, text), protocol.number(0))
        status, message = connection.number(), connection.text()
    assert status not in (0, 1, 2) and f"'{a}'" in message, (status, message)
    assert not ca.is_valid(b) and not ca.is_valid(a)
    assert ca.output(expression) == b and ca.is_valid(a)


def basic_derivation(drv, text):
    """A resolved derivation as BuildDerivation takes it, from its text in the store."""
    name, fields = text[:6], ast.literal_eval(text[6:])
    assert name == "Derive"
    outputs, inputs, sources, system, builder, args, env = fields
    assert inputs == []
    pieces = [protocol.text(drv), protocol.number(len(outputs))] + [protocol.text(part) for output in outputs for part in output]
    pieces += [protocol.texts(sources), protocol.text(system), protocol.text(builder), protocol.texts(args), protocol.number(len(env))]
    return b"".join(pieces + [protocol.text(part) for pair in env for part in pair])


@pytest.mark.every_client
@pytest.mark.parametrize("sandbox", ["true", "false"])
def test_a_resolved_derivation_can_be_built_by_itself_while_its_input_is_there(ca, sandbox):
    ca.conf["sandbox"] = sandbox
    b = ca.output(f'let a = sh "a" "echo a > $out" {CA}; in sh "b" "cat ${{a}} > $out" {CA}')
    a = next(path for path in ca.valid_paths() if path.endswith("-a"))
    drv = resolved_derivation(ca, "b", a)
    ca.run("nix-store", "--delete", b).ok()
    assert ca.run("nix-store", "--realise", drv).ok().path == str(b) and b.read_text() == "a\n"


def test_a_conflicting_realisation_is_refused(ca):
    path = ca.output(f'sh "a" "echo a > $out" {CA}')
    other = ca.output(f'sh "a" "echo other > $out" {CA}')
    identity = next((drv, out) for drv, out, to in realisations(ca) if to == str(path))
    text = json.dumps({"id": f"{identity[0]}!{identity[1]}", "outPath": other.name, "signatures": [], "dependentRealisations": {}})
    with protocol.Connection(ca) as connection, pytest.raises(protocol.DaemonError):
        connection.request(protocol.REGISTER_DRV_OUTPUT, protocol.text(text))
    assert (identity[0], identity[1], str(path)) in realisations(ca)


@pytest.mark.every_client
@pytest.mark.firn_only("stock Nix fails, or takes the second")
def test_a_realisation_that_became_known_during_the_build_counts_and_is_told_of(ca):
    marks = ca.root / "marks"
    marks.mkdir()
    marks.chmod(0o777)
    ca.conf["sandbox-paths"] += f" {marks}"
    expression = f'sh "a" "touch {marks}/begun; until test -e {marks}/go; do sleep 0.1; done; echo a > $out" {CA}'
    (marks / "go").touch()
    path = ca.output(expression)
    (drv, output, _), = [known for known in realisations(ca) if known[2] == str(path)]
    ca.run("nix-store", "--delete", path).ok()
    for mark in ("go", "begun"):
        (marks / mark).unlink()
    other = ca.output(f'sh "a" "echo other > $out" {CA}')
    client = ca.popen(["nix-build", "--no-out-link", ca.nix(expression)])
    wait_for_file(marks / "begun")
    text = json.dumps({"id": f"{drv}!{output}", "outPath": other.name, "signatures": [], "dependentRealisations": {}})
    with protocol.Connection(ca) as connection:
        connection.request(protocol.REGISTER_DRV_OUTPUT, protocol.text(text))
    (marks / "go").touch()
    out, err = ca.finish(client)
    assert client.returncode == 0, err
    assert f"is known to be '{other}' already; what was built now is '{path}'" in err.decode()
    assert (drv, output, str(other)) in realisations(ca) and (drv, output, str(path)) not in realisations(ca)
    assert ca.is_valid(path) and out.decode().strip() == str(other)


@pytest.mark.every_client
def test_half_a_hash_stays_as_it_is(ca):
    path = ca.output(f'sh "half" "n=\\${{out##*/}}; echo \\${{n%%-*}} | cut -c1-16 > $out; echo $out >> $out" {CA}')
    half, whole = path.read_text().splitlines()
    assert whole == str(path)
    assert len(half) == 16 and not path.name.startswith(half)


@pytest.mark.every_client
def test_a_hash_in_a_file_name_is_rewritten(ca):
    path = ca.output(f'sh "name" "n=\\${{out##*/}}; mkdir $out; echo 1 > $out/x-\\${{n%%-*}}-y" {CA}')
    assert os.listdir(path) == [f"x-{path.name[:32]}-y"]
    assert str(path) == addressed_path(ca, path, offsets=old_rule())


@pytest.mark.every_client
def test_a_path_in_a_compressed_file_is_not_seen(ca):
    """It stays the scratch path's, nothing refers to it, and the address is that of the bytes."""
    path = Path(ca.output(f'sh "a" "mkdir $out; echo $out | gzip -n > $out/self.gz" {CA}'))
    inside = gzip.decompress((path / "self.gz").read_bytes()).decode().strip()
    assert re.fullmatch(re.escape(str(ca.store)) + "/[0-9a-z]{32}-a", inside) and inside != str(path)
    assert references(ca, path) == set() and str(path) == addressed_path(ca, path)


@pytest.mark.every_client
@pytest.mark.stock_leaves("store")
def test_an_impure_derivation_is_always_built(ca):
    expression = f'sh "impure" "cat /proc/sys/kernel/random/uuid > $out" {IMPURE}'
    ca.conf["sandbox"] = "false"
    outputs = {str(ca.new_output(expression)) for _ in range(2)}
    assert len(outputs) == 2
    assert not [path for _, _, path in realisations(ca) if path in outputs]
    for path in outputs:
        assert path == addressed_path(ca, path)


@pytest.mark.every_client
def test_impure_outputs_may_be_used_by_impure_and_fixed_derivations_only(ca):
    digest = hashlib.sha256(b"1\n").hexdigest()
    impure = f'i = sh "i" "echo 1 > $out" {IMPURE};'
    chain = f'let {impure} in sh "j" "cat ${{i}} > $out; echo 2 >> $out" {IMPURE}'
    assert ca.new_output(chain).read_text() == "1\n2\n"
    fixed = f'let {impure} in fixed "f" "flat" "{digest}" "cat ${{i}} > $out" {{}}'
    assert ca.text(fixed) == "1\n"
    pure = f'let {impure} in sh "p" "cat ${{i}} > $out" {{}}'
    ca.build(pure).fails().says("depends on impure derivation")


@pytest.mark.every_client
def test_a_fixed_derivation_may_need_a_floating_one(ca):
    digest = hashlib.sha256(b"1\n").hexdigest()
    assert ca.text(f'let a = sh "a" "echo 1 > $out" {CA}; in fixed "f" "flat" "{digest}" "cat ${{a}} > $out" {{}}') == "1\n"


def test_a_fixed_and_a_floating_derivation_with_the_same_path_share_one_slot(ca):
    ca.conf["max-jobs"] = ca.client_conf["max-jobs"] = "1"
    digest = hashlib.sha256(b"same\n").hexdigest()
    floating = '{ __contentAddressed = true; outputHashMode = "flat"; outputHashAlgo = "sha256"; }'
    lines = ca.build(f'[ (sh "x" "sleep 1; echo same > $out" {floating}) (fixed "x" "flat" "{digest}" "sleep 1; echo same > $out" {{}}) ]').ok().lines
    assert len(set(lines)) == 1


@pytest.mark.firn_only("stock Nix waits for its own lock for ever")
def test_a_fixed_and_a_floating_derivation_with_the_same_path_at_once(ca):
    ca.conf["max-jobs"] = ca.client_conf["max-jobs"] = "2"
    digest = hashlib.sha256(b"same\n").hexdigest()
    floating = '{ __contentAddressed = true; outputHashMode = "flat"; outputHashAlgo = "sha256"; }'
    lines = ca.build(f'[ (sh "x" "sleep 1; echo same > $out" {floating}) (fixed "x" "flat" "{digest}" "sleep 2; echo same > $out" {{}}) ]').ok().lines
    assert len(set(lines)) == 1


@contextlib.contextmanager
def locked(world, path):
    """As another process does that makes this path."""
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
        os.unlink(lock.name)


@pytest.mark.every_client
@pytest.mark.firn_only("stock Nix waits within its only thread")
def test_a_build_waits_for_the_lock_of_a_path_that_it_has_computed_while_others_go_on(ca):
    ca.conf["max-jobs"] = ca.client_conf["max-jobs"] = "2"
    marks = ca.root / "marks"
    marks.mkdir()
    marks.chmod(0o777)
    ca.conf["sandbox-paths"] += f" {marks}"
    first = f'sh "first" "echo first > $out" {CA}'
    path = ca.output(first)
    ca.run("nix-store", "--delete", path).ok()
    second = f'sh "second" "touch {marks}/begun; until test -e {marks}/go; do sleep 0.1; done; echo second > $out" {{}}'
    with locked(ca, path):
        client = ca.popen(["nix-build", "--no-out-link", ca.nix(f"[ ({first}) ({second}) ]")])
        for line in client.stderr:
            if b"waiting for lock on the outputs of" in line:
                break
        wait_for_file(marks / "begun")
        (marks / "go").touch()
        # The other one ends, and is registered, while this one waits.
        assert machine.wait_until(lambda: any(known.endswith("-second") for known in ca.valid_paths()))
        assert client.poll() is None and not ca.is_valid(path)
    out, err = ca.finish(client)
    assert client.returncode == 0 and str(path) in out.decode().splitlines(), err
    assert path.read_text() == "first\n" and not os.path.exists(f"{path}.lock")


@pytest.mark.firn_only("stock Nix waits for ever")
def test_a_wait_for_such_a_lock_ends_with_the_time_that_the_build_has(ca):
    expression = f'sh "first" "echo first > $out" {CA}'
    path = ca.output(expression)
    ca.run("nix-store", "--delete", path).ok()
    with locked(ca, path):
        ca.build(expression, "--timeout", "1").fails().says("timed out after 1 seconds")
    assert ca.stray_names() == [] and not ca.is_valid(path)
    assert ca.output(expression) == path


def test_two_clients_build_the_same_floating_derivation(ca):
    file = ca.nix(f'sh "a" "sleep 1; echo built >&2; echo a > $out" {CA}')
    both = [ca.popen(["nix-build", "--no-out-link", file]) for _ in range(2)]
    ends = [ca.finish(process) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert sum(err.count(b"building '") for _, err in ends) >= 1
    assert len({out for out, _ in ends}) == 1


@pytest.mark.every_client
@pytest.mark.firn_only("stock Nix does not compare content-addressed outputs")
def test_a_check_of_a_floating_derivation_compares_addresses(ca):
    ca.conf["sandbox"] = "false"
    good = ca.nix(f'sh "good" "echo $out > $out" {CA}')
    ca.run("nix-build", "--no-out-link", good).ok()
    ca.run("nix-build", "--no-out-link", "--check", good).ok()
    bad = ca.nix(f'let a = sh "a" "echo > $out" {CA}; in sh "bad" ": ${{a}}; cat /proc/sys/kernel/random/uuid > $out" {CA}')
    path = ca.run("nix-build", "--no-out-link", bad).ok().path
    result = ca.run("nix-build", "--no-out-link", "--check", bad).fails()
    assert f"may not be deterministic: output '{path}' differs" in result.err


@pytest.mark.every_client
def test_clients_are_told_of_realisations(ca):
    file = ca.nix(f'let a = sh "a" "echo a > $out" {CA}; in sh "b" "cat ${{a}} > $out" ({CA} // {{ outputs = [ "out" "dev" ]; args = [ "-euc" "cat ${{a}} > $out; echo > $dev" ]; }})')
    path = ca.run("nix-build", "--no-out-link", file).ok().lines[0]
    drv = ca.run("nix-instantiate", file).ok().lines[0].split("!")[0]
    assert path in ca.run("nix-store", "--realise", drv).ok().lines
    built = ca.run("nix", "build", "--no-link", "--json", "-f", file).ok().json
    assert built[0]["outputs"]["out"] == path
    shown = ca.run("nix", "path-info", "--json", path).ok()
    assert "fixed:r:sha256:" in shown.out or "nar" in shown.out


CHAIN = f"""let a = sh "a" "echo $out > $out" {CA}; b = sh "b" "echo ${{a}} > $out; echo $out > $dev" ({CA} // {{ outputs = [ "out" "dev" ]; }});
      c = sh "c" "echo ${{b}} ${{b.dev}} > $out" {{}}; in [ a b b.dev c ]"""


def answers(world, client):
    """What a client is told of a, b, and b's dev, and what it finds built of the chain, without a build."""
    file = world.nix(CHAIN)
    told = [(one["id"], one["outPath"]) for one in world.run("nix", "realisation", "info", "--json", "-f", file, client=client).ok().json
            if "id" in one]
    built = world.run("nix-build", "--no-out-link", file, client=client).ok()
    assert "building '" not in built.err and "will be built" not in built.err, built
    again = world.run("nix", "build", "--no-link", "--print-out-paths", "-f", file, client=client) if client.number > (2, 8) else built
    assert set(again.ok().lines) == set(built.lines) and "building '" not in again.err, again
    drvs = [line.split("!")[0] for line in world.run("nix-instantiate", file, client=client).ok().lines]
    realised = world.run("nix-store", "--realise", *sorted(set(drvs)), client=client).ok()
    assert set(realised.lines) == set(built.lines)
    return sorted(told), built.lines


@pytest.mark.needs_client("2.30")
@pytest.mark.parametrize("sandbox", ["true", "false"])
@pytest.mark.parametrize("first", [0, -1], ids=["older-first", "newer-first"])
def test_what_one_client_had_built_every_client_finds(ca, first, sandbox):
    ca.conf["sandbox"] = sandbox
    builder, other = ca.clients[first], ca.clients[-1 - first]
    assert builder.version != other.version
    built = ca.build(CHAIN, client=builder).ok()
    assert built.err.count("building '") == 3
    known = realisations(ca)
    told, lines = answers(ca, other)
    assert lines == built.lines
    assert (told, lines) == answers(ca, builder)
    assert {(identity, f"{ca.store}/{name}") for identity, name in told} <= {(f"{drv}!{output}", path) for drv, output, path in known}
    assert {name for _, name in told} >= {os.path.basename(path) for path in lines[:3]}
    assert realisations(ca) == known


@pytest.mark.needs_client("2.30")
@pytest.mark.firn_only("it is Firn's database that is worked on")
def test_stock_clients_without_a_daemon_find_them_too(ca):
    """The older one as well, which knows by a file of its own that the tables are there."""
    lines = ca.build(CHAIN).ok().lines
    assert (ca.state / "db/ca-schema").read_text().strip() == "3"
    known = realisations(ca)
    users, ca.conf["build-users-group"] = ca.conf["build-users-group"], ""
    with protocol.Connection(ca) as connection:  # while the daemon has the database open
        assert connection.is_valid(lines[0])
        for client in ca.clients + ca.clients[:1]:
            built = ca.direct("nix-build", "--no-out-link", ca.nix(CHAIN), client=client).ok()
            assert built.lines == lines and "building '" not in built.err and "waiting" not in built.err, built
            assert realisations(ca) == known
    ca.stop()
    # What a direct 2.8 builds is seen here.
    more = 'sh "more" "echo more > $out" ' + CA
    ca.conf["sandbox"] = "false"
    path = ca.direct("nix-build", "--no-out-link", ca.nix(more)).ok().path
    ca.conf["build-users-group"] = users
    again = ca.build(more).ok()
    assert again.path == path and "building '" not in again.err


def tables_of_realisations(database):
    """What the tables and indexes are, whatever the words that made them."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        ask = lambda text: sorted(connection.execute(text).fetchall(), key=repr)  # noqa: E731
        found = {}
        for (table,) in ask("select name from sqlite_master where type = 'table' and (name like 'Realisations%' or name = 'SchemaMigrations')"):
            found[table] = ask(f"select name, lower(type), \"notnull\", dflt_value, pk from pragma_table_info('{table}')")
            found[f"{table}: keys"] = ask(f'select "from", "table", "to", on_update, on_delete from pragma_foreign_key_list(\'{table}\')')
            for index, *kind in ask(f'select name, "unique", origin, partial from pragma_index_list(\'{table}\')'):
                found[index] = kind + connection.execute(f"select seqno, name from pragma_index_info('{index}')").fetchall()
        found["migrations"] = ask("select migration from SchemaMigrations")
        found["triggers"] = [(name, re.sub(r"\s+", " ", text.lower()).replace("if not exists ", "")) for name, text in
                             ask("select name, sql from sqlite_master where type = 'trigger' and sql like '%Realisations%'")]
        return found


@pytest.mark.needs_client("2.30")
@pytest.mark.firn_only("it is Firn's database that is looked at")
def test_the_tables_are_those_of_the_newest_stock_nix(ca):
    ca.output(f'sh "a" "echo a > $out" {CA}')
    other = ca.root / "other"
    other.mkdir()
    ca.direct("nix-store", "--init", client=ca.client, env={"NIX_STATE_DIR": str(other)}).ok()
    made = tables_of_realisations(ca.state / "db/db.sqlite")
    assert {"Realisations", "RealisationsRefs", "IndexRealisations", "SchemaMigrations"} <= set(made)
    assert made == tables_of_realisations(other / "db/db.sqlite")


@pytest.mark.parametrize("version", [0x11B, 0x11E, 0x11F, 0x122])
def test_a_realisation_is_told_in_the_form_of_the_client_s_protocol(ca, version):
    """Before minor version 31 as a set of paths, then as a set of texts in JSON."""
    path = ca.output(f'sh "a" "echo a > $out" {CA}')
    (drv, output, _), = realisations(ca)
    with protocol.Connection(ca, version) as connection:
        connection.request(protocol.QUERY_REALISATION, protocol.text(f"{drv}!{output}"))
        told, = connection.texts()
        if version & 0xFF < 31:
            assert told == str(path)
        else:
            told = json.loads(told)
            assert (told["id"], told["outPath"]) == (f"{drv}!{output}", path.name)
            assert told["signatures"] == [] and told["dependentRealisations"] == {}
        connection.request(protocol.QUERY_REALISATION, protocol.text(f"sha256:{64 * '0'}!{output}"))
        assert connection.texts() == []
        assert connection.is_valid(str(path))


@pytest.mark.every_client
def test_paths_with_realisations_are_copied(ca):
    file = ca.nix(f'let a = sh "a" "echo a > $out" {CA}; in sh "b" "cat ${{a}} > $out" {CA}')
    path = ca.run("nix-build", "--no-out-link", file).ok().path
    cache = f"file://{ca.root}/cache"
    ca.run("nix", "copy", "--to", cache, "-f", file).ok()
    assert list((ca.root / "cache").glob("realisations/*.doi")) or list((ca.root / "cache").rglob("*.doi"))
    before = realisations(ca)
    ca.direct("nix-store", "--delete", path).ok()
    assert not ca.is_valid(path)
    ca.run("nix", "copy", "--no-check-sigs", "--from", cache, "-f", file).ok()
    assert ca.is_valid(path)
    assert [row for row in realisations(ca) if row in before and row[2] == path]


@pytest.mark.every_client
@pytest.mark.firn_only("stock Nix takes the addresses of its own generation only")
def test_made_content_addressed_paths_are_taken(ca):
    path = ca.output('sh "self" "echo $out > $out" {}')
    result = ca.run("nix", "store", "make-content-addressed", "--json", path).ok()
    made = Path(result.json["rewrites"][str(path)])
    assert made.read_text() == f"{made}\n"
    assert ca.is_valid(made) and content_address(ca, made).startswith("fixed:r:sha256:")


@pytest.mark.every_client
def test_the_same_paths_as_of_stock_nix_without_a_daemon(ca):
    """Builds once through the daemon and once with the client itself, in another world of the same store folder's name."""
    if (ca.client.number <= (2, 8)) != old_rule():
        expression = f'let a = sh "a" "echo a > $out" {CA}; in sh "b" "cat ${{a}} > $out" {CA}'
    else:
        expression = f'let a = sh "a" "echo $out > $out" {CA}; in sh "b" "echo $out ${{a}} > $out" {CA}'
    ca.conf["sandbox"] = "false"
    file = ca.nix(expression)
    path = ca.run("nix-build", "--no-out-link", file).ok().path
    ca.stop()
    paths = ca.valid_paths()
    ca.direct("nix-collect-garbage").ok()
    assert not ca.valid_paths()
    ca.conf["build-users-group"] = ""
    ca.conf.pop("build-hook", None)
    if ca.client.number > (2, 8):
        ca.conf["build-hook"] = ""
    assert ca.direct("nix-build", "--no-out-link", file, client=ca.client).ok().path == path
    assert {p for p in ca.valid_paths() if not p.endswith(".drv")} == {p for p in paths if not p.endswith(".drv")}


@pytest.fixture
def dynamic(ca):
    features = ca.conf["experimental-features"] + " dynamic-derivations"
    ca.conf["experimental-features"] = ca.client_conf["experimental-features"] = features
    return ca


@pytest.mark.needs_client("2.30")
@pytest.mark.skipif(old_rule(), reason="stock 2.8 does not know text outputs")
def test_text_outputs_may_have_references(dynamic):
    text = '{ __contentAddressed = true; outputHashMode = "text"; outputHashAlgo = "sha256"; }'
    a, path = map(Path, dynamic.build(f'let a = sh "a" "echo a > $out" {CA}; in [ a (sh "t" "echo ${{a}} > $out" {text}) ]').ok().lines)
    assert references(dynamic, path) == {str(a)}
    assert content_address(dynamic, path).startswith("text:sha256:")
    digest = hashlib.sha256(f"{a}\n".encode()).hexdigest()
    inner = f"text:{a}:sha256:{digest}:{dynamic.store}:t"
    assert path.name == f"{base32(fold(hashlib.sha256(inner.encode()).digest()))}-t"


@pytest.mark.needs_client("2.30")
@pytest.mark.skipif(old_rule(), reason="stock 2.8 does not know text outputs")
def test_a_fixed_text_output_has_the_path_that_its_text_promises(dynamic):
    digest = hashlib.sha256(b"text\n").hexdigest()
    assert dynamic.text(f'fixed "t" "text" "{digest}" "echo text > $out" {{}}') == "text\n"
    expected = base32(fold(hashlib.sha256(f"text:sha256:{digest}:{dynamic.store}:t".encode()).digest()))
    assert dynamic.is_valid(f"{dynamic.store}/{expected}-t")
