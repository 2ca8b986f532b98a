"""Signatures of real programs for macOS: as other tools made them, before and after store paths in them were rewritten.

The files come from scripts/macho-files and from two linkers (tests/macho/link); tests/macho/check.py judges them, which
shares nothing with Firn's own code.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import macho
import world as worlds
from conftest import STOCK
from macho import check, plant

REAL = macho.real_files()
REAL_IDS = [macho.name_of(file) for file, _ in REAL]
LINKED = [(linker, architecture) for linker, architectures in macho.LINKERS.items() for architecture in architectures]
CMS = [(file, path) for file, path in REAL if any(slice_["kind"] == "cms" for slice_ in file["slices"])]
REPAIRABLE = [(file, path) for file, path in REAL if (file, path) not in CMS]
firns = pytest.mark.firn_only("the stock daemon has no such tool")


@pytest.fixture
def scratch(tmp_path):
    """A folder that does not stay: some of the files are large."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="session")
def zig_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("zig")


@pytest.fixture(scope="session")
def linked(tmp_path_factory, zig_cache):
    """{(linker, architecture): program}, all with a store path in their text."""
    folder = tmp_path_factory.mktemp("linked")
    text = f"/nix/store/{'a' * 32}-doc/share"
    return {key: macho.link(*key, text, folder / "-".join(key), zig_cache) for key in LINKED}


# --- what the files are

@pytest.mark.parametrize("file, path", REAL, ids=REAL_IDS)
def test_a_real_file_is_what_it_is_said_to_be(file, path):
    report = check.check_file(path)
    assert report["isMacho"] and not check.problems(report)
    found = [{"architecture": slice_["architecture"], "kind": slice_["kind"], "cmsSize": slice_["cmsSize"], "directories": [
        {key: directory[key] for key in ("hashType", "pageSize", "flags", "version", "specialSlots")}
        for directory in slice_["directories"]]} for slice_ in report["slices"]]
    assert found == file["slices"]
    assert check.stale(report) == [tuple(slot) for slot in file["stale"]]


def test_the_real_files_are_of_every_class():
    slices = [slice_ for file, _ in REAL for slice_ in file["slices"]]
    directories = [directory for slice_ in slices for directory in slice_["directories"]]
    assert {slice_["kind"] for slice_ in slices} == {"none", "linker-signed", "ad-hoc", "cms"}
    assert {slice_["cmsSize"] for slice_ in slices if slice_["kind"] == "ad-hoc"} == {None, 0}, "ldid's and codesign's"
    assert {directory["pageSize"] for directory in directories} == {4096, 16384}
    assert any([directory["hashType"] for directory in slice_["directories"]] == [1, 2] for slice_ in slices)
    assert any({slice_["kind"] for slice_ in file["slices"]} > {"none"} for file, _ in REAL), "universal, partly signed"
    assert any(file["stale"] for file, _ in REAL) and any(file["size"] > 100_000_000 for file, _ in REAL)


@pytest.mark.parametrize("key", LINKED, ids="-".join)
def test_a_linked_program_is_right_as_it_comes(linked, key):
    report = check.check_file(linked[key])
    assert not check.stale(report) and not check.problems(report)
    assert len(report["slices"]) == (2 if key[1] == "universal" else 1)
    signed = [slice_["kind"] for slice_ in report["slices"]]
    # Zig 0.11 leaves programs for x86_64 unsigned.
    assert signed == {"lld": ["linker-signed"] * len(signed), "zig": {"arm64": ["linker-signed"], "x86_64": ["none"],
                      "universal": ["none", "linker-signed"]}[key[1]]}[key[0].split("-")[0]]


# --- what the daemon does: fish's programs in nixpkgs broke like this

