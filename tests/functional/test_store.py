"""The store as clients use it: adding, asking, exporting, copying, signatures; and a store shared with stock Nix."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import sqlite3

import pytest

HELLO = 'sh "hello" "echo hello > $out" {}'
CHAIN = """let a = sh "a" "echo a > $out" {}; b = sh "b" "echo ${a} > $out" {}; in sh "c" "echo ${b} > $out" {}"""


def tree(world, name="tree"):
    """A folder with every kind of entry that a store path may have."""
    folder = world.src / name
    (folder / "sub/empty").mkdir(parents=True)
    (folder / "file").write_bytes(b"content\n")
    (folder / "blank").write_bytes(b"")
    (folder / "sub/run").write_bytes(b"#!/bin/sh\n")
    (folder / "sub/run").chmod(0o755)
    (folder / "link").symlink_to("sub/run")
    (folder / "ü name").write_bytes(b"12345678")
    return folder


def nar_of(world, path):
    """Stock Nix's own dump of a path, made without any daemon."""
    file = world.root / "oracle.nar"
    world.direct("sh", "-c", f"nix-store --dump '{path}' > {file}").ok()
    return file.read_bytes()


@pytest.mark.every_client
def test_add_copies_a_tree_into_the_store(world):
    folder = tree(world)
    path = world.run("nix-store", "--add", folder).ok().path
    assert nar_of(world, path) == nar_of(world, folder)
    assert world.is_valid(path)
    digest = world.direct("nix-hash", "--type", "sha256", folder).ok().path
    assert path == world.direct("nix-store", "--print-fixed-path", "--recursive", "sha256", digest, "tree").ok().path


@pytest.mark.every_client
@pytest.mark.parametrize("algorithm", ["sha256", "sha1", "md5", "sha512"])
def test_add_fixed_flat_gives_the_path_of_the_hash(world, algorithm):
    file = world.src / "file"
    file.write_bytes(b"flat content")
    path = world.run("nix-store", "--add-fixed", algorithm, file).ok().path
    digest = hashlib.new(algorithm, b"flat content").hexdigest()
    assert path == world.direct("nix-store", "--print-fixed-path", algorithm, digest, "file").ok().path


@pytest.mark.every_client
@pytest.mark.parametrize("algorithm", ["sha256", "sha1"])
def test_add_fixed_recursive_gives_the_path_of_the_nar_hash(world, algorithm):
    folder = tree(world)
    path = world.run("nix-store", "--add-fixed", "--recursive", algorithm, folder).ok().path
    digest = world.direct("nix-hash", "--type", algorithm, folder).ok().path
    assert path == world.direct("nix-store", "--print-fixed-path", "--recursive", algorithm, digest, "tree").ok().path


@pytest.mark.every_client
def test_adding_twice_gives_the_same_path(world):
    folder = tree(world)
    assert world.run("nix-store", "--add", folder).ok().path == world.run("nix-store", "--add", folder).ok().path


@pytest.mark.every_client
def test_a_text_is_added_with_its_references(world):
    path = world.run("nix-instantiate", "--eval", "--strict", "--json", "--read-write-mode", world.nix(
        'let one = builtins.toFile "one" "1"; in builtins.toFile "two" "see ${one}"')).ok().json
    assert open(path).read().startswith("see ")
    references = world.run("nix-store", "-q", "--references", path).ok().lines
    assert [name.rsplit("-", 1)[1] for name in references] == ["one"]


@pytest.mark.every_client
def test_a_large_file_is_added(world):
    file = world.src / "large"
    with open(file, "wb") as out:
        for number in range(300):
            out.write(bytes([number % 256]) * 100003)
    path = world.run("nix-store", "--add", file).ok().path
    assert os.path.getsize(path) == 300 * 100003


@pytest.mark.every_client
def test_nix_store_add_path_and_add_file(world):
    folder = tree(world)
    path = world.run("nix", "store", "add-path", folder).ok().path
    assert nar_of(world, path) == nar_of(world, folder)
    path = world.run("nix", "store", "add-file", folder / "file").ok().path
    assert open(path, "rb").read() == b"content\n"


