"""Programs for macOS in content-addressed outputs: see doc/content-addressed-macho.md.

What is right is said by two programs that know nothing of Firn's code: tests/macho/check.py for signatures and
tests/macho/normal_form.py for the forms; and the address is computed here, from the archive as stock Nix dumps it.
"""

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import protocol
import pytest
import synthetic_macho
import world as worlds
from macho import HERE, check, copy_linker, real_files
from test_content_addressed import (CA, IMPURE, addressed_path, base32, content_address, dump, fold, realisations,
                                    references)

import normal_form  # beside check.py

MARK = b"|firn:content-addressed-macho:1"
pytestmark = pytest.mark.firn_only("stock Nix registers it with a wrong signature")


SANDBOXES = pytest.mark.parametrize("ca", ["true", "false"], ids=["sandboxed", "unsandboxed"], indirect=True)


@pytest.fixture
def ca(world, request):
    features = "nix-command ca-derivations impure-derivations"
    world.conf["experimental-features"] = features
    world.client_conf["experimental-features"] = features
    world.conf["sandbox"] = getattr(request, "param", "false")
    world.conf["sandbox-paths"] = worlds.HOST_TOOLS  # the builder is the system's Python
    shutil.copy(worlds.HERE / "synthetic_macho.py", world.src)
    return world


def made(name, what, more="{}"):
    """`what` is the options and texts of a program each."""
    lines = "".join(f"python3 ${{./synthetic_macho.py}} {line}; " for line in what)
    return f'sh "{name}" "mkdir -p $out/bin; {lines}" ({CA} // {more})'


def own_address(world, path, refers_to=(), files=("bin/prog",)):
    """The path that the specification gives these contents."""
    path = Path(path)
    part = path.name[:32].encode()
    nar = dump(world, path)
    offsets = b"".join(b"|%d" % match.start() for match in re.finditer(re.escape(part), nar))
    for name in files:
        file = (path / name).read_bytes()
        assert nar.count(file) == 1
        nar = nar.replace(file, normal_form.normal_form(file, normal_form.occurrences(file, part)))
    content = hashlib.sha256(nar.replace(part, bytes(32)) + offsets + MARK).hexdigest()
    kind = ":".join(["source", *sorted(map(str, refers_to)), "self"])
    inner = f"{kind}:sha256:{content}:{world.store}:{path.name[33:]}"
    return f"{world.store}/{base32(fold(hashlib.sha256(inner.encode()).digest()))}-{path.name[33:]}"


def is_final(file, part):
    return normal_form.final_form(file, normal_form.occurrences(file, part.encode()), part.encode()) == file


def is_inside(file, part):
    try:
        normal_form.Layout(file, normal_form.occurrences(file, part.encode()))
    except normal_form.Outside:
        return False
    return True


def require_right(path):
    report = check.check(Path(path).read_bytes())
    assert not check.stale(report) and not check.problems(report), report


def require_own_address(world, path, refers_to=(), files=("bin/prog",)):
    for name in files:
        require_right(path / name)
        assert is_final((path / name).read_bytes(), path.name[:32])
    assert str(path) == own_address(world, path, refers_to, files)
    assert content_address(world, path) is None
    assert str(path) in references(world, path)
    world.verify()


@pytest.mark.every_client
@SANDBOXES
@pytest.mark.parametrize("uuid", ["", "uuid=content"])
def test_a_program_that_names_its_own_path_gets_it_and_stays_valid(ca, uuid):
    expression = made("prog", [f"$out/bin/prog {uuid} $out/share"])
    built = ca.build(expression).ok().says("made from normal forms of 1 Mach-O file", "'bin/prog'")
    path = Path(built.path)
    require_own_address(ca, path)
    assert str(path) in {known for _, _, known in realisations(ca)}
    assert not [name for name in os.listdir(ca.store) if name.endswith("-prog") and name != path.name]
    ca.build(expression, "--check").ok()
    assert ca.build(expression).ok().path == str(path)


@pytest.mark.every_client
@SANDBOXES
def test_the_same_content_gets_the_same_path_from_every_derivation(ca):
    what = ["$out/bin/prog uuid=content $out/share", "$out/bin/other uuid=content architecture=x86_64 $out/share"]
    first, second = (ca.output(made("prog", what, f'{{ marker = "{marker}"; }}')) for marker in ("1", "2"))
    assert first == second
    require_own_address(ca, first, files=("bin/prog", "bin/other"))
    assert len({drv for drv, _, path in realisations(ca) if path == str(first)}) == 2


