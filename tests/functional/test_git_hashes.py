"""Outputs and paths that are addressed by git's hash of what is in them. The measure are the git program and stock Nix 2.34."""

import base64
import hashlib
import os
import subprocess
from pathlib import Path

import protocol
import pytest
from test_content_addressed import base32, content_address, dump, fold

pytestmark = [pytest.mark.needs_client("2.30"),
              pytest.mark.skipif(os.environ.get("FIRN_TEST_DAEMON") == "stock", reason="stock 2.8 does not know them")]

TREE = "mkdir -p $out/a.d/deep $out/a; echo 1 > $out/a/x; echo 2 > $out/a.d/deep/y; echo 3 > $out/a-; echo 4 > $out/a0; " \
    "ln -s a/x $out/link; echo : > $out/run; chmod +x $out/run"
FLOATING = '{ __contentAddressed = true; outputHashMode = "git"; outputHashAlgo = "%s"; }'


@pytest.fixture
def git(world):
    features = "nix-command ca-derivations git-hashing"
    world.conf["experimental-features"] = world.client_conf["experimental-features"] = features
    world.verifier = world.client  # 2.8 cannot read such addresses
    return world


def git_hash(world, path, algorithm="sha1"):
    """What git itself says: of a file the blob, of a directory the tree."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(world.root), "GIT_CONFIG_NOSYSTEM": "1"}
    repository = world.root / f"git-{algorithm}-{len(list(world.root.glob('git-*')))}"

    def run(*command):
        return subprocess.run(["git", f"--git-dir={repository}", f"--work-tree={path}", *command], cwd="/", env=environment, check=True,
                              stdout=subprocess.PIPE, text=True).stdout.strip()
    subprocess.run(["git", "init", "-q", "--bare", f"--object-format={algorithm}", repository], env=environment, check=True)
    if Path(path).is_file():
        return run("hash-object", "--no-filters", str(path))
    run("add", "-A", str(path))
    return run("write-tree")


def addressed_path(world, name, digest, algorithm="sha1"):
    inner = hashlib.sha256(f"fixed:out:git:{algorithm}:{digest}:".encode()).hexdigest()
    return f"{world.store}/{base32(fold(hashlib.sha256(f'output:out:sha256:{inner}:{world.store}:{name}'.encode()).digest()))}-{name}"


def ca_of(digest, algorithm="sha1"):
    return f"fixed:git:{algorithm}:{base32(bytes.fromhex(digest))}"


def fixed(digest, script, name="f", algorithm="sha1"):
    return f'sh "{name}" "{script}" {{ outputHashMode = "git"; outputHashAlgo = "{algorithm}"; outputHash = "{digest}"; }}'


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_a_floating_tree_lies_where_git_says(git, algorithm):
    path = git.output(f'sh "tree" "{TREE}" {FLOATING % algorithm}')
    digest = git_hash(git, path, algorithm)
    assert str(path) == addressed_path(git, "tree", digest, algorithm)
    assert content_address(git, path) == ca_of(digest, algorithm)
    told = git.run("nix", "hash", "path", "--mode", "git", "--algo", algorithm, "--format", "base16", path).ok().lines
    assert told == [digest]


@pytest.mark.parametrize("sandbox", ["true", "false"])
def test_a_fixed_output_has_the_hash_that_git_gives_it(git, sandbox):
    git.conf["sandbox"] = sandbox
    tree = git.output(f'sh "tree" "{TREE}" {{}}')
    digest = git_hash(git, tree)
    path = git.output(fixed(digest, TREE))
    assert str(path) == addressed_path(git, "f", digest) and content_address(git, path) == ca_of(digest)
    (git.root / "file").write_text("hello\n")
    digest = git_hash(git, git.root / "file")
    path = git.output(fixed(digest, "echo hello > $out"))
    assert path.read_text() == "hello\n" and str(path) == addressed_path(git, "f", digest)


@pytest.mark.allow_left("store")
def test_another_hash_than_promised_is_told(git):
    (git.root / "file").write_text("hello\n")
    got = git_hash(git, git.root / "file")
    result = git.build(fixed("0" * 40, "echo hello > $out")).fails().says("hash mismatch in fixed-output derivation")
    for digest in (bytes(20), bytes.fromhex(got)):
        assert f"sha1-{base64.b64encode(digest).decode()}" in result.err


@pytest.mark.allow_left("store")
@pytest.mark.firn_only("stock Nix takes what is executable, and does not see that it is another one")
@pytest.mark.parametrize("script, word", [("echo > $out; chmod +x $out", "executable"), ("ln -s /nowhere $out", "symlink"),
                                          ("mkdir $out; echo $out > $out/self", "its own path")])
def test_what_a_git_hash_does_not_say_is_refused(git, script, word):
    git.build(f'sh "g" "{script}" {FLOATING % "sha1"}').fails().says(word)


@pytest.mark.allow_left("store")
def test_outputs_with_references_are_refused(git):
    git.build(f'let a = sh "a" "echo > $out" {{}}; in sh "g" "echo ${{a}} > $out" {FLOATING % "sha1"}').fails()
    assert not [path for path in git.valid_paths() if path.endswith("-g")]


def test_paths_are_added_by_their_git_hash(git):
    tree = git.root / "added"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub/file").write_text("text\n")
    (tree / "sub-").write_text("other\n")
    (tree / "run").write_text(":\n")
    (tree / "run").chmod(0o755)
    for path in (tree, tree / "sub/file"):
        added = git.run("nix", "store", "add", "--mode", "git", "--hash-algo", "sha1", "--name", "n", path).ok().path
        assert added == addressed_path(git, "n", git_hash(git, path)) and git.is_valid(added)


def test_paths_are_added_by_their_git_hash_in_one_operation(git):
    tree = git.root / "added"
    tree.mkdir()
    (tree / "file").write_text("text\n")
    (tree / "run").write_text(":\n")
    (tree / "run").chmod(0o755)
    archive = git.run_bytes("nix-store", "--dump", tree, env={"NIX_REMOTE": "dummy://"})
    for algorithm in ("sha1", "sha256"):
        digest = git_hash(git, tree, algorithm)
        with protocol.Connection(git) as connection:
            path, info = connection.add_to_store("n", f"fixed:git:{algorithm}", archive)
        assert (path, info["ca"]) == (addressed_path(git, "n", digest, algorithm), ca_of(digest, algorithm))


@pytest.mark.firn_only("stock Nix adds it")
@pytest.mark.parametrize("node", [protocol.regular("hello", executable=True), protocol.symlink("hello")])
def test_what_a_git_hash_does_not_say_is_not_added(git, node):
    with protocol.Connection(git) as connection, pytest.raises(protocol.DaemonError, match="put it into a directory"):
        connection.add_to_store("n", "fixed:git:sha1", protocol.nar(node))
    assert not git.valid_paths()


@pytest.mark.firn_only("stock Nix adds it")
def test_an_executable_file_is_not_added_by_its_git_hash(git):
    script = git.root / "script"
    script.write_text(":\n")
    script.chmod(0o755)
    git.run("nix", "store", "add", "--mode", "git", "--hash-algo", "sha1", "--name", "n", script).fails().says("put it into a directory")
    assert not git.valid_paths()


def test_addresses_are_checked_on_import(git):
    git.conf["trusted-users"] = "root"
    path = git.output(f'sh "tree" "{TREE}" {FLOATING % "sha1"}')
    nar, ca = dump(git, path), content_address(git, path)
    git.run("nix-store", "--delete", path).ok()
    with protocol.Connection(git) as connection:
        with pytest.raises(protocol.DaemonError, match="ca hash mismatch"):
            connection.add_nar(path, nar.replace(b"3\n", b"9\n"), ca=ca, check=True)
    assert not git.is_valid(path)
    with protocol.Connection(git) as connection:
        connection.add_nar(path, nar, ca=ca, check=True)
    assert git.is_valid(path)


@pytest.mark.firn_only("stock Nix takes it from anybody")
@pytest.mark.parametrize("kind", ["executable", "symlink"])
def test_what_a_git_hash_does_not_say_needs_a_signature(git, kind):
    git.conf["trusted-users"] = "root"
    (git.root / "file").write_text("hello")
    digest = git_hash(git, git.root / "file")
    path = addressed_path(git, "n", digest)
    node = protocol.regular("hello", executable=True) if kind == "executable" else protocol.symlink("hello")
    with protocol.Connection(git) as connection, pytest.raises(protocol.DaemonError, match="signature by a trusted key"):
        connection.add_nar(path, protocol.nar(node), ca=ca_of(digest), check=True)
    with protocol.Connection(git) as connection:
        connection.add_nar(path, protocol.nar(protocol.regular("hello")), ca=ca_of(digest), check=True)
    assert Path(path).read_text() == "hello"


def test_the_same_paths_as_of_stock_nix(git):
    """Builds once through the daemon and once with the client itself on the same, emptied store."""
    git.conf["sandbox"] = "false"
    file = git.nix(f'[ (sh "tree" "{TREE}" {FLOATING % "sha1"}) (sh "file" "echo 1 > $out" {FLOATING % "sha256"}) ]')
    lines = git.run("nix-build", "--no-out-link", file).ok().lines
    addresses = [content_address(git, line) for line in lines]
    git.stop()
    git.direct("nix-collect-garbage", client=git.client).ok()
    assert not git.valid_paths()
    git.conf["build-users-group"] = git.conf["build-hook"] = ""
    assert git.direct("nix-build", "--no-out-link", file, client=git.client).ok().lines == lines
    assert [content_address(git, line) for line in lines] == addresses


@pytest.mark.stock_leaves("store")
def test_without_the_feature_the_daemon_refuses(git):
    git.conf["experimental-features"] = "nix-command ca-derivations"
    git.build(f'sh "tree" "{TREE}" {FLOATING % "sha1"}').fails().says("git-hashing")
    (git.root / "file").write_text("hello\n")
    git.run("nix", "store", "add", "--mode", "git", "--hash-algo", "sha1", git.root / "file").fails().says("git-hashing")