@pytest.mark.needs_client("2.34")
@pytest.mark.parametrize("mode", ["nar", "flat", "text"])
def test_nix_store_add_in_every_mode(world, mode):
    folder = tree(world)
    path = world.run("nix", "store", "add", "--mode", mode, folder / "file").ok().path
    assert open(path, "rb").read() == b"content\n"
    assert world.is_valid(path)


@pytest.mark.every_client
def test_dump_gives_the_archive_of_a_path(world):
    folder = tree(world)
    path = world.run("nix-store", "--add", folder).ok().path
    assert world.run_bytes("nix-store", "--dump", path) == nar_of(world, folder)


@pytest.mark.every_client
def test_nix_store_dump_path_reads_through_the_daemon(world):
    folder = tree(world)
    path = world.run("nix-store", "--add", folder).ok().path
    command = ("nix", "store", "dump-path") if world.client.number == (2, 8) else ("nix", "nar", "pack")
    assert world.run_bytes(*command, path) == nar_of(world, folder)


def queries(world):
    """A chain c → b → a with a root to it."""
    link = world.root / "result"
    c = world.run("nix-build", world.nix(CHAIN), "-o", link).ok().path
    b, = world.run("nix-store", "-q", "--references", c).ok().lines
    a, = world.run("nix-store", "-q", "--references", b).ok().lines
    return a, b, c, link


QUERIES = ["--references", "--referrers", "--referrers-closure", "--requisites", "--deriver", "--tree", "--hash", "--size", "--roots",
           "--graph", "--valid-derivers"]


@pytest.mark.every_client
@pytest.mark.parametrize("query", QUERIES)
def test_a_query_is_answered_as_stock_nix_answers_it_from_the_store_itself(world, query):
    if query == "--valid-derivers" and world.client.number == (2, 8):
        query = "--deriver"
    a, b, c, link = queries(world)
    for path in (a, b, c):
        answer = world.run("nix-store", "-q", query, path).ok()
        oracle = world.direct("nix-store", "-q", query, path, client=world.client).ok()
        assert sorted(answer.lines) == sorted(oracle.lines)
        assert answer.lines or query in ("--references", "--referrers"), answer


@pytest.mark.every_client
def test_the_answers_to_queries_are_right(world):
    a, b, c, link = queries(world)
    ask = lambda query, path: world.run("nix-store", "-q", query, path).ok().lines  # noqa: E731
    assert ask("--references", b) == [a] and ask("--referrers", b) == [c]
    assert ask("--requisites", c) == [a, b, c]
    assert ask("--roots", a) == [f"{link} -> {c}"]
    drv, = ask("--deriver", c)
    assert ask("--outputs", drv) == [c]
    assert ask("--size", a) == ["120"]
    assert ask("--hash", a) == ["sha256:" + world.direct("nix-hash", "--type", "sha256", "--base32", a).ok().path]


@pytest.mark.every_client
def test_a_derivation_s_environment_is_readable(world):
    drv, = world.instantiate('sh "env" "echo > $out" { some = "value"; }')
    assert world.run("nix-store", "-q", "--binding", "some", drv).ok().out.strip() == "value"


@pytest.mark.every_client
def test_an_invalid_path_is_said_to_be_invalid(world):
    path = f"{world.store}/{'b' * 32}-none"
    for query in ("--references", "--hash"):
        result = world.run("nix-store", "-q", query, path).fails()
        assert "is not valid" in result.err and len(result.errors) == 1


@pytest.mark.every_client
def test_check_validity_lists_what_is_invalid(world):
    valid = world.run("nix-store", "--add", tree(world)).ok().path
    invalid = f"{world.store}/{'b' * 32}-none"
    assert world.run("nix-store", "--check-validity", "--print-invalid", valid, invalid).ok().lines == [invalid]


@pytest.mark.every_client
def test_path_info_knows_everything_of_a_path(world):
    path = world.output(HELLO)
    found = world.run("nix", "path-info", "--json", "--closure-size", path).ok().json
    info = found[0] if isinstance(found, list) else found[str(path)] if str(path) in found else next(iter(found.values()))
    assert info["narSize"] == 120 and info["closureSize"] == 120
    assert info["deriver"].endswith("-hello.drv") and info["references"] == []
    assert info.get("ultimate") is True