def test_a_different_content_gets_a_different_path(ca):
    first, second = (ca.output(made("prog", [f"$out/bin/prog uuid=content $out/{text}"])) for text in ("aaaa", "bbbb"))
    assert first != second


def test_a_linker_s_programs_get_the_same_path_from_every_derivation(ca):
    copy_linker(ca)

    def linked(marker):
        return f"""sh "linked" ''
            mkdir -p $out/bin
            sh $macho/link lld-uuid universal $out/share $out/bin/prog
        '' ({CA} // {{ macho = ./macho; marker = "{marker}"; }})"""
    first, second = (ca.output(linked(marker)) for marker in "12")
    assert first == second
    require_own_address(ca, first)
    ca.build(linked("1"), "--check").ok()


def test_real_programs_get_the_same_path_from_every_derivation(ca):
    """With the hash part in every place that a planted file has it."""
    files = [path for file, path in real_files()
             if file["size"] < 20_000_000 and all(slice_["kind"] != "cms" for slice_ in file["slices"])]
    (ca.src / "macho").mkdir()
    for name in ("check.py", "plant.py"):
        shutil.copy(HERE / name, ca.src / "macho" / name)

    def planted(marker):
        return f"""sh "real" ''
            mkdir -p $out
            name=$(basename $out)
            /usr/bin/python3 -B $macho/plant.py $(echo $name | cut -c1-32) $out {" ".join(map(str, files))}
        '' ({CA} // {{ macho = ./macho; marker = "{marker}"; }})"""
    first, second = (ca.output(planted(marker)) for marker in "12")
    assert first == second
    programs = [path for path in sorted(first.rglob("*")) if path.is_file()]
    inside = [path.relative_to(first) for path in programs if is_inside(path.read_bytes(), first.name[:32])]
    assert len(programs) == len(files) and len(inside) >= len(files) - 1  # one has an archive for a slice
    require_own_address(ca, first, files=inside)
    for path in programs:
        require_right(path)


@pytest.mark.parametrize("uuid", ["", "uuid=content"])
def test_a_program_that_names_a_sibling_only_has_nix_s_own_address(ca, uuid):
    script = f"mkdir -p $out/bin $dev; echo dev > $dev/dev; python3 ${{./synthetic_macho.py}} $out/bin/prog {uuid} $dev/share"
    expression = f'let d = sh "two" "{script}" ({CA} // {{ outputs = [ "out" "dev" ]; }}); in [ d.out d.dev ]'
    out, dev = map(Path, ca.build(expression).ok().lines)
    require_right(out / "bin/prog")
    assert str(out) == addressed_path(ca, out, [dev])
    assert content_address(ca, out).startswith("fixed:r:sha256:")
    ca.build(expression, "--check").ok()


def test_a_program_may_name_itself_and_a_sibling(ca):
    line = "$out/bin/prog uuid=content $out/share $dev/share $out/lib"
    script = f"mkdir -p $out/bin $dev; echo dev > $dev/dev; python3 ${{./synthetic_macho.py}} {line}"
    expression = f'let d = sh "two" "{script}" ({CA} // {{ outputs = [ "out" "dev" ]; }}); in [ d.out d.dev ]'
    out, dev = map(Path, ca.build(expression).ok().lines)
    require_own_address(ca, out, [dev])
    assert str(dev).encode() in (out / "bin/prog").read_bytes()
    ca.build(expression, "--check").ok()


def test_a_program_that_names_its_path_more_often_than_is_kept(ca):
    expression = made("prog", ["$out/bin/prog uuid=content times=70000 $out/share"])
    require_own_address(ca, ca.output(expression))
    ca.build(expression, "--check").ok()


@pytest.mark.every_client
def test_an_impure_output_has_such_an_address_too(ca):
    path = ca.new_output(made("prog", ["$out/bin/prog uuid=content $out/share"]).replace(CA, IMPURE))
    require_own_address(ca, path)


