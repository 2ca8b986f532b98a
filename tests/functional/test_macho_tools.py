"""`firn macho verify`, `rewrite` and `repair`, on files that macho_files.py makes."""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import threading
import time

import pytest

import machine
import macho_files as macho
import world as worlds

OLD, NEW = "0v1ay8q0j8s2hmg3dqylhnfl4kd5bzq9", "zyxwvsrqpnmlkjihgfdcba9876543210"
OTHER = "1111111111111111111111111111111a"
BODY = bytes(range(256)) * 100
TIME = 1234567890123456789
LARGE = 31 << 27  # near the most that a load command's 32 bits reach

pytestmark = pytest.mark.firn_only("stock Nix has no such commands")


def program():
    return str((worlds.Path(os.environ.get("FIRN") or worlds.REPOSITORY / "build/src/firn/firn")).resolve())


def firn(*args, status=0, timeout=60, store="/nonexistent/store", cwd=None):
    command = [program(), "macho"] + [str(arg) for arg in args]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout,
                          cwd=cwd, env={"PATH": worlds.SYSTEM_PATH, "NIX_STORE_DIR": str(store), "LC_ALL": "C.UTF-8"})
    result = worlds.Result(command, done.returncode, done.stdout.decode(errors="surrogateescape"),
                           done.stderr.decode(errors="replace"))
    assert result.status == status, f"expected status {status}\n{result}"
    return result


def verify(*args, **options):
    return firn("verify", "--json", *args, **options).json


def rewrite(*args, **options):
    return firn("rewrite", "--json", "--replace", f"{OLD}={NEW}", *args, **options)


def is_right(path):
    """By Firn's own judgement, which test_macho_tools checks against hashlib's elsewhere."""
    return verify(path)["files"][0]["verdict"] == "right"


def write(path, data, mode=0o644):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)
    os.utime(path, ns=(TIME, TIME))
    return path


def holding(text, at=8000, body=BODY):
    """A body with a text in it."""
    data = bytearray(body)
    data[at:at + len(text)] = text.encode()
    return bytes(data)


def changed(data, *offsets):
    data = bytearray(data)
    for offset in offsets:
        data[offset] ^= 1
    return bytes(data)


def facts(path):
    """What may not change in a file that is left alone."""
    status = os.lstat(path)
    content = os.readlink(path) if os.path.islink(path) else None if os.path.isdir(path) else open(path, "rb").read()
    return status.st_ino, status.st_mode, status.st_mtime_ns, status.st_nlink, content


def snapshot(folder):
    return {os.path.join(where, name): facts(os.path.join(where, name))
            for where, folders, names in os.walk(folder) for name in folders + names}


@pytest.fixture
def tree(tmp_path):
    """Not below a folder that others named, and removable whatever its modes are."""
    yield tmp_path
    for where, folders, _ in os.walk(tmp_path):
        for name in folders:
            if not os.path.islink(os.path.join(where, name)):
                os.chmod(os.path.join(where, name), 0o755)


STYLES = {
    "linker-signed": macho.LINKED,
    "ad-hoc": macho.ADHOC_SIGNED,
    "ad-hoc-sha384": macho.Style(hash_types=(macho.SHA384,), flags=macho.ADHOC),
    "ad-hoc-cut": macho.Style(hash_types=(macho.SHA256_CUT,), flags=macho.ADHOC),
    "ad-hoc-16k": macho.Style(page_size=16384, flags=macho.ADHOC | macho.RUNTIME),
    "one-page": macho.Style(page_size=0),
}


# --- verify