@pytest.mark.every_client
def test_path_info_prints_the_closure_s_size(world):
    a, b, c, _ = queries(world)
    sizes = [int(world.run("nix-store", "-q", "--size", path).ok().path) for path in (a, b, c)]
    line = world.run("nix", "path-info", "-S", c).ok().path
    assert line.split() == [c, str(sum(sizes))]


@pytest.mark.every_client
def test_path_info_of_all_paths_lists_the_store(world):
    world.output(CHAIN)
    assert set(world.run("nix", "path-info", "--all").ok().lines) == world.valid_paths()


def another_world_s_export(world, path):
    closure = world.run("nix-store", "-q", "--requisites", path).ok().lines
    return closure, world.run_bytes("nix-store", "--export", *closure)


@pytest.mark.every_client
def test_export_and_import_carry_a_closure_over(world):
    a, b, c, link = queries(world)
    closure, dump = another_world_s_export(world, c)
    before = {path: nar_of(world, path) for path in closure}
    link.unlink()
    world.run("nix-store", "--delete", c, b, a).ok()
    assert not world.is_valid(a)
    printed = world.run("nix-store", "--import", input=dump).ok().lines
    assert sorted(printed) == sorted(closure)
    assert {path: nar_of(world, path) for path in closure} == before
    assert world.run("nix-store", "-q", "--references", c).ok().lines == [b]