def fish(world, linker, architecture, zig_cache):
    """A derivation of two outputs; the program in one of them holds the path of the other."""
    macho.copy_linker(world)
    zig = ""
    if linker == "zig":
        cache = shutil.copytree(zig_cache, world.root / "zig")
        subprocess.run(["chmod", "-R", "a+rX", cache], check=True)  # for build users
        zig = f"export ZIG={macho.zig()} ZIG_GLOBAL_CACHE_DIR=$PWD/zig; cp -r {cache} zig"
    return f"""sh "fish" ''
        mkdir -p $out/bin $doc/share
        echo documents > $doc/share/readme
        {zig}
        sh $macho/link {linker} {architecture} $doc/share $out/bin/fish
    '' {{ outputs = [ "out" "doc" ]; macho = ./macho; }}"""


@pytest.fixture
def unsandboxed(world):
    world.conf["sandbox"] = "false"
    return world


def build_outputs(world, expression):
    """The program, and the outputs' paths."""
    found = world.build(expression, "-A", "all").ok()
    out, doc = found.lines
    return found, (world.store / out / "bin/fish"), out, doc


def replay(world, expression):
    """Builds, deletes the first output behind the daemon's back, builds again: (first program, second, the second's log)."""
    _, program, out, doc = build_outputs(world, expression)
    first = program.read_bytes()
    assert doc.encode() in first
    world.direct("nix-store", "--delete", out).ok()
    assert not world.is_valid(out) and world.is_valid(doc)
    log, again, _, _ = build_outputs(world, expression)
    assert again == program
    return first, program.read_bytes(), log


PROGRAMS = [("lld", "arm64"), ("lld", "x86_64"), ("lld", "universal")]
WITH_UUID = [("lld-uuid", "arm64"), ("lld-uuid", "universal"), ("zig", "arm64")]


@pytest.mark.every_client
@pytest.mark.parametrize("linker, architecture", PROGRAMS, ids=map("-".join, PROGRAMS))
def test_a_program_whose_sibling_is_kept_is_the_same_as_one_that_was_not_rewritten(unsandboxed, zig_cache, linker, architecture):
    first, second, log = replay(unsandboxed, fish(unsandboxed, linker, architecture, zig_cache))
    assert not check.stale(check.check(first))
    if STOCK:
        # The fault: the path is right, the digests of the pages that hold it are those of another path.
        slices = [slice_["offset"] for slice_ in check.check(second)["slices"]]
        assert [slice_ for slice_, _, _ in check.stale(check.check(second))] == slices
        assert check.stale(check.check(second)) == [slot for slot in check.slots_over(second, path_places(first))]
        return
    assert not check.stale(check.check(second))
    macho.same(second, first)
    told = [line for line in log.err.splitlines() if "repaired the page hashes" in line and "bin/fish" in line]
    assert len(told) == 1, f"one line says what was repaired\n{log}"


def path_places(data):
    """Where the one store path lies in each slice."""
    found, at = [], -1
    while (at := data.find(b"-fish-doc/share", at + 1)) >= 0:
        found.append((at - 32, 32))
    return found


@pytest.mark.parametrize("linker, architecture", WITH_UUID, ids=map("-".join, WITH_UUID))
@firns
@pytest.mark.usefixtures("linked")  # which fills Zig's cache
def test_of_a_program_with_a_digest_of_its_content_only_that_differs(unsandboxed, zig_cache, linker, architecture):
    first, second, _ = replay(unsandboxed, fish(unsandboxed, linker, architecture, zig_cache))
    assert not check.stale(check.check(second))
    uuids = check.uuids(first)
    assert len(uuids) == len(check.slices_of(first))
    allowed = set()
    for offset, size in uuids + list(check.slots_over(first, uuids).values()):
        allowed |= set(range(offset, offset + size))
    assert set(macho.differences(first, second)) <= allowed


@pytest.mark.every_client
@pytest.mark.stock_leaves("store")
@pytest.mark.parametrize("linker, architecture", PROGRAMS, ids=map("-".join, PROGRAMS))
def test_a_check_of_a_right_program_succeeds(unsandboxed, zig_cache, linker, architecture):
    expression = fish(unsandboxed, linker, architecture, zig_cache)
    _, program, _, _ = build_outputs(unsandboxed, expression)
    assert not check.stale(check.check_file(program))
    again = unsandboxed.build(expression, "-A", "all", "--check")
    if STOCK:
        again.fails().says("may not be deterministic")
    else:
        again.ok()