def test_a_broken_seal_and_symbols_that_belong_to_no_program_are_named(ca):
    symbols, app = "$out/prog.dSYM/Contents/Resources/DWARF", "$out/X.app/Contents"
    script = f"mkdir -p {symbols} {app}/MacOS {app}/_CodeSignature; echo x | tee {symbols}/prog > {app}/_CodeSignature/CodeResources; " \
        f"for i in X prog; do python3 ${{./synthetic_macho.py}} {app}/MacOS/$i uuid=content $out/$i; done"
    built = ca.build(f'sh "sealed" "{script}" {CA}').ok()
    built.says("the seal of the bundle 'X.app' of output 'out' is broken", "DWARF/prog' of output 'out' no longer belong to their program")
    require_own_address(ca, Path(built.path), files=["X.app/Contents/MacOS/X", "X.app/Contents/MacOS/prog"])


@pytest.mark.every_client
@SANDBOXES
@pytest.mark.parametrize("signature, why", [("malformed", "its slots reach beyond its end"),
                                            ("limit-in-signature", "it covers a part of the signature itself")],
                         ids=["malformed", "limit-in-signature"])
def test_a_file_without_a_normal_form_is_hashed_as_nix_does_it(ca, signature, why):
    """And the log says why."""
    built = ca.build(made("prog", [f"$out/bin/prog signature={signature} $out/share"])).ok()
    built.says("'bin/prog' of output 'out'", "as Nix does it", "no normal form, because", why)
    assert built.path == addressed_path(ca, built.path)
    assert content_address(ca, built.path).startswith("fixed:r:sha256:")


@pytest.mark.every_client
@SANDBOXES
def test_a_scattered_signature_is_not_renewed_and_its_file_hashed_as_nix_does_it(ca):
    """It may be valid, so that the build fails unless a wrong one is wanted."""
    expression = made("prog", ["$out/bin/prog signature=scattered $out/share"])
    ca.build(expression).fails().says("as Nix does it", "no normal form, because", "it is scattered", "cannot stay valid", "macho-signatures = warn")
    assert not [path for path in ca.valid_paths() if path.endswith("-prog")]
    set_signatures(ca, "warn")
    built = ca.build(expression).ok().says("'bin/prog' of output 'out'", "it is scattered")
    assert built.path == addressed_path(ca, built.path)
    assert content_address(ca, built.path).startswith("fixed:r:sha256:")


@pytest.mark.parametrize("signature", ["cms", "unknown"])
def test_a_signature_that_nobody_can_renew_is_refused(ca, signature):
    ca.build(made("prog", [f"$out/bin/prog signature={signature} $out/share"])).fails().says("'bin/prog' of output 'out'", "cannot stay valid")


def test_with_refuse_no_signature_is_renewed(ca):
    ca.conf["macho-signatures"] = "refuse"
    ca.build(made("prog", ["$out/bin/prog $out/share"])).fails().says("macho-signatures = refuse")


def test_with_warn_the_address_is_nix_s_own(ca):
    ca.conf["macho-signatures"] = "warn"
    path = ca.output(made("prog", ["$out/bin/prog $out/share"]))
    assert str(path) == addressed_path(ca, path)
    assert content_address(ca, path).startswith("fixed:r:sha256:")
    assert synthetic_macho.stale_slots((path / "bin/prog").read_bytes())


def test_with_warn_too_an_address_of_firn_s_own_is_checked_in_final_forms(ca):
    expression = made("prog", ["$out/bin/prog uuid=content $out/share"])
    path = ca.output(expression)
    ca.stop()
    ca.conf["macho-signatures"] = "warn"
    ca.build(expression, "--check").ok()
    require_own_address(ca, path)


# --- other stores

@pytest.fixture
def keys(ca):
    ca.direct("nix-store", "--generate-binary-cache-key", "test-1", ca.root / "secret", ca.root / "public").ok()
    return ca.root / "secret", (ca.root / "public").read_text().strip()


def import_into_another(world, path, *options):
    """A stock client's own store, with its root elsewhere."""
    return world.run("nix", "copy", "--to", f"local?root={world.root}/other", path, *options)