def test_a_truncated_import_is_refused(world):
    a, b, c, link = queries(world)
    closure, dump = another_world_s_export(world, a)
    link.unlink()
    world.run("nix-store", "--delete", c, b, a).ok()
    world.run("nix-store", "--import", input=dump[:len(dump) // 2]).fails()
    assert not world.is_valid(a)


# --- binary caches


def make_key(world, name="test-1"):
    secret, public = world.root / f"{name}.secret", world.root / f"{name}.public"
    world.direct("nix-store", "--generate-binary-cache-key", name, secret, public).ok()
    return secret, public.read_text().strip()


@pytest.mark.every_client
def test_copying_to_a_cache_and_back_keeps_a_closure(world):
    c = world.output(CHAIN)
    closure = world.run("nix-store", "-q", "--requisites", c).ok().lines
    before = {path: nar_of(world, path) for path in closure}
    cache = f"file://{world.root}/cache"
    world.run("nix", "copy", "--to", cache, c).ok()
    world.run("nix-store", "--delete", *reversed(closure)).ok()
    world.run("nix", "copy", "--from", cache, c, "--no-check-sigs").ok()
    assert {path: nar_of(world, path) for path in closure} == before


@pytest.mark.every_client
def test_an_unsigned_path_is_refused_where_signatures_are_required(world):
    path = world.output(HELLO)
    cache = f"file://{world.root}/cache"
    world.run("nix", "copy", "--to", cache, path).ok()
    world.run("nix-store", "--delete", path).ok()
    result = world.run("nix", "copy", "--from", cache, path).fails()
    assert re.search(f"cannot add path '{path}' because it lacks a (signature by a trusted key|valid signature)", result.err), result
    assert not world.is_valid(path)


@pytest.mark.every_client
def test_a_signed_path_is_accepted(world):
    secret, public = make_key(world)
    world.conf["trusted-public-keys"] = public
    path = world.output(HELLO)
    cache = f"file://{world.root}/cache"
    world.run("nix", "copy", "--to", f"{cache}?secret-key={secret}", path).ok()
    world.run("nix-store", "--delete", path).ok()
    world.run("nix", "copy", "--from", cache, path).ok()
    assert open(path).read() == "hello\n"
    signatures = world.run("nix", "path-info", "--sigs", path).ok().out
    assert "test-1:" in signatures


def test_a_path_signed_with_another_key_is_refused(world):
    secret, _ = make_key(world, "stranger-1")
    _, public = make_key(world)
    world.conf["trusted-public-keys"] = public
    path = world.output(HELLO)
    cache = f"file://{world.root}/cache"
    world.run("nix", "copy", "--to", f"{cache}?secret-key={secret}", path).ok()
    world.run("nix-store", "--delete", path).ok()
    assert re.search("lacks a (signature by a trusted key|valid signature)", world.run("nix", "copy", "--from", cache, path).fails().err)


def test_a_content_addressed_path_needs_no_signature(world):
    path = world.run("nix-store", "--add", tree(world)).ok().path
    cache = f"file://{world.root}/cache"
    world.run("nix", "copy", "--to", cache, path).ok()
    world.run("nix-store", "--delete", path).ok()
    world.run("nix", "copy", "--from", cache, path).ok()
    assert world.is_valid(path)


@pytest.mark.stock_leaves("store")
def test_damage_in_a_cache_is_noticed(world):
    path = world.output('sh "data" "head -c 10000 /dev/urandom > $out" {}')
    cache = world.root / "cache"
    world.run("nix", "copy", "--to", f"file://{cache}?compression=none", path).ok()
    world.run("nix-store", "--delete", path).ok()
    nar, = (cache / "nar").iterdir()
    data = bytearray(nar.read_bytes())
    data[5000] ^= 1
    nar.write_bytes(data)
    world.run("nix", "copy", "--from", f"file://{cache}", path, "--no-check-sigs").fails().says("hash mismatch")
    assert not world.is_valid(path)


@pytest.mark.every_client
def test_copying_to_another_store_on_disk_works(world):
    path = world.output(CHAIN)
    world.run("nix", "copy", "--to", f"local?root={world.root}/other", path, "--no-check-sigs").ok()
    assert os.path.exists(f"{world.root}/other/nix/store/{path.name}")


@pytest.mark.every_client
def test_signing_a_path_adds_a_signature(world):
    secret, public = make_key(world)
    path = world.output(HELLO)
    command = ("store", "sign")
    world.run("nix", *command, "--key-file", secret, path).ok()
    assert "test-1:" in world.run("nix", "path-info", "--sigs", path).ok().out


def test_secret_key_files_sign_what_is_built(world):
    secret, public = make_key(world)
    world.conf["secret-key-files"] = str(secret)
    path = world.output(HELLO)
    assert "test-1:" in world.run("nix", "path-info", "--sigs", path).ok().out


@pytest.mark.every_client
def test_verify_checks_signatures_and_contents(world):
    path = world.output(HELLO)
    world.run("nix", "store", "verify", "--no-trust", path).ok()
    os.chmod(path, 0o644)
    path.write_text("damage\n")
    world.run("nix", "store", "verify", "--no-trust", path).fails()
    path.write_text("hello\n")
    os.chmod(path, 0o444)
    os.utime(path, (1, 1))


# --- verification and deletion


@pytest.mark.every_client
def test_nix_store_verify_through_the_daemon_finds_nothing_wrong(world):
    world.output(CHAIN)
    result = world.run("nix-store", "--verify", "--check-contents").ok()
    assert "modified" not in result.err


@pytest.mark.allow_left("verify")
def test_nix_store_verify_through_the_daemon_finds_damage(world):
    path = world.output(HELLO)
    os.chmod(path, 0o644)
    path.write_text("damage\n")
    world.run("nix-store", "--verify", "--check-contents").fails().says("was modified")


def test_a_deleted_path_is_gone_from_disk_and_database(world):
    path = world.output(HELLO)
    world.run("nix-store", "--delete", path).ok()
    assert not path.exists() and not world.is_valid(path)


def test_a_path_that_is_needed_is_not_deleted(world):
    a, b, c, link = queries(world)
    world.run("nix-store", "--delete", a).fails().says("still alive")
    assert world.is_valid(a)


def test_the_store_is_optimised_into_links(world):
    text = "x" * 3000
    paths = [world.output(f'sh "{name}" "echo {text} > $out" {{}}') for name in ("one", "two")]
    world.run("nix-store", "--optimise").ok()
    assert os.stat(paths[0]).st_ino == os.stat(paths[1]).st_ino
    assert os.stat(paths[0]).st_nlink == 3


# --- together with stock Nix on one store


@pytest.mark.every_client
def test_a_store_made_by_stock_nix_is_taken_over(world):
    """Built, added and rooted by stock Nix working directly; then everything goes on through the daemon."""
    file = world.nix(CHAIN)
    world.write_conf()
    link = world.root / "result"
    c = world.direct("nix-build", file, "-o", link, "--option", "sandbox", "false").ok().path
    before = world.valid_paths()
    assert world.run("nix-build", file, "-o", link).ok().path == c
    assert world.valid_paths() == before
    assert len(world.run("nix-store", "-q", "--requisites", c).ok().lines) == 3
    assert world.run("nix-store", "-q", "--roots", c).ok().lines == [f"{link} -> {c}"]
    world.run("nix-store", "--gc").ok()
    assert world.is_valid(c)


@pytest.mark.every_client
def test_stock_nix_goes_on_with_the_store(world):
    """After the daemon has gone, stock Nix finds everything, builds on top and collects."""
    c = world.output(CHAIN)
    world.stop()
    result = world.direct("nix-build", "--no-out-link", world.nix(CHAIN), "--option", "sandbox", "false").ok()
    assert result.path == str(c) and "building" not in result.err
    more = world.direct("nix-build", "--no-out-link", world.nix(
        f'let c = {CHAIN}; in sh "d" "cat ${{c}} > $out" {{}}'), "--option", "sandbox", "false").ok().path
    assert open(more).read() == c.read_text()
    world.verify()
    world.direct("nix-store", "--gc").ok()
    assert not world.is_valid(c)


def test_the_database_has_nix_s_schema(world):
    """The tables and columns are those of a database that stock Nix makes."""
    world.output(HELLO)
    other = world.root / "stock"
    result = world.direct("nix-store", "--verify", env={"NIX_STATE_DIR": str(other / "var"), "NIX_STORE_DIR": str(other / "store")})
    result.ok()
    assert schema(world.state / "db/db.sqlite") == schema(other / "var/db/db.sqlite")
    assert (world.state / "db/schema").read_text() == (other / "var/db/schema").read_text()
    shutil.rmtree(other)


def schema(file):
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        tables = [row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")]
        return {table: [row[1:] for row in connection.execute(f"pragma table_info({table})")] for table in tables}


def test_the_rows_of_a_build_are_those_that_stock_nix_writes(world):
    """Two stores of the same name, one after the other: hash, size, deriver, references, outputs."""
    world.output(CHAIN)
    ours = rows(world)
    world.stop()
    shutil.rmtree(world.state), subprocess_remove(world.store)
    world.state.mkdir()
    world.direct("nix-build", "--no-out-link", world.nix(CHAIN)).ok()
    assert rows(world) == ours


def rows(world):
    with contextlib.closing(world.database()) as connection:
        return (sorted(connection.execute("select path, hash, deriver, narSize, ultimate, sigs, ca from ValidPaths")),
                sorted(connection.execute("select a.path, b.path from Refs join ValidPaths a on referrer = a.id join ValidPaths b on reference = b.id")),
                sorted(connection.execute("select p.path, d.id, d.path from DerivationOutputs d join ValidPaths p on d.drv = p.id")))


def subprocess_remove(folder):
    import subprocess
    subprocess.run(["chmod", "-R", "u+rwX", folder], check=True)
    shutil.rmtree(folder)


def test_the_store_may_be_made_anew_under_a_running_daemon(world):
    path = world.output(HELLO)
    world.wait_for_quiet()
    shutil.rmtree(world.state / "db"), subprocess_remove(world.store)
    assert world.output(HELLO) == path
    assert world.is_valid(path)


@pytest.mark.every_client
def test_nix_store_ping_or_info_answers(world):
    command = ("store", "ping") if world.client.number == (2, 8) else ("store", "info")
    result = world.run("nix", *command).ok()
    assert "daemon" in result.out + result.err


@pytest.mark.every_client
def test_registration_time_is_now_and_json_is_complete(world):
    import time
    path = world.output(HELLO)
    with contextlib.closing(world.database()) as connection:
        found, = connection.execute("select registrationTime from ValidPaths where path = ?", (str(path),)).fetchone()
    assert abs(found - time.time()) < 60


def test_derivation_show_reads_what_was_written(world):
    drv, = world.instantiate(HELLO)
    found = world.run("nix", "show-derivation", drv).ok().json
    assert found[drv]["env"]["name"] == "hello" and json.dumps(found)