@pytest.mark.stock_leaves("store")
@pytest.mark.parametrize("linker, architecture", PROGRAMS, ids=map("-".join, PROGRAMS))
def test_a_check_after_the_program_was_rewritten_agrees_with_it(unsandboxed, zig_cache, linker, architecture):
    expression = fish(unsandboxed, linker, architecture, zig_cache)
    _, second, _ = replay(unsandboxed, expression)
    # The stock daemon breaks both alike, so that it endorses the broken one.
    assert bool(check.stale(check.check(second))) == STOCK
    unsandboxed.build(expression, "-A", "all", "--check").ok()


@pytest.mark.every_client
@pytest.mark.stock_leaves("store")
def test_a_damaged_program_is_right_again_after_its_repair(unsandboxed, zig_cache):
    expression = fish(unsandboxed, "lld", "arm64", zig_cache)
    _, program, _, _ = build_outputs(unsandboxed, expression)
    first = program.read_bytes()
    for command in unsandboxed.repairs(expression, "all"):
        program.parent.chmod(0o755)
        program.chmod(0o755)
        program.write_bytes(first[:20000] + b"damage" + first[20006:])
        unsandboxed.run(*command).ok()
        second = program.read_bytes()
        assert bool(check.stale(check.check(second))) == STOCK
        if not STOCK:
            macho.same(second, first)


@pytest.mark.every_client
def test_a_damaged_program_is_the_same_again_after_its_repair_in_a_sandbox(world):
    """Nothing is rewritten there: the builder makes it at its path."""
    world.conf["sandbox-paths"] = worlds.HOST_TOOLS
    shutil.copy(worlds.HERE / "synthetic_macho.py", world.src)
    expression = """sh "pair" "mkdir -p $out/bin; echo $doc > $doc; python3 ${./synthetic_macho.py} $out/bin/prog uuid=content $out/share $doc"
        { outputs = [ "out" "doc" ]; }"""
    out, doc = world.build(expression, "-A", "all").ok().lines
    program = Path(out) / "bin/prog"
    first = program.read_bytes()
    assert not check.stale(check.check(first))
    for command in world.repairs(expression, "all"):
        program.chmod(0o644)
        program.write_bytes(b"damage")
        program.chmod(0o555)
        world.run(*command).ok()
        assert program.read_bytes() == first and Path(doc).read_text() == doc + "\n"


def planted(world, files):
    """A derivation whose program files hold, in all places, the hash part of its other output's path."""
    macho.copy_linker(world)
    for name in ("check.py", "plant.py"):
        shutil.copy(macho.HERE / name, world.src / "macho" / name)
    paths = " ".join(str(path) for _, path in files)
    return f"""sh "real" ''
        mkdir -p $out $doc
        name=$(basename $doc)
        /usr/bin/python3 -B $macho/plant.py $(echo $name | cut -c1-32) $out {paths}
    '' {{ outputs = [ "out" "doc" ]; macho = ./macho; }}"""


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def build_twice(world, expression):
    """The files as they were built, and what the second build says after they were deleted and the sibling was not."""
    out, doc = world.build(expression, "-A", "all").ok().lines
    first = contents(world.store / out)
    world.direct("nix-store", "--delete", out).ok()
    return first, world.build(expression, "-A", "all"), out


def test_real_programs_with_hashes_everywhere_survive_a_rewriting_by_the_daemon(unsandboxed):
    files = [(file, path) for file, path in REPAIRABLE if file["size"] < 60_000_000]
    first, result, out = build_twice(unsandboxed, planted(unsandboxed, files))
    result.ok()
    second = contents(unsandboxed.store / out)
    assert list(first) == list(second) and len(first) == len(files)
    signed = [name for name in first if check.slots_over(first[name], [(0, len(first[name]))])]
    stale = [name for name in second if check.stale(check.check(second[name]))]
    if STOCK:
        assert stale == signed and len(signed) > 8
        return
    assert not stale
    for name in first:
        macho.same(second[name], first[name])
    (line,) = [line for line in result.err.splitlines() if "repaired the page hashes" in line]
    assert f"in {len(signed)} Mach-O files of output 'out'" in line


