"""What rewriting store paths does to Mach-O programs, and what the daemon does about it.

A build without sandbox of which one output is valid already makes that output elsewhere, and the daemon rewrites its
path in the others. The programs are synthetic; test_macho_real.py has those of real linkers.
"""

import os
import re
import shutil
import time
from pathlib import Path

import pytest

import synthetic_macho

pytestmark = pytest.mark.firn_only("stock daemons leave the page hashes wrong")

HERE = Path(__file__).resolve().parent


def expression(world, options="", place="bin/prog", more=""):
    """`out` holds a program with the path of `doc` in it."""
    shutil.copy(HERE / "synthetic_macho.py", world.src)
    return f"""sh "prog" "mkdir -p $(dirname $out/{place}) $doc; echo text > $doc/text; {more}
        python3 ${{./synthetic_macho.py}} $out/{place} {options} $doc/share; chmod 755 $out/{place}" {{ outputs = [ "out" "doc" ]; }}"""


def build_twice(world, *args, again=(), **options):
    """As when one output was collected and is wanted again: the second build has to rewrite. Returns the first build's bytes,
    the program and the second build's result."""
    world.conf["sandbox"] = "false"
    text = expression(world, *args, **options)
    out = Path(world.build(text).ok().lines[0])
    place = options.get("place", "bin/prog")
    first = (out / place).read_bytes()
    world.direct("nix-store", "--delete", out).ok()
    return first, out / place, world.build(text, *again)


REPAIRED = (r"repaired the page hashes of 2 slots in 1 Mach-O file of output 'out' \(bin/prog: arm64 2\), "
            r"touched by rewriting \S+-prog-doc\n")


@pytest.mark.every_client
def test_a_rewritten_program_is_the_one_that_needed_no_rewrite(world):
    first, program, result = build_twice(world)
    assert synthetic_macho.stale_slots(first) == []
    assert re.search(REPAIRED, result.ok().err), result
    assert program.read_bytes() == first
    assert oct(program.stat().st_mode) == "0o100555" and program.stat().st_mtime == 1
    assert world.build(expression(world), "--check").ok()


def test_the_repair_is_in_the_log_that_is_kept(world):
    _, program, _ = build_twice(world)
    note, *rest = world.run("nix", "log", program.parent.parent).ok().out.splitlines(keepends=True)
    assert note.startswith("note: ") and re.fullmatch(REPAIRED, "".join(rest))


@pytest.mark.every_client
def test_the_repair_is_told_to_users_of_the_new_command_line_too(world):
    _, program, _ = build_twice(world)
    world.direct("nix-store", "--delete", program.parent.parent).ok()
    result = world.run("nix", "build", "--no-link", "-f", world.nix(f"({expression(world)}).out")).ok()
    assert re.search(REPAIRED, result.err), result


def test_a_check_of_a_program_succeeds_and_repairs(world):
    world.conf["sandbox"] = "false"
    text = expression(world)
    world.build(text).ok()
    assert re.search(REPAIRED, world.build(text, "--check").ok().err)


def test_what_was_stale_and_is_not_touched_stays_stale(world):
    first, program, result = build_twice(world, options="stale=2")
    assert re.search(REPAIRED, result.ok().err), result
    assert program.read_bytes() == first and synthetic_macho.stale_slots(first) == [2]


def test_a_touched_page_that_was_stale_before_is_made_right_and_named(world):
    first, program, result = build_twice(world, options="stale=1")
    assert synthetic_macho.stale_slots(first) == [1]
    assert synthetic_macho.stale_slots(program.read_bytes()) == []
    assert re.search(r"warning: the Mach-O file 'bin/prog' of output 'out' had wrong page hashes .*\(arm64, code slot 1: ", result.ok().err)


def test_more_paths_than_are_kept_are_repaired_too(world):
    first, program, result = build_twice(world, options="times=70000")
    assert re.search(r"repaired the page hashes of \d{3,} slots in 1 Mach-O file of output 'out'", result.ok().err), result
    assert len(first) > 70000 * 32 and program.read_bytes() == first


def many(world, odd):
    """Forty programs, of which one is made otherwise."""
    options = "; ".join(f"python3 ${{./synthetic_macho.py}} $out/{i} {odd if i == 27 else ''} $doc/{i}" for i in range(10, 50))
    return expression(world, more=f"mkdir -p $out; {options};")


def test_all_of_many_programs_are_repaired(world):
    world.conf["sandbox"] = "false"
    out = Path(world.build(many(world, "stale=1")).ok().lines[0])
    first = {i: (out / str(i)).read_bytes() for i in range(10, 50)}
    world.direct("nix-store", "--delete", out).ok()
    result = world.build(many(world, "stale=1")).ok()
    assert "repaired the page hashes of 82 slots in 41 Mach-O files of output 'out' (10: arm64 2; " in result.err, result
    assert result.err.count("warning: the Mach-O file") == 1 and "Mach-O file '27' of output 'out' had wrong" in result.err
    for i, data in first.items():
        again = (out / str(i)).read_bytes()
        assert synthetic_macho.stale_slots(again) == [] and (again == data) == (i != 27)


def test_of_many_programs_the_one_that_cannot_be_repaired_is_named(world):
    world.conf["sandbox"] = "false"
    out = Path(world.build(many(world, "signature=cms")).ok().lines[0])
    world.direct("nix-store", "--delete", out).ok()
    result = world.build(many(world, "signature=cms")).fails().says("Mach-O file '27' of output 'out'", "CMS signature")
    assert result.err.count("Mach-O file '") == 1 and not world.is_valid(out)