@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("cpu", ["arm64", "x86_64"])
def test_a_right_file_is_right_and_described(tree, style, cpu):
    chosen = STYLES[style]
    data = macho.thin(BODY, macho.ARM64 if cpu == "arm64" else macho.X86_64, chosen)
    report = verify(write(tree / "prog", data))
    assert report["version"] == 1
    file, = report["files"]
    assert file["path"] == str(tree / "prog") and file["verdict"] == "right" and "problem" not in file
    part, = file["slices"]
    assert part["architecture"] == cpu and (part["offset"], part["size"]) == (0, len(data))
    assert part["signature"] == ("linker-signed" if chosen.flags & macho.LINKER_SIGNED else "ad-hoc")
    assert [d["slotType"] for d in part["directories"]] == [0, 0x1000][:len(chosen.hash_types)]
    names = {macho.SHA1: "sha1", macho.SHA256: "sha256", macho.SHA256_CUT: "sha256-truncated", macho.SHA384: "sha384"}
    for directory, hash_type in zip(part["directories"], chosen.hash_types):
        assert directory["hashType"] == names[hash_type]
        assert directory["pageSize"] == chosen.page_size and directory["codeLimit"] == 4096 + len(BODY)
        assert directory["codeSlots"] == len(macho.pages(bytes(4096 + len(BODY)), chosen.page_size))
        assert directory["identifier"] == "prog" and directory["flags"] == chosen.flags
        assert "adhoc" in directory["flagNames"] and directory["staleCodeSlots"] == directory["staleSpecialSlots"] == []
    assert report["summary"] == {"files": 1, "bytes": len(data), "slices": 1, "right": 1, "stale": 0, "notJudged": 0, "unsigned": 0,
                                 "exitStatus": 0}


def test_the_stale_slots_are_named(tree):
    path = write(tree / "prog", changed(macho.thin(BODY, style=macho.ADHOC_SIGNED), 100, 4096 * 3, 4096 * 4, 4096 * 5 + 4095))
    for directory in verify(path, status=1)["files"][0]["slices"][0]["directories"]:
        assert directory["staleCodeSlots"] == [0, 3, 4, 5]
    text = firn("verify", path, status=1).out
    assert f"{path}: STALE" in text and "stale code slots: 0, 3-5 (4 of 8)" in text
    assert "flags 0x2 (adhoc)" in text and "identifier 'prog'" in text and "sha1" in text and "pages of 4096 bytes" in text


def test_a_stale_special_slot_is_named(tree):
    data = macho.thin(BODY, style=macho.ADHOC_SIGNED)
    path = write(tree / "prog", data.replace(b"<plist/>", b"<plisT/>"))
    for directory in verify(path, status=1)["files"][0]["slices"][0]["directories"]:
        assert directory["staleSpecialSlots"] == [-5] and directory["staleCodeSlots"] == []
    assert "-5 (entitlements)" in firn("verify", path, status=1).out


def test_every_slice_of_a_universal_file_is_judged(tree):
    arm, intel = macho.thin(BODY), macho.thin(BODY, macho.X86_64, macho.ADHOC_SIGNED)
    path = write(tree / "prog", macho.fat((macho.ARM64, arm), (macho.X86_64, changed(intel, 5000))))
    file, = verify(path, status=1)["files"]
    assert [(part["architecture"], part["offset"], part["directories"][0]["staleCodeSlots"]) for part in file["slices"]] == \
        [("arm64", 0x4000, []), ("x86_64", 0xC000, [1])]


def test_signed_by_a_developer_and_unsigned_are_told_apart(tree):
    write(tree / "dev", macho.thin(BODY, style=macho.DEVELOPER))
    write(tree / "none", macho.thin(BODY, style=None))
    report = verify(tree)
    assert {os.path.basename(file["path"]): (file["verdict"], file["slices"][0]["signature"]) for file in report["files"]} == \
        {"dev": ("right", "cms"), "none": ("unsigned", "none")}
    assert report["summary"]["right"] == report["summary"]["unsigned"] == 1