@firns
def test_a_build_fails_where_it_would_break_a_cms_signature(unsandboxed):
    files = [(file, path) for file, path in CMS if file["size"] < 10_000_000]
    first, result, out = build_twice(unsandboxed, planted(unsandboxed, files))
    assert len(first) == 1
    result.fails().says(str(next(iter(first))), "CMS", "nix-store --delete")
    assert not unsandboxed.is_valid(out)


@firns
def test_a_cms_signature_is_broken_where_that_is_wanted(unsandboxed):
    unsandboxed.conf["macho-signatures"] = "warn"
    files = [(file, path) for file, path in CMS if file["size"] < 10_000_000]
    first, result, out = build_twice(unsandboxed, planted(unsandboxed, files))
    result.ok().says("macho-signatures = warn", str(next(iter(first))))
    (content,) = contents(unsandboxed.store / out).values()
    assert check.stale(check.check(content))


# --- rewriting them

def hold(scratch, original, content):
    """A file with this content and the original's name, since a name may become an identifier."""
    file = scratch / original.name
    file.write_bytes(content)
    return file


def is_cms(data):
    return any(slice_["kind"] == "cms" for slice_ in check.check(data)["slices"])


def rewritten(data, offsets):
    """What a right rewriting of a planted file gives."""
    return plant.signed(data, offsets, plant.NEW)


def rewrite_everywhere(scratch, path):
    original = path.read_bytes()
    offsets = plant.places(original).values()
    file = hold(scratch, path, plant.signed(original, offsets))
    inode = file.stat().st_ino
    macho.rewrite(file)
    now = file.read_bytes()
    macho.same(now, rewritten(original, offsets))
    assert file.stat().st_ino != inode
    stale_before = set(check.stale(check.check(original)))
    assert set(check.stale(check.check(now))) <= stale_before


@firns
@pytest.mark.parametrize("file, path", REPAIRABLE, ids=[macho.name_of(file) for file, _ in REPAIRABLE])
def test_hashes_everywhere_in_a_real_file_are_replaced_and_only_slots_over_them_change(scratch, file, path):
    rewrite_everywhere(scratch, path)


@firns
@pytest.mark.parametrize("key", LINKED, ids="-".join)
def test_hashes_everywhere_in_a_linked_program_are_replaced_and_only_slots_over_them_change(scratch, linked, key):
    rewrite_everywhere(scratch, linked[key])


SMALL = ["fsevents", "ninja-runtime-darwin-universal", "@opentui/core-darwin-arm64", "@parcel/watcher-darwin-arm64"]
EACH = [(package, place) for package in SMALL for place in plant.places(macho.real_file(package).read_bytes())]


@firns
@pytest.mark.parametrize("package, place", EACH, ids=[f"{package}: {place}" for package, place in EACH])
def test_one_hash_changes_one_place_and_the_slots_over_it(scratch, package, place):
    path = macho.real_file(package)
    original = path.read_bytes()
    offset = plant.places(original)[place]
    before = plant.signed(original, [offset])
    file = hold(scratch, path, before)
    macho.rewrite(file)
    now = file.read_bytes()
    macho.same(now, rewritten(original, [offset]))
    covering = check.slots_over(before, [(offset, 32)])
    allowed = set(range(offset, offset + 32)).union(*(range(at, at + size) for at, size in covering.values()))
    assert set(macho.differences(before, now)) <= allowed
    assert not check.stale(check.check(now))
    if "page" in place:
        assert covering, "a page has a slot"
    if "behind" in place or "unsigned" in place or "identifier" in place:
        assert not covering


@firns
@pytest.mark.parametrize("file, path", CMS, ids=[macho.name_of(file) for file, _ in CMS])
def test_a_cms_signature_that_was_valid_is_never_broken(scratch, file, path):
    original = path.read_bytes()
    before = plant.signed(original, plant.places(original).values())
    copy = hold(scratch, path, before)
    done = macho.firn("rewrite", "--replace", f"{plant.OLD.decode()}={plant.NEW.decode()}", copy, status=tuple(range(1, 128)))
    assert "CMS" in done.stdout + done.stderr and path.name in done.stdout + done.stderr
    macho.same(copy.read_bytes(), before)