def test_a_cms_signature_fails_the_build_with_file_reason_and_remedy(world):
    first, program, result = build_twice(world, options="signature=cms")
    result.fails().says("Mach-O file 'bin/prog' of output 'out'", "CMS signature", "macho-signatures = warn")
    assert not world.is_valid(program.parent.parent)
    # What the message says to do helps.
    remedy, = re.search(r"'nix-store --delete (\S*)'", result.err).groups()
    world.direct("nix-store", "--delete", remedy).ok()
    world.build(expression(world, options="signature=cms")).ok()
    assert program.read_bytes() == first


def test_an_unknown_kind_of_hash_fails_the_build(world):
    _, program, result = build_twice(world, options="signature=unknown")
    result.fails().says("'bin/prog'", "nix-store --delete")
    assert not world.is_valid(program.parent.parent)


def test_a_malformed_program_is_registered_with_a_warning(world):
    first, program, result = build_twice(world, options="signature=malformed")
    assert re.search("warning: the Mach-O file 'bin/prog' of output 'out' has a part that is malformed", result.ok().err), result
    assert len(program.read_bytes()) == len(first) and world.is_valid(program.parent.parent)


def test_refuse_fails_a_build_that_needs_a_repair(world):
    world.conf["macho-signatures"] = "refuse"
    _, program, result = build_twice(world)
    result.fails().says("'bin/prog'", "macho-signatures = refuse", "nix-store --delete")
    assert not world.is_valid(program.parent.parent)


def test_warn_registers_stale_programs(world):
    world.conf["macho-signatures"] = "warn"
    first, program, result = build_twice(world)
    assert re.search("warning: the Mach-O file 'bin/prog' of output 'out' is registered with a wrong code signature", result.ok().err)
    assert "repaired" not in result.err
    assert len(synthetic_macho.stale_slots(program.read_bytes())) == 2 and len(first) == program.stat().st_size


# Stock clients pass on only settings that they know themselves; others come from a client of Firn's own some day.
CHOOSE = f"""
import sys; sys.path.insert(0, {str(HERE)!r})
import protocol
class World: socket = sys.argv[1]; start = lambda self: None
with protocol.Connection(World()) as connection:
    connection.set_options(macho_signatures="warn")
    connection.request(protocol.BUILD_PATHS, protocol.texts([sys.argv[2] + "!*"]), protocol.number(0))
    print(b" ".join(message for message in connection.messages if isinstance(message, bytes)).decode())
"""


def build_with_choice(world, **options):
    world.conf["sandbox"] = "false"
    drv, = world.instantiate(expression(world))
    out = Path(world.build(expression(world)).ok().lines[0])
    world.direct("nix-store", "--delete", out).ok()
    result = world.run("/usr/bin/python3", "-B", "-c", CHOOSE, world.socket, drv, **options).ok()
    return result.out, synthetic_macho.stale_slots((out / "bin/prog").read_bytes())


def test_a_trusted_user_may_choose(world):
    messages, stale = build_with_choice(world)
    assert "is registered with a wrong code signature" in messages and stale == [0, 1]


@pytest.mark.root_only
def test_an_untrusted_user_may_not_choose(world):
    messages, stale = build_with_choice(world, user="firntest")
    assert "ignoring" in messages and "'macho-signatures'" in messages and stale == []


def test_an_unknown_choice_is_refused_when_the_daemon_starts(world):
    world.conf["macho-signatures"] = "maybe"
    with pytest.raises(AssertionError, match="macho-signatures.*'maybe'.*'repair', 'refuse' or 'warn'"):
        world.start()
    world.conf["macho-signatures"] = "repair"


def test_a_bundle_whose_resource_is_rewritten_has_its_seal_reported(world):
    more = ("mkdir -p $out/X.app/Contents/_CodeSignature; echo seal > $out/X.app/Contents/_CodeSignature/CodeResources;"
            "echo $doc > $out/X.app/Contents/Info.plist;")
    _, _, result = build_twice(world, place="X.app/Contents/MacOS/X", more=more)
    result.ok().says("warning: the seal of the bundle 'X.app' of output 'out' is broken", "'X.app/Contents/Info.plist'")
    assert result.err.count("seal of the bundle") == 1 and "repaired the page hashes of 2 slots" in result.err


FAKES = {
    "dies": ("kill -9 $$", "killed by signal 9"),
    "ends": ("exit 3", "ended with exit code 3"),
    "rubbish": ("echo rubbish rubbish rubbish rubbish >&0; exec sleep 60", "no answer"),
    "missing": (None, "No such file"),
}


@pytest.mark.parametrize("fake", FAKES)
def test_a_jail_that_does_not_answer_fails_the_build(world, fake):
    script, message = FAKES[fake]
    jail = world.root / "jail"
    if script:
        jail.write_text(f"#!/bin/sh\n{script}\n")
        jail.chmod(0o755)
    world.daemon_env["FIRN_MACHO_JAIL"] = str(jail)
    _, program, result = build_twice(world)
    result.fails().says("'bin/prog'", message, "nix-store --delete")
    assert not world.is_valid(program.parent.parent)


def test_a_jail_that_hangs_ends_with_the_build_s_timeout(world):
    jail = world.root / "jail"
    jail.write_text("#!/bin/sh\nexec sleep 70\n")
    jail.chmod(0o755)
    world.daemon_env["FIRN_MACHO_JAIL"] = str(jail)
    started = time.monotonic()
    _, program, result = build_twice(world, again=("--timeout", "3"))
    result.fails().says("timed out after 3 seconds")
    assert time.monotonic() - started < 20 and not world.is_valid(program.parent.parent)