def test_a_file_that_is_not_mach_o_is_said_to_be_none(tree):
    for name, data in (("empty", b""), ("text", b"#!/bin/sh\n"), ("short", b"\xcf\xfa\xed"),
                       ("java", struct.pack(">IHH", 0xCAFEBABE, 0, 61) + bytes(100))):
        assert verify(write(tree / name, data))["files"][0]["verdict"] == "not-macho", name
    assert verify(tree)["files"] == []
    assert "not a Mach-O file" in firn("verify", tree / "text").out


def test_a_malformed_file_cannot_be_judged(tree):
    data = macho.thin(BODY)
    path = write(tree / "cut", data[:-100])
    assert verify(path, status=2)["files"][0]["verdict"] == "not-judged"
    assert "NOT JUDGED" in firn("verify", path, status=2).out


def test_trouble_outranks_staleness_in_the_exit_status(tree):
    write(tree / "stale", changed(macho.thin(BODY), 5000))
    assert verify(tree, status=1)["summary"]["exitStatus"] == 1
    write(tree / "cut", macho.thin(BODY)[:-100])
    summary = verify(tree, status=2)["summary"]
    assert (summary["stale"], summary["notJudged"], summary["exitStatus"]) == (1, 1, 2)


def test_a_tree_is_walked_in_order_and_only_what_matters_is_listed(tree):
    write(tree / "b/right", macho.thin(BODY))
    write(tree / "a/stale", changed(macho.thin(BODY), 5000))
    write(tree / "text", b"text")
    os.symlink("a/stale", tree / "c-link")
    os.symlink(tree, tree / "b/loop")
    assert [os.path.relpath(file["path"], tree) for file in verify(tree, status=1)["files"]] == ["a/stale", "b/right"]
    lines = firn("verify", tree, status=1).lines
    assert lines[0] == f"{tree}/a/stale: STALE"
    assert lines[-1] == "3 files, 1 signed Mach-O with right hashes, 1 stale, 0 not judged, 0 not signed"
    assert not any("right:" in line or "text" in line for line in lines[:-1])


def test_a_symlink_on_the_command_line_is_followed(tree):
    write(tree / "a/stale", changed(macho.thin(BODY), 5000))
    os.symlink("a", tree / "folder")
    os.symlink("a/stale", tree / "file")
    assert verify(tree / "folder", status=1)["summary"]["stale"] == 1
    assert verify(tree / "file", status=1)["summary"]["stale"] == 1
    assert verify(f"{tree}/a/", status=1)["files"][0]["path"] == f"{tree}/a/stale"


def test_what_is_not_there_or_cannot_be_read_is_said(tree):
    os.symlink("nowhere", tree / "dangling")
    for path in (tree / "missing", tree / "dangling"):
        file, = verify(path, status=2)["files"]
        assert file["verdict"] == "not-judged" and "No such file" in file["problem"]
    assert verify(tree)["files"] == []  # inside a tree a dangling link is nobody's business


@pytest.mark.user_only
def test_unreadable_files_and_folders_are_said_and_the_rest_is_judged(tree):
    write(tree / "a/secret", macho.thin(BODY), 0)
    write(tree / "b/hidden", macho.thin(BODY))
    write(tree / "c", changed(macho.thin(BODY), 5000))
    (tree / "b").chmod(0)
    report = verify(tree, status=2)
    assert [(os.path.relpath(file["path"], tree), file["verdict"]) for file in report["files"]] == \
        [("a/secret", "not-judged"), ("b", "not-judged"), ("c", "stale")]
    assert all("Permission denied" in file["problem"] for file in report["files"][:2])


def test_fifos_sockets_and_devices_do_not_hang(tree):
    os.mkfifo(tree / "fifo")
    write(tree / "prog", macho.thin(BODY))
    for command in (["verify"], ["repair"], ["rewrite", "--replace", f"{OLD}={NEW}"]):
        assert firn(*command, tree, timeout=10).status == 0
        assert "neither a regular file nor a directory" in "".join(
            (result := firn(*command, tree / "fifo", timeout=10, status=2)).out + result.err)
        firn(*command, "/dev/null", timeout=10, status=2)