@firns
def test_a_hash_outside_of_what_a_cms_signature_covers_is_replaced(scratch):
    path = next(path for file, path in CMS if plant.outside(path.read_bytes()) and file["size"] < 10_000_000)
    original = path.read_bytes()
    offsets = plant.outside(original).values()
    file = hold(scratch, path, plant.put(original, offsets))
    macho.rewrite(file)
    macho.same(file.read_bytes(), plant.put(original, offsets, plant.NEW))


# --- other tools' opinions

def normal(scratch, program):
    """The program in llvm-objcopy's own layout, and the name that it signs it with."""
    folder = scratch / "normal"
    folder.mkdir()
    shutil.copy(program, folder / "program")
    objcopy(folder / "program", folder / "program")
    return folder / "program"


def objcopy(source, target):
    subprocess.run(["llvm-objcopy-19", source, target], check=True)


OBJCOPIED = [key for key in LINKED if key != ("zig", "x86_64")]


@firns
@pytest.mark.parametrize("key", OBJCOPIED, ids="-".join)
def test_a_repaired_program_is_what_llvm_objcopy_signs(scratch, linked, key):
    against_objcopy(scratch, linked[key])


REAL_OBJCOPIED = ["@parcel/watcher-darwin-arm64", "@tailwindcss/oxide-darwin-arm64", "fsevents", "active-win"]


@firns
@pytest.mark.parametrize("package", REAL_OBJCOPIED)
def test_a_repaired_real_program_is_what_llvm_objcopy_signs(scratch, package):
    against_objcopy(scratch, macho.real_file(package))


def against_objcopy(scratch, path):
    """Where llvm-objcopy has nothing to lay out anew, it signs anew and does nothing else."""
    program = normal(scratch, path)
    content = program.read_bytes()
    objcopy(program, program)
    macho.same(program.read_bytes(), content)
    offsets = plant.in_sections(content)
    assert offsets
    program.write_bytes(plant.put(content, offsets, plant.NEW))
    objcopy(program, program)
    expected = program.read_bytes()
    program.write_bytes(plant.signed(content, offsets))
    macho.rewrite(program)
    macho.same(program.read_bytes(), expected)


@firns
@pytest.mark.parametrize("file, path", REAL, ids=REAL_IDS)
def test_firn_and_the_second_opinion_agree_on_a_real_file(file, path):
    agree(path)


@firns
@pytest.mark.parametrize("key", LINKED, ids="-".join)
def test_firn_and_the_second_opinion_agree_on_a_linked_program(linked, key):
    agree(linked[key])


@firns
@pytest.mark.parametrize("package", SMALL)
def test_firn_and_the_second_opinion_agree_on_a_broken_file(scratch, package):
    path = macho.real_file(package)
    original = path.read_bytes()
    agree(hold(scratch, path, plant.put(original, plant.places(original).values())))


def agree(path):
    """Firn's report says of every slice, directory and slot what the second opinion says."""
    ours = check.check_file(path)
    expected = [as_firn_says(slice_) for slice_ in ours["slices"] if slice_["architecture"]]  # not of archives
    wrong = check.stale(ours)
    found = json.loads(macho.firn("verify", "--json", path, status=1 if wrong else 0).stdout)
    assert found["summary"]["exitStatus"] == (1 if wrong else 0)
    (file,) = found["files"]
    assert file["path"] == str(path)
    signed = any(slice_["signature"] != "none" for slice_ in expected)
    assert file["verdict"] == ("stale" if wrong else "right" if signed else "unsigned")
    assert [strip(slice_) for slice_ in file["slices"]] == expected