@pytest.mark.every_client
@SANDBOXES
def test_stock_nix_takes_it_with_a_signature_it_trusts_only(ca, keys):
    secret, public = keys
    expression = made("prog", ["$out/bin/prog uuid=content $out/share"])
    path = ca.output(expression)
    import_into_another(ca, path).fails().says("lacks a")
    ca.run("nix-store", "--delete", path).ok()
    ca.stop()
    ca.conf["secret-key-files"] = str(secret)
    assert ca.output(expression) == path
    import_into_another(ca, path).fails().says("lacks a")
    import_into_another(ca, path, "--option", "trusted-public-keys", public).ok()
    copy = ca.root / "other/nix/store" / path.name / "bin/prog"
    assert copy.read_bytes() == (path / "bin/prog").read_bytes()
    ca.run("nix-store", "--store", f"local?root={ca.root}/other", "--verify", "--check-contents").ok()


def offer(world, path, nar, **fields):
    """As an unprivileged client of the daemon offers a path, which must not be valid."""
    with protocol.Connection(world) as connection:
        connection.add_nar(str(path), nar, references=[str(path)], check=True, **fields)


def refused(world, path, nar, **fields):
    with pytest.raises(protocol.DaemonError):
        offer(world, path, nar, **fields)
    assert not world.is_valid(path)


def uuid_place(file):
    return file.index(b"\x1b\0\0\0\x18\0\0\0") + 8


def slot_place(file):
    return file.rindex(b"synthetic\0") + len(b"synthetic\0")


@pytest.fixture
def offered(ca):
    """A path that is not valid any more, its archive and its program."""
    path = ca.output(made("prog", ["$out/bin/prog uuid=content $out/share"]))
    nar, file = dump(ca, path), (path / "bin/prog").read_bytes()
    ca.run("nix-store", "--delete", path).ok()
    return path, nar, file


@pytest.mark.parametrize("times", [1, 70000])
def test_firn_takes_it_without_a_signature(ca, times):
    path = ca.output(made("prog", [f"$out/bin/prog uuid=content times={times} $out/share"]))
    nar = dump(ca, path)
    ca.run("nix-store", "--delete", path).ok()
    offer(ca, path, nar)
    require_own_address(ca, path)


@pytest.mark.parametrize("place", [uuid_place, slot_place])
def test_a_changed_uuid_or_slot_is_refused(ca, offered, place):
    """The address does not depend on them."""
    path, nar, file = offered
    changed = bytearray(file)
    changed[place(file)] ^= 1
    assert not is_final(bytes(changed), path.name[:32])
    bad = nar.replace(file, bytes(changed))
    refused(ca, path, bad)
    refused(ca, path, bad, ca=f"fixed:r:sha256:{hashlib.sha256(bad).hexdigest()}")


def test_changed_contents_are_refused_even_if_their_signature_fits(ca, offered):
    path, nar, file = offered
    changed = file.replace(b"endend", b"dneend", 1)
    part = path.name[:32].encode()
    changed = normal_form.final_form(changed, normal_form.occurrences(changed, part), part)
    assert is_final(changed, part.decode())
    refused(ca, path, nar.replace(file, changed))


def test_a_program_with_nix_s_own_address_is_not_taken_as_one_of_firn_s(ca):
    """It would have an empty `ca` field, and a signature that is wrong."""
    ca.conf["macho-signatures"] = "warn"
    path = ca.output(made("prog", ["$out/bin/prog uuid=content $out/share"]))
    nar, address = dump(ca, path), content_address(ca, path)
    ca.run("nix-store", "--delete", path).ok()
    refused(ca, path, nar)
    offer(ca, path, nar, ca=address)
    assert ca.is_valid(path)


def test_a_signature_is_of_the_whole_file(ca, keys):
    secret, public = keys
    ca.conf |= {"secret-key-files": str(secret), "trusted-public-keys": public}
    path = ca.output(made("prog", ["$out/bin/prog uuid=content $out/share"]))
    with protocol.Connection(ca) as connection:
        signatures = connection.path_info(str(path))["signatures"]
    assert [signature.split(":")[0] for signature in signatures] == ["test-1"]
    nar, file = dump(ca, path), (path / "bin/prog").read_bytes()
    ca.run("nix-store", "--delete", path).ok()
    changed = bytearray(file)
    changed[uuid_place(file)] ^= 1
    refused(ca, path, nar.replace(file, bytes(changed)), signatures=signatures)
    offer(ca, path, nar, signatures=signatures)
    assert ca.is_valid(path)


# --- from one Firn to another, by stock clients