def test_a_very_deep_tree_is_walked(tree):
    depth, folder = 1200, os.open(tree, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("directory", dir_fd=folder)
        inner = os.open("directory", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    with open(os.open("prog", os.O_WRONLY | os.O_CREAT, dir_fd=folder), "wb") as file:
        file.write(macho.thin(holding(OLD)))
    try:
        report = verify(tree)
        assert len(report["files"][0]["path"]) > depth * 10 and report["summary"]["right"] == 1
        assert rewrite(tree).json["summary"]["replacements"] == 1
        assert verify(tree)["summary"]["right"] == 1
    finally:
        os.close(folder)
        subprocess.run(["rm", "-rf", str(tree / "directory")], check=True)


def test_a_file_that_shrinks_while_it_is_verified_is_not_judged(tree):
    path = macho.zeros(tree / "prog", LARGE)
    process = subprocess.Popen([program(), "macho", "verify", "--json", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(0.3)
    os.truncate(path, 1 << 20)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    file, = json.loads(out)["files"]
    assert file["verdict"] == "not-judged" and "while it was read" in file["problem"]


def test_a_large_file_is_verified_in_pieces_like_a_small_one(tree):
    path = macho.zeros(tree / "prog", 512 << 20, stale=(1, 1023, 1024, 1025, 20000, 32767))
    directory = verify(path, status=1)["files"][0]["slices"][0]["directories"][0]
    assert directory["staleCodeSlots"] == [1, 1023, 1024, 1025, 20000, 32767] and directory["codeSlots"] == 32768


def test_many_files_are_reported_in_order(tree):
    for number in range(3000):
        write(tree / f"{number % 7}/{number:05}", macho.thin(BODY[:number % 5000]))
    paths = [file["path"] for file in verify(tree)["files"]]
    assert len(paths) == 3000 and paths == sorted(paths)


def test_text_from_files_is_escaped(tree):
    style = macho.Style(identifier=b"\x1b[31mred\xff")
    path = write(tree / "pr\x1b[2Jog", changed(macho.thin(BODY, style=style), 5000))
    result = firn("verify", tree, status=1)
    assert "\x1b" not in result.out and "\\x1b[31mred\\xff" in result.out
    assert "\x1b" not in firn("verify", "--json", tree, status=1).out
    assert verify(tree, status=1)["files"][0]["path"] == str(path)


def test_a_path_that_is_no_utf_8_is_exact_in_the_report(tree):
    name = os.path.join(os.fsencode(tree), b"\xff\xfe")
    with open(name, "wb") as file:
        file.write(macho.thin(BODY))
    import base64
    assert base64.b64decode(verify(tree)["files"][0]["pathBytes"]) == name


def test_a_report_that_cannot_be_written_is_an_error(tree):
    path = write(tree / "prog", macho.thin(BODY))
    with open("/dev/full", "wb") as full:
        assert subprocess.run([program(), "macho", "verify", str(path)], stdout=full, stderr=subprocess.PIPE).returncode == 2


def test_wrong_words_on_the_command_line_are_refused(tree):
    for words in (["verify"], ["rewrite", tree], ["rewrite", "--replace", f"{OLD}={OLD}", tree], ["rewrite", "--replace", OLD, tree],
                  ["rewrite", "--replace", f"/nix/store/{OLD}-a=/nix/store/{NEW}-a", tree], ["repair", "--replace", "x", tree],
                  ["rewrite", "--replace", f"{OLD}={NEW}", "--replace", f"{OLD}={OTHER}", tree],
                  ["rewrite", "--replace", f"{OLD}={'e' * 32}", tree]):
        status = subprocess.run([program(), "macho"] + list(map(str, words)), capture_output=True).returncode
        assert status > 100, words


def on_a_terminal(*args, timeout=60):
    """Runs it with a terminal as standard error; returns its status and what it wrote there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    process = subprocess.Popen([program(), "macho", *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    seen, end = b"", time.monotonic() + timeout
    while time.monotonic() < end and select.select([ours], [], [], 1)[0] or process.poll() is None:
        try:
            seen += os.read(ours, 65536)
        except OSError:  # the last one closed it
            break
    os.close(ours)
    return process.wait(10), seen.decode()


def test_long_work_has_a_progress_bar_at_a_terminal_only(tree):
    path = macho.zeros(tree / "prog", 1 << 29)
    status, seen = on_a_terminal("verify", *[path] * 12)
    assert status == 0
    frames = [frame for frame in seen.split("\r") if "%" in frame]
    assert frames and all(frame.startswith("[") and "of 6.0 GiB" in frame for frame in frames), repr(seen)
    assert max(len(frame.replace("\x1b[K", "")) for frame in frames) < 80
    assert seen.endswith("\r\x1b[K"), "the bar was not taken away"
    os.truncate(path, 1 << 20)
    status, seen = on_a_terminal("verify", write(tree / "small", macho.thin(BODY)))
    assert (status, seen) == (0, "")
    assert firn("verify", tree / "small").err == ""


# --- rewrite

@pytest.mark.parametrize("style", STYLES)
def test_rewritten_contents_have_right_signatures(tree, style):
    before = macho.thin(holding(f"/nix/store/{OLD}-a/lib", at=8180), style=STYLES[style])  # across two pages
    path = write(tree / "prog", before, 0o755)
    inode = path.stat().st_ino
    change, = rewrite(path).json["files"]
    assert change["status"] == "changed" and change["replacements"] == 1
    # Signing from scratch is the oracle: the same bytes, so nothing else changed.
    assert path.read_bytes() == macho.thin(holding(f"/nix/store/{NEW}-a/lib", at=8180), style=STYLES[style])
    status = path.stat()
    assert status.st_ino != inode and status.st_mtime_ns == TIME and status.st_mode & 0o7777 == 0o755


def test_every_slice_is_repaired(tree):
    def build(text):
        return macho.fat((macho.ARM64, macho.thin(holding(text))),
                         (macho.X86_64, macho.thin(holding(text, at=0), macho.X86_64, macho.ADHOC_SIGNED)))
    path = write(tree / "prog", build(OLD))
    assert rewrite(path).json["summary"]["slots"] == 3  # one, and one of each directory
    assert path.read_bytes() == build(NEW)


def test_entitlements_with_a_hash_are_rewritten_and_repaired(tree):
    def build(text):
        return macho.thin(BODY, style=macho.Style(flags=macho.ADHOC, hash_types=(macho.SHA1, macho.SHA256), cms=b"",
                                                  entitlements=macho.entitlements(text.encode())))
    path = write(tree / "prog", build(OLD))
    rewrite(path)
    assert path.read_bytes() == build(NEW)


def test_a_tree_is_rewritten_in_contents_links_and_names(tree):
    write(tree / f"{OLD}-dir/bin/{OLD}-prog", macho.thin(holding(OLD)), 0o555)
    write(tree / f"{OLD}-dir/text", f"#!{OLD}/bin/sh {OLD}{OLD}".encode(), 0o4755)
    write(tree / "plain", b"nothing here")
    write(tree / "signed", macho.thin(BODY))
    os.symlink(f"../{OLD}-x/{OLD}", tree / "link")
    os.symlink("elsewhere", tree / "other")
    os.utime(tree / "link", ns=(TIME, TIME), follow_symlinks=False)
    kept = {name: facts(tree / name) for name in ("plain", "signed", "other")}
    link = os.lstat(tree / "link").st_ino
    report = rewrite(tree).json
    assert {name: facts(tree / name) for name in kept} == kept
    assert (tree / f"{NEW}-dir/bin/{NEW}-prog").read_bytes() == macho.thin(holding(NEW))
    assert (tree / f"{NEW}-dir/text").read_text() == f"#!{NEW}/bin/sh {NEW}{NEW}"
    assert (tree / f"{NEW}-dir/text").stat().st_mode & 0o7777 == 0o4755
    assert os.readlink(tree / "link") == f"../{NEW}-x/{NEW}"
    assert os.lstat(tree / "link").st_mtime_ns == TIME and os.lstat(tree / "link").st_ino != link
    assert sorted(os.listdir(tree)) == sorted([f"{NEW}-dir", "plain", "signed", "link", "other"])
    assert report["summary"]["replacements"] == 1 + 3 + 2 + 2 and report["summary"]["renamed"] == 2
    assert report["summary"]["refused"] == 0 and report["summary"]["exitStatus"] == 0
    assert sum("newName" in change for change in report["files"]) == 2


def test_read_only_folders_of_a_copied_store_path_stay_so(tree):
    write(tree / f"a/b/{OLD}", OLD.encode(), 0o444)
    for folder in (tree / "a/b", tree / "a"):
        folder.chmod(0o555)
        os.utime(folder, ns=(TIME, TIME))
    rewrite(tree)
    assert (tree / f"a/b/{NEW}").read_text() == NEW
    for path in (tree / "a/b", tree / "a", tree / f"a/b/{NEW}"):
        assert path.stat().st_mtime_ns == TIME and path.stat().st_mode & 0o777 == (0o444 if path.is_file() else 0o555)


def test_names_are_swapped_and_collisions_refused(tree):
    write(tree / f"swap/{OLD}", b"old")
    write(tree / f"swap/{NEW}", b"new")
    firn("rewrite", "--replace", f"{OLD}={NEW}", "--replace", f"{NEW}={OLD}", tree / "swap")
    assert (tree / f"swap/{NEW}").read_text() == "old" and (tree / f"swap/{OLD}").read_text() == "new"
    before = snapshot(tree / "swap")
    assert f"two of its entries would be called '{NEW}'" in rewrite(tree / "swap", status=2).err
    assert snapshot(tree / "swap") == before


def test_a_symlink_on_the_command_line_is_rewritten_itself(tree):
    write(tree / "file", OLD.encode())
    os.symlink(f"{OLD}/x", tree / "link")
    assert rewrite("link", "file", cwd=tree).json["summary"]["changed"] == 2
    assert os.readlink(tree / "link") == f"{NEW}/x" and (tree / "file").read_text() == NEW


def test_a_hash_at_every_edge_of_a_block_is_found(tree):
    size = 3 << 20
    for at in ((1 << 20) - 32, (1 << 20) - 31, (1 << 20) - 1, 1 << 20, (2 << 20) - 16, size - 32, 0):
        path = write(tree / "data", holding(OLD, at=at, body=b"." * size))
        assert rewrite(path).json["summary"]["replacements"] == 1
        assert path.read_bytes() == holding(NEW, at=at, body=b"." * size)


def test_a_file_full_of_hashes_is_rewritten(tree):
    count = 100000
    path = write(tree / "prog", macho.thin(OLD.encode() * count))
    assert rewrite(path).json["summary"]["replacements"] == count
    assert path.read_bytes() == macho.thin(NEW.encode() * count)


def test_a_file_that_its_owner_signed_is_left_alone_and_named(tree):
    dev = write(tree / f"{OLD}-dev", macho.thin(holding(OLD), style=macho.DEVELOPER))
    good = write(tree / "good", macho.thin(holding(OLD)))
    before = facts(dev)
    result = rewrite(tree, status=2)
    assert facts(dev) == before, "contents, inode and name stay"
    assert good.read_bytes() == macho.thin(holding(NEW)), "other files are rewritten all the same"
    refused, = [change for change in result.json["files"] if change["status"] == "refused"]
    assert refused["path"] == str(dev) and "CMS" in refused["problem"] and "signed again" in refused["remedy"]
    assert str(dev) in result.err and "CMS" in result.err
    assert not [name for name in os.listdir(tree) if name.startswith(".")], "something temporary is left"


def test_a_broken_hard_link_is_said(tree):
    path = write(tree / "prog", macho.thin(holding(OLD)))
    os.link(path, tree.parent / f"{tree.name}-other")
    change, = rewrite(path).json["files"]
    assert change["brokenLinks"] == 1
    assert (tree.parent / f"{tree.name}-other").read_bytes() == macho.thin(holding(OLD))
    write(tree / "again", macho.thin(holding(OLD)))
    os.link(tree / "again", tree / "name")
    assert "hard link broken" in firn("rewrite", "--replace", f"{OLD}={NEW}", tree / "again").out


def test_a_second_rewriting_finds_nothing(tree):
    write(tree / "prog", macho.thin(holding(OLD)))
    rewrite(tree)
    before = snapshot(tree)
    assert rewrite(tree).json["files"] == []
    assert snapshot(tree) == before


def test_a_stale_page_elsewhere_stays_stale(tree):
    def build(text):
        return changed(macho.thin(holding(text)), 4096 * 6)
    path = write(tree / "prog", build(OLD))
    rewrite(path)
    data = path.read_bytes()
    assert verify(path, status=1)["files"][0]["slices"][0]["directories"][0]["staleCodeSlots"] == [6]
    assert changed(data, 4096 * 6) == macho.thin(holding(NEW))


@pytest.mark.parametrize("command", [["rewrite", "--replace", f"{OLD}={NEW}"], ["repair"]])
def test_a_store_is_refused_by_every_way(tree, command):
    store = tree / "nix/store"
    write(store / f"{OTHER}-a/prog", changed(macho.thin(holding(OLD)), 5000))
    write(store / f"{OTHER}-b", changed(macho.thin(holding(OLD)), 5000))
    os.symlink(store / f"{OTHER}-a", tree / "link")
    before = snapshot(store)
    ways = [store, store / f"{OTHER}-a", store / f"{OTHER}-a/prog", store / f"{OTHER}-b", tree / "nix", f"{store}/../store/{OTHER}-a/",
            tree / "link/prog"]
    for way in ways:
        result = firn(*command, way, store=store, status=2)
        assert "store" in result.err and "nothing but a daemon may change" in result.err, way
    assert snapshot(store) == before
    # Without NIX_STORE_DIR a store is known by its database.
    write(tree / "nix/var/nix/db/db.sqlite", b"")
    for way in ways:
        firn(*command, way, status=2)
    assert snapshot(store) == before


def test_a_store_inside_a_tree_is_passed_over_and_what_is_beside_it_is_rewritten(tree):
    inside = write(tree / "nix/store/prog", macho.thin(holding(OLD)))
    beside = write(tree / "nix/other/prog", macho.thin(holding(OLD)))
    write(tree / "nix/var/nix/db/db.sqlite", b"")
    before = facts(inside)
    assert f"{tree}/nix/store: it is a store" in rewrite(tree, status=2).err
    assert facts(inside) == before and beside.read_bytes() == macho.thin(holding(NEW))
    rewrite(tree / "nix/other")


@pytest.mark.user_only
def test_what_may_not_be_written_is_an_error_that_names_it(tree):
    path = write(tree / "sub/prog", macho.thin(holding(OLD)))
    (tree / "sub").chmod(0o555)
    before = facts(path)
    assert "writable" in rewrite(path, status=2).err  # its folder was not named, so it is left as it is
    assert facts(path) == before


def test_a_stopped_rewriting_leaves_no_half_of_a_file(tree):
    body = (b"." * 100 + OLD.encode()) * (1 << 20)
    path = write(tree / "prog", body)
    process = subprocess.Popen([program(), "macho", "rewrite", "--replace", f"{OLD}={NEW}", str(tree)], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    machine.wait_until(lambda: len(os.listdir(tree)) > 1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert os.listdir(tree) == ["prog"]
    if process.returncode == 0:
        assert path.read_bytes() == body.replace(OLD.encode(), NEW.encode())
    else:
        assert process.returncode == 130 and path.read_bytes() == body and path.stat().st_mtime_ns == TIME


# --- repair

@pytest.mark.parametrize("style", STYLES)
def test_every_stale_slot_is_repaired(tree, style):
    good = macho.thin(BODY, style=STYLES[style])
    # Also the special slots' digests and code digests themselves, with other bytes than the right ones.
    path = write(tree / "prog", changed(good, 3, 5000, 20000)[:3] + changed(good, 5000, 20000)[3:], 0o755)
    inode = path.stat().st_ino
    change, = firn("repair", "--json", path).json["files"]
    assert change["status"] == "changed" and change["slots"] > 0
    body = bytearray(BODY)
    body[5000 - 4096] ^= 1
    body[20000 - 4096] ^= 1
    assert path.read_bytes() == macho.thin(bytes(body), style=STYLES[style])
    assert path.stat().st_ino != inode and path.stat().st_mtime_ns == TIME and path.stat().st_mode & 0o777 == 0o755


def test_a_dry_run_changes_nothing_and_says_what_would_be(tree):
    write(tree / "a/stale", changed(macho.thin(BODY), 5000))
    write(tree / "b/right", macho.thin(BODY))
    before = snapshot(tree)
    report = firn("repair", "--dry-run", "--json", tree, status=1).json
    assert [change["path"] for change in report["files"]] == [f"{tree}/a/stale"] and report["summary"]["slots"] == 1
    assert "would be repaired: 1 stale slot" in firn("repair", "--dry-run", tree, status=1).out
    assert snapshot(tree) == before
    firn("repair", tree)
    assert verify(tree)["summary"]["right"] == 2
    assert facts(tree / "b/right") == before[f"{tree}/b/right"]
    firn("repair", "--dry-run", tree)


def test_a_stale_file_that_its_owner_signed_is_refused(tree):
    path = write(tree / "dev", changed(macho.thin(BODY, style=macho.DEVELOPER), 5000))
    before = facts(path)
    for way in (path, tree):
        assert "CMS" in firn("repair", way, status=2).err
        assert "CMS" in firn("repair", "--dry-run", "--json", way, status=2).json["files"][0]["problem"]
    assert facts(path) == before


def test_a_universal_file_is_repaired_wholly_or_not_at_all(tree):
    path = write(tree / "prog", macho.fat((macho.ARM64, changed(macho.thin(BODY), 5000)),
                                          (macho.X86_64, changed(macho.thin(BODY, macho.X86_64, macho.DEVELOPER), 5000))))
    before = facts(path)
    firn("repair", path, status=2)
    assert facts(path) == before


def test_a_right_file_signed_by_its_owner_is_no_trouble(tree):
    write(tree / "dev", macho.thin(BODY, style=macho.DEVELOPER))
    assert "nothing to do" in firn("repair", tree / "dev").out
    firn("repair", tree)


def test_a_program_is_repaired_through_a_symlink(tree):
    path = write(tree / "real/prog", changed(macho.thin(BODY), 5000))
    os.symlink("real/prog", tree / "link")
    firn("repair", tree / "link")
    assert is_right(path) and os.readlink(tree / "link") == "real/prog"


def test_repairing_a_malformed_file_is_not_possible(tree):
    path = write(tree / "cut", macho.thin(BODY)[:-100])
    before = facts(path)
    firn("repair", path, status=2)
    assert facts(path) == before


def test_a_file_changed_while_it_is_repaired_is_not_replaced(tree):
    path = macho.zeros(tree / "prog", LARGE, stale=(1,))
    process = subprocess.Popen([program(), "macho", "repair", "--dry-run", "--json", str(path)], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    threading.Timer(0.3, os.truncate, (path, 1 << 20)).start()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2 and "while it was read" in err.decode(), (out, err)