def as_firn_says(slice_):
    names = {1: "sha1", 2: "sha256", 3: "sha256-truncated", 4: "sha384"}
    return {"architecture": slice_["architecture"], "offset": slice_["offset"], "size": slice_["size"],
            "signature": slice_["kind"], "directories": [{
                key: value for key, value in (directory | {
                    "hashType": names[directory["hashType"]],
                    "staleSpecialSlots": [-k for k in directory["staleSpecialSlots"]],
                    "externalSpecialSlots": [-k for k in directory["externalSpecialSlots"]],
                }).items() if key != "problem"} for directory in slice_["directories"]]}


def strip(slice_):
    for directory in slice_["directories"]:
        directory.pop("flagNames")
    return slice_


DAMAGED = ["ninja-runtime-darwin-universal", "fsevents", "@opentui/core-darwin-arm64"]


@firns
@pytest.mark.parametrize("package", DAMAGED)
def test_firn_and_the_second_opinion_agree_on_what_both_can_judge_in_damaged_files(scratch, package):
    original = macho.real_file(package).read_bytes()
    damaged = {str(scratch / str(seed)): plant.damaged(original, seed) for seed in range(60)}
    for path, content in damaged.items():
        Path(path).write_bytes(content)
    found = json.loads(macho.firn("verify", "--json", *damaged, status=(1, 2)).stdout)
    ours = {path: judgements(check.check(content)["slices"]) for path, content in damaged.items()}
    firns = {file["path"]: judgements(file["slices"], minus=1) for file in found["files"]}
    both = [(path, key) for path in damaged for key in ours[path].keys() & firns[path].keys()]
    assert len(both) > len(damaged) // 3
    assert [ours[path][key] for path, key in both] == [firns[path][key] for path, key in both]


def judgements(slices, minus=-1):
    """{(slice's offset, slot type): stale slots} of the directories that were judged; special slots are written as -1, -2, …"""
    return {(slice_["offset"], directory["slotType"]):
            sorted(directory["staleCodeSlots"] + [minus * k for k in directory["staleSpecialSlots"]])
            for slice_ in slices if not slice_.get("problem")
            for directory in slice_["directories"] if not directory.get("problem")}


@firns
def test_everything_at_once_is_judged_with_the_worst_verdict():
    folder = macho.real_folder()
    found = json.loads(macho.firn("verify", "--json", folder, status=1).stdout)
    stale = {str(path) for file, path in REAL if file["stale"]}
    assert {file["path"] for file in found["files"] if file["verdict"] == "stale"} == stale
    signed = [file for file, _ in REAL if any(slice_["kind"] != "none" for slice_ in file["slices"])]
    assert found["summary"]["right"] == len(signed) - len(stale) and found["summary"]["stale"] == len(stale)
    assert found["summary"]["notJudged"] == 0


@firns
def test_repair_makes_stale_programs_right(scratch):
    path = next(path for file, path in REAL if file["stale"])
    original = path.read_bytes()
    file = hold(scratch, path, original)
    macho.firn("repair", "--dry-run", file, status=1)
    macho.same(file.read_bytes(), original)
    macho.firn("repair", file)
    macho.same(file.read_bytes(), bytes(plant.renew(bytearray(original), check.stale(check.check(original)))))
    agree(file)


@firns
def test_the_demonstration_shows_the_fault_and_its_repair():
    environment = {"FIRN": str(macho.program()), "PATH": worlds.SYSTEM_PATH, "HOME": "/nonexistent", "TMPDIR": "/tmp"}
    done = subprocess.run([worlds.REPOSITORY / "scripts/macho-demo"], env=environment, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    stock, firn, repair = done.stdout.split("\n\n")[1:]
    stale, right, equal = "STALE page hashes, of page 0", "every page hash is right", "byte for byte the program"
    assert (stock.count(stale), stock.count(right), stock.count(equal)) == (2, 2, 0)
    assert (firn.count(stale), firn.count(right), firn.count(equal)) == (0, 4, 1)
    assert (repair.count(stale), repair.count(right), repair.count(equal)) == (0, 2, 1)
    check_fails, check_succeeds = "--check fails: derivation '…-fish.drv' may not be deterministic", "--check succeeds"
    assert stock.count(check_fails) == 1 and stock.count(check_succeeds) == 1
    assert firn.count(check_succeeds) == 2