def become_another(world):
    """An empty store of the same name in the place of this one, and a client that it does not trust."""
    world.stop()
    for folder in (world.store, world.state):
        subprocess.run(["chmod", "-R", "u+w", folder], check=True)
        shutil.rmtree(folder)
    world.state.mkdir()
    world.conf["trusted-users"] = "nobody-here"
    with protocol.Connection(world, 0x123) as connection:
        assert connection.trusted is False


def by_export(world, path):
    """What gives the path to the store that is there then, after a change of its archive."""
    exported = world.run_bytes("nix-store", "--export", path)

    def give(old=b"", new=b""):
        return world.run("nix-store", "--import", input=exported.replace(old, new))
    return give


def by_copy(world, path):
    """Through a binary cache, of which whoever has it may change everything."""
    cache = world.root / "cache"
    world.run("nix", "copy", "--to", f"file://{cache}?compression=none", path).ok()
    index = cache / f"{path.name[:32]}.narinfo"
    text = index.read_text()
    archive = cache / re.search("^URL: (.*)$", text, re.M)[1]
    nar = archive.read_bytes()
    assert not re.search("^(CA|Sig): ", text, re.M)

    def give(old=b"", new=b""):
        changed = nar.replace(old, new)
        archive.write_bytes(changed)
        digest = base32(hashlib.sha256(changed).digest())
        index.write_text(re.sub("^(NarHash|FileHash): .*$", rf"\1: sha256:{digest}", text, flags=re.M))
        home = world.root / f"home-{digest}"  # a client remembers what a cache had
        home.mkdir()
        return world.run("nix", "copy", "--from", f"file://{cache}", path, env={"HOME": str(home)})
    return give


WAYS = pytest.mark.parametrize("way", [by_export, by_copy])


@pytest.mark.every_client
@SANDBOXES
@WAYS
def test_another_firn_takes_it_from_anybody_without_a_signature(ca, way):
    path = ca.output(made("prog", ["$out/bin/prog uuid=content $out/share"]))
    file = (path / "bin/prog").read_bytes()
    give = way(ca, path)
    become_another(ca)
    assert not path.exists()
    give().ok()
    assert (path / "bin/prog").read_bytes() == file
    require_own_address(ca, path)


@pytest.mark.every_client
@WAYS
@pytest.mark.parametrize("place", [uuid_place, slot_place])
def test_another_firn_refuses_a_changed_uuid_or_slot(ca, way, place):
    path = ca.output(made("prog", ["$out/bin/prog uuid=content $out/share"]))
    file = (path / "bin/prog").read_bytes()
    give = way(ca, path)
    become_another(ca)
    changed = bytearray(file)
    changed[place(file)] ^= 1
    give(file, bytes(changed)).fails().says(f"cannot add path '{path}'", "lacks a")
    assert not ca.is_valid(path) and not path.exists()
    give().ok()
    assert ca.is_valid(path)


@pytest.mark.every_client
@WAYS
def test_another_firn_refuses_what_has_no_address_at_all(ca, way):
    """So it is the address by which it takes the others."""
    path = ca.output('sh "plain" "echo $out > $out" {}')
    give = way(ca, path)
    become_another(ca)
    give().fails().says("lacks a")
    assert not ca.is_valid(path)


# --- repair

@pytest.mark.every_client
@SANDBOXES
def test_a_repair_puts_the_same_program_back(ca):
    expression = made("prog", ["$out/bin/prog uuid=content $out/share"])
    path = ca.output(expression)
    program = path / "bin/prog"
    good = program.read_bytes()
    for command in ca.repairs(expression):
        damage(program, good.replace(b"endend", b"dneend", 1))
        ca.run(*command).ok()
        assert program.read_bytes() == good
    require_own_address(ca, path)


def damage(program, data):
    program.chmod(0o644)
    program.write_bytes(data)
    program.chmod(0o555)


@pytest.mark.every_client
def test_with_warn_too_an_address_of_firn_s_own_is_repaired_in_final_forms(ca):
    expression = made("prog", ["$out/bin/prog uuid=content $out/share"])
    path = ca.output(expression)
    good = (path / "bin/prog").read_bytes()
    damage(path / "bin/prog", b"damage")
    ca.stop()
    ca.conf["macho-signatures"] = "warn"
    repaired = ca.build(expression, "--repair").ok()
    assert repaired.path == str(path) and "wrong" not in repaired.err and "known to be" not in repaired.err
    assert (path / "bin/prog").read_bytes() == good
    require_own_address(ca, path)


@pytest.mark.every_client
def test_a_repair_of_a_path_by_nix_s_own_rule_gives_back_what_was_registered_under_warn_alone(ca):
    expression = made("prog", ["$out/bin/prog uuid=content $out/share"])
    ca.conf["macho-signatures"] = "warn"
    path = ca.output(expression)
    wrong = (path / "bin/prog").read_bytes()
    assert synthetic_macho.stale_slots(wrong)
    damage(path / "bin/prog", b"damage")
    ca.stop()
    ca.conf["macho-signatures"] = "repair"
    ca.build(expression, "--repair").fails().says(f"cannot repair '{path}', output 'out' of '", "'bin/prog'", "'macho-signatures = warn' alone")
    assert (path / "bin/prog").read_bytes() == b"damage" and ca.valid_paths() >= {str(path)}
    ca.stop()
    ca.conf["macho-signatures"] = "warn"
    assert ca.build(expression, "--repair").ok().path == str(path)
    assert (path / "bin/prog").read_bytes() == wrong
    # As the message says.
    ca.stop()
    ca.conf["macho-signatures"] = "repair"
    ca.run("nix-store", "--delete", path).ok()
    other = ca.output(expression)
    assert other != path
    require_own_address(ca, other)


SIBLINGS = "python3 ${./synthetic_macho.py} $out/bin/prog uuid=content $out/share $doc; python3 ${./synthetic_macho.py} $out/bin/other $doc"
PAIR = f'sh "pair" "mkdir -p $out/bin; echo text > $doc; {SIBLINGS}" ({CA} // {{ outputs = [ "out" "doc" ]; }})'
OTHER_ALONE = f'sh "alone" "mkdir -p $out/bin; echo text > $doc; {SIBLINGS.split("; ")[1]}" ({CA} // {{ outputs = [ "out" "doc" ]; }})'


def set_signatures(world, how):
    world.stop()
    world.conf["macho-signatures"] = how


def test_with_warn_too_what_names_other_outputs_is_final_in_an_address_of_firn_s_own(ca):
    path = ca.output(PAIR)
    good = {name: (path / "bin" / name).read_bytes() for name in ("prog", "other")}
    assert not any(map(synthetic_macho.stale_slots, good.values()))
    set_signatures(ca, "warn")
    ca.build(PAIR, "--check").ok()
    damage(path / "bin/other", b"damage")
    ca.build(PAIR, "--repair").ok()
    assert {name: (path / "bin" / name).read_bytes() for name in good} == good
    ca.verify()


@pytest.mark.parametrize("expression, file", [(PAIR, "prog"), (OTHER_ALONE, "other")])
def test_a_repair_of_a_path_by_nix_s_own_rule_says_so_where_other_outputs_are_named_too(ca, expression, file):
    ca.conf["macho-signatures"] = "warn"
    path = ca.output(expression)
    wrong = (path / "bin" / file).read_bytes()
    assert synthetic_macho.stale_slots(wrong)
    damage(path / "bin" / file, b"damage")
    set_signatures(ca, "repair")
    ca.build(expression, "--repair").fails().says(f"cannot repair '{path}', output 'out' of '", "'macho-signatures = warn' alone")
    assert (path / "bin" / file).read_bytes() == b"damage"
    set_signatures(ca, "warn")
    ca.build(expression, "--repair").ok()
    assert (path / "bin" / file).read_bytes() == wrong


# --- checks

@pytest.mark.every_client
@SANDBOXES
def test_a_check_tells_what_repeats_from_what_does_not(ca):
    line = "$out/bin/prog uuid=content $out/{}"
    good, bad = made("good", [line.format("share")]), made("bad", [line.format("x$(od -An -N4 -tx1 /dev/urandom | tr -d ' ')")])
    ca.output(good)
    for check in (lambda expression: ca.build(expression, "--check"),
                  lambda expression: ca.run("nix", "build", "--no-link", "--rebuild", "-f", ca.nix(expression))):
        assert "differs" not in check(good).ok().err
    path = ca.output(bad)
    for check in (lambda expression: ca.build(expression, "--check"),
                  lambda expression: ca.run("nix", "build", "--no-link", "--rebuild", "-f", ca.nix(expression))):
        check(bad).fails().says(f"may not be deterministic: output '{path}' differs", "bin/prog: contents of a Mach-O differ")
    require_own_address(ca, path)
