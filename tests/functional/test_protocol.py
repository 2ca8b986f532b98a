"""The worker protocol through a client of our own: handshakes, hostile messages and archives."""

import hashlib
import os
import random
import socket
import subprocess

import pytest

import machine
import protocol
from protocol import Closed, Connection, DaemonError, directory, entry, nar, number, regular, symlink, text, texts

HELLO = 'sh "hello" "echo hello > $out" {}'
OLD = 0x116  # 1.22


def path_named(world, name):
    return f"{world.store}/{'d' * 32}-{name}"


def still_serves(world):
    """A new connection works."""
    with Connection(world) as fresh:
        assert fresh.is_valid(path_named(world, "none")) is False


@pytest.mark.parametrize("minor", [18, 21, 22, 25, 26, 30, 32, 33, 34])
def test_every_version_from_1_18_is_spoken(world, minor):
    with Connection(world, 0x100 | minor) as connection:
        assert connection.all_paths() == []
        assert (connection.nix_version is None) == (minor < 33)


@pytest.mark.firn_only("the stock 2.8 daemon speaks 1.34")
@pytest.mark.parametrize("minor", [35, 36, 37, 38])
def test_newer_versions_are_spoken(world, minor):
    with Connection(world, 0x100 | minor) as connection:
        assert connection.version == 0x100 | minor
        assert connection.trusted is True
        assert connection.all_paths() == []


@pytest.mark.parametrize("minor", [38, 39, 60])
def test_a_client_of_the_future_is_spoken_to_in_our_own_version(world, minor):
    with Connection(world, 0x100 | minor) as connection:
        assert connection.version <= 0x126
        assert connection.is_valid(path_named(world, "none")) is False


def test_a_client_that_is_too_old_is_refused(world):
    with pytest.raises((DaemonError, Closed)):
        with Connection(world, 0x105) as connection:
            connection.all_paths()
    still_serves(world)


def test_a_client_that_is_no_nix_client_is_refused(world):
    with Connection(world, greet=False) as connection:
        connection.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with pytest.raises(Closed):
            connection.number(), connection.number(), connection.number()
    still_serves(world)


@pytest.mark.firn_only("the stock daemon ends the connection")
def test_an_unknown_operation_is_refused_by_name_and_the_connection_stays_usable(world):
    with Connection(world) as connection:
        with pytest.raises(DaemonError, match="9999"):
            connection.request(9999)
        assert connection.is_valid(path_named(world, "none")) is False



def test_an_error_leaves_the_connection_usable(world):
    with Connection(world) as connection:
        for _ in range(3):
            with pytest.raises(DaemonError, match="-none"):
                connection.request(protocol.ENSURE_PATH, text(path_named(world, "none")))
        assert connection.all_paths() == []


@pytest.mark.parametrize("path", ["", "/", "/etc/passwd", "relative", "STORE/../etc", "STORE/short-name", "STORE/" + "d" * 32, "STORE/" + "D" * 32 + "-x",
                                  "STORE/" + "d" * 32 + "-x/y", "STORE/" + "d" * 32 + "-a b", "STORE/" + "e" * 32 + "-x", "STORE/" + "d" * 32 + "-" + "x" * 300,
                                  "STORE/" + "d" * 32 + "-x\n"])
def test_what_is_no_store_path_is_refused(world, path):
    path = path.replace("STORE", str(world.store))
    with Connection(world) as connection:
        with pytest.raises((DaemonError, Closed)):
            connection.request(protocol.QUERY_PATH_INFO, text(path))
            assert connection.number() == 7, "the daemon accepted a bad path"
    still_serves(world)


@pytest.mark.parametrize("data", [number(1) + number(2 ** 64 - 1), number(1) + number(2 ** 63), number(1) + number(1 << 40) + b"x" * 64,
                                  number(31) + number(2 ** 64 - 1), number(31) + number(1 << 61), number(19) + number(1) * 12 + number(1 << 62),
                                  number(2 ** 64 - 1), b"\xff" * 4096])
def test_huge_lengths_and_counts_end_at_most_their_own_connection(world, data):
    with Connection(world) as connection:
        connection.send(data)
        connection.socket.shutdown(socket.SHUT_WR)
        try:
            while connection.socket.recv(65536):
                pass
        except ConnectionResetError:
            pass
    machine.wait_until(lambda: not world.live_children())
    still_serves(world)


def test_padding_must_be_zero(world):
    with Connection(world) as connection:
        path = path_named(world, "abc").encode()
        bad = number(len(path)) + path + b"\1" * (-len(path) % 8)
        assert len(path) % 8, "the path needs padding"
        connection.send(number(1) + bad)
        with pytest.raises((DaemonError, Closed)):
            connection.answer()
            connection.number()


@pytest.mark.parametrize("length", [0, 1, 7, 8, 12, 16, 23, 24, 31, 32, 40, 60, 100])
def test_a_client_that_dies_in_the_middle_leaves_nothing(world, length):
    still_serves(world)  # the database is there from now on
    world.wait_for_quiet()
    head = number(protocol.CLIENT_MAGIC) + number(0x122) + number(0) + number(0)
    message = head + number(protocol.ADD_TO_STORE) + text("name") + text("fixed:r:sha256") + texts([]) + number(0) + number(1000)
    with Connection(world, greet=False) as connection:
        connection.send(message[:length])
    assert world.wait_for_quiet() == []
    still_serves(world)
    assert world.stray_names() == []


@pytest.mark.stock_leaves("store")
def test_a_client_that_dies_while_it_adds_a_large_path_leaves_nothing(world):
    dump = nar(regular(os.urandom(3000000)))
    with Connection(world) as connection:
        connection.send(number(protocol.ADD_TO_STORE) + text("large") + text("fixed:r:sha256") + texts([]) + number(0))
        connection.send(protocol.framed(dump)[:2000000])
    assert world.wait_for_quiet() == []
    with Connection(world) as connection:
        assert connection.all_paths() == []


def test_garbage_never_stops_the_daemon(world):
    """Random operations with random arguments; a fixed seed, so that a failure can be seen again."""
    source = random.Random(20261)
    for _ in range(60):
        with Connection(world, timeout=5) as connection:
            data = b"".join(number(source.choice([source.randrange(50), source.randrange(300), source.getrandbits(64)])) if source.random() < 0.7
                            else source.randbytes(source.randrange(40)) for _ in range(source.randrange(1, 40)))
            try:
                connection.send(number(source.randrange(1, 48)) + data)
                connection.socket.shutdown(socket.SHUT_WR)
                while connection.socket.recv(65536):
                    pass
            except OSError:
                pass
    world.wait_for_quiet()
    still_serves(world)


def test_many_connections_at_once_are_served(world):
    connections = [Connection(world) for _ in range(40)]
    assert all(connection.all_paths() == [] for connection in connections)
    for connection in connections:
        connection.socket.close()


def test_requests_may_follow_each_other_without_waiting(world):
    with Connection(world) as connection:
        request = number(protocol.IS_VALID_PATH) + text(path_named(world, "none"))
        connection.send(request * 200)
        for _ in range(200):
            connection.answer()
            assert connection.number() == 0


def test_bytes_may_come_one_by_one(world):
    with Connection(world) as connection:
        for byte in number(protocol.IS_VALID_PATH) + text(path_named(world, "none")):
            connection.send(bytes([byte]))
        connection.answer()
        assert connection.number() == 0


# --- what clients add


def test_add_to_store_answers_with_the_path_s_information(world):
    dump = nar(regular(b"content"))
    with Connection(world) as connection:
        path, info = connection.add_to_store("file", "fixed:r:sha256", dump)
        assert info["size"] == len(dump) and info["hash"] == hashlib.sha256(dump).hexdigest()
        assert info["ca"].startswith("fixed:r:sha256:") and info["references"] == []
        assert connection.path_info(path)["hash"] == info["hash"]
        assert connection.is_valid(path)
    digest = hashlib.sha256(dump).hexdigest()
    assert path == world.direct("nix-store", "--print-fixed-path", "--recursive", "sha256", digest, "file").ok().path


@pytest.mark.parametrize("size", [1, 7, 8, 1000, 1 << 20])
def test_the_size_of_frames_does_not_matter(world, size):
    dump = nar(directory(entry("a", regular(b"x" * 999)), entry("b", symlink("a"))))
    with Connection(world) as connection:
        path, info = connection.add_to_store("tree", "fixed:r:sha256", dump, size=size)
        assert info["size"] == len(dump)


def test_text_is_added_with_references(world):
    with Connection(world) as connection:
        one, _ = connection.add_to_store("one", "text:sha256", b"1")
        two, info = connection.add_to_store("two", "text:sha256", b"2", [one])
        assert info["references"] == [one] and info["ca"].startswith("text:sha256:")


@pytest.mark.stock_leaves("store")
def test_references_must_be_valid(world):
    with Connection(world) as connection:
        with pytest.raises(DaemonError):
            connection.add_to_store("two", "text:sha256", b"2", [path_named(world, "none")])
    assert world.valid_paths() == set()


@pytest.mark.stock_leaves("store")
def test_a_nar_that_is_not_what_its_hash_says_is_refused(world):
    dump = nar(regular(b"content"))
    path = path_named(world, "file")
    with Connection(world) as connection:
        with pytest.raises((DaemonError, Closed)):
            connection.add_nar(path, dump, digest="0" * 64)
            connection.all_paths()
    with Connection(world) as connection:
        with pytest.raises((DaemonError, Closed)):
            connection.add_nar(path, dump, size=len(dump) + 8)
            connection.all_paths()
    assert world.valid_paths() == set()


def test_a_nar_is_added_as_it_is(world):
    dump = nar(directory(entry("run", regular(b"#!", True)), entry("to", symlink("run"))))
    path = path_named(world, "tree")
    with Connection(world) as connection:
        connection.add_nar(path, dump)
        assert connection.is_valid(path)
        connection.request(protocol.NAR_FROM_PATH, text(path))
        assert connection.receive(len(dump)) == dump
    assert os.readlink(f"{path}/to") == "run"


def deep(levels):
    open_part = text("(") + text("type") + text("directory") + text("entry") + text("(") + text("name") + text("a") + text("node")
    close_part = text(")") + text(")")
    return nar(open_part * levels + regular(b"x") + close_part * levels)


LARGE = text("(") + text("type") + text("regular") + text("contents")
EVIL = {
    "a name with a slash": nar(directory(entry("a/b", regular(b"x")))),
    "an absolute name": nar(directory(entry("/tmp/firn-evil", regular(b"x")))),
    "the parent's name": nar(directory(entry("..", regular(b"x")))),
    "the folder's own name": nar(directory(entry(".", regular(b"x")))),
    "an empty name": nar(directory(entry("", regular(b"x")))),
    "a name with a zero byte": nar(directory(entry(b"a\0b", regular(b"x")))),
    "the same name twice": nar(directory(entry("a", symlink("/tmp")), entry("a", directory(entry("firn-evil", regular(b"x")))))),
    "names out of order": nar(directory(entry("b", regular(b"x")), entry("a", regular(b"x")))),
    "a symlink and then a folder of its name": nar(directory(entry("a", symlink("/tmp")), entry("a", directory(entry("firn-evil", regular(b"x")))))),
    "a length of 2^64-1": nar(LARGE + number(2 ** 64 - 1) + b"x" * 64),
    "a length of 2^64-8": nar(LARGE + number(2 ** 64 - 8) + b"x" * 64),
    "a length of 2^63": nar(LARGE + number(2 ** 63) + b"x" * 64),
    "a name of 2^64-8 bytes": nar(text("(") + text("type") + text("directory") + text("entry") + text("(") + text("name") + number(2 ** 64 - 8) + b"x" * 64),
    "a very long name": nar(directory(entry("x" * 300, regular(b"x")))),
    "an unknown type": nar(text("(") + text("type") + text("fifo") + text(")")),
    "no magic": text("nix-archive-2") + regular(b"x"),
    "an end in the middle": nar(regular(b"x" * 100))[:-24],
    "nothing": b"",
    "padding that is not zero": nar(text("(") + text("type") + text("regular") + text("contents") + number(1) + b"x1234567" + text(")")),
    "a symlink without a target": nar(text("(") + text("type") + text("symlink") + text(")")),
    "a symlink's target with a zero byte": nar(protocol.node("type", "symlink", "target", text(b"a\0b"))),
    "a folder thirty thousand levels deep": deep(30000),
}
STOCK_TAKES = pytest.mark.firn_only("the stock 2.8 daemon takes it")
SHAPES = [pytest.param(shape, marks=STOCK_TAKES if shape in ("names out of order", "a symlink's target with a zero byte") else [],
                       id=shape.replace(" ", "-").replace("'", "")) for shape in EVIL]


@pytest.mark.stock_leaves("store")
@pytest.mark.parametrize("how", ["AddToStoreNar", "AddToStore"])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_evil_archive_is_refused_and_the_store_unchanged(world, shape, how):
    dump = EVIL[shape]
    with Connection(world) as connection:
        with pytest.raises((DaemonError, Closed)):
            if how == "AddToStoreNar":
                connection.add_nar(path_named(world, "evil"), dump)
            else:
                connection.add_to_store("evil", "fixed:r:sha256", dump)
            connection.all_paths()
    assert world.wait_for_quiet() == []
    assert world.valid_paths() == set()
    assert not os.path.exists("/tmp/firn-evil")
    still_serves(world)


@pytest.mark.stock_leaves("store")
def test_an_evil_archive_s_sender_gets_an_error_and_not_a_dead_connection(world):
    with Connection(world) as connection:
        with pytest.raises(DaemonError):
            connection.add_nar(path_named(world, "evil"), EVIL["the parent's name"])


def test_a_deep_folder_within_the_bound_is_accepted(world):
    with Connection(world) as connection:
        path, _ = connection.add_to_store("deep", "fixed:r:sha256", deep(40))
        assert connection.is_valid(path)


# --- derivations that are no derivations

DRV = ('Derive([("out","OUT","","")],[],[],"SYSTEM","/bin/sh",["-c","echo x > $out"],[("name","x"),("out","OUT")])')


@pytest.mark.stock_leaves("store")
@pytest.mark.parametrize("drv", ["", "Derive", "Derive(", "Derive([", DRV[:-1], DRV + "x", DRV.replace('"out"', '"out', 1), DRV.replace("OUT", "/etc/passwd"),
                                 DRV.replace("[],[]", '[("/etc/passwd",["out"])],[]'), DRV.replace("[],[]", '[],["relative"]'), "Derive(" * 20000, "(" * 100000,
                                 DRV.replace("Derive([", "Derive([("), DRV.replace('"x"', '"\\'), "\0" * 100, DRV.replace('("out","OUT","","")', "")],
                         ids=range(16))
def test_a_malformed_derivation_is_refused_when_it_is_built(world, drv):
    data = drv.replace("OUT", f"{world.store}/{'d' * 32}-x").replace("SYSTEM", f"{os.uname().machine}-linux").encode()
    with Connection(world) as connection:
        try:
            path, _ = connection.add_to_store("x.drv", "text:sha256", data)
        except (DaemonError, Closed):
            path = None
    if path:
        result = world.run("nix-store", "-r", path).fails()
        assert result.errors, result
        with Connection(world) as connection:
            with pytest.raises((DaemonError, Closed)):
                connection.request(protocol.BUILD_PATHS, texts([path + "!out"]), number(0))
                connection.all_paths()
                raise AssertionError("the daemon built a malformed derivation")
    assert world.wait_for_quiet() == []
    assert not [name for name in world.valid_paths() if not name.endswith(".drv")]
    still_serves(world)


@pytest.mark.stock_leaves("store")
def test_a_derivation_whose_output_path_is_not_its_own_is_refused(world):
    """A client must not choose the path that its build may write."""
    victim = f"{world.store}/{'d' * 32}-x"
    data = DRV.replace("OUT", victim).replace("SYSTEM", f"{os.uname().machine}-linux").encode()
    with Connection(world) as connection:
        with pytest.raises((DaemonError, Closed)):
            path, _ = connection.add_to_store("x.drv", "text:sha256", data)
            connection.request(protocol.BUILD_PATHS, texts([path + "!out"]), number(0))
            connection.number()
            connection.all_paths()
            raise DaemonError("built") if connection.is_valid(victim) is False else AssertionError("the client chose the path")
    assert not world.is_valid(victim)


# --- options


def test_unknown_options_are_ignored(world):
    with Connection(world) as connection:
        connection.set_options(no_such_option="1", another="", max_jobs="1", system="x", eval_cache="true")
        assert connection.all_paths() == []


@pytest.mark.firn_only("the stock daemon ends the connection")
def test_an_option_with_a_bad_value_does_not_end_the_connection(world):
    with Connection(world) as connection:
        try:
            connection.set_options(cores="many")
        except DaemonError:
            pass
        assert connection.all_paths() == []



def test_every_verbosity_is_accepted(world):
    for level in "01234567":
        assert world.run("nix-store", "--verify", "--option", "log-lines", "5", *["-v"] * int(level)).status == 0


def test_stdio_speaks_the_protocol(world):
    """What ssh-ng runs on the other side."""
    program = world.daemon_command() + ["--stdio"]
    process = world.popen(program, env={"NIX_CONF_DIR": str(world.root / "etc"), "NIX_REMOTE": ""}, stdin=subprocess.PIPE)
    with protocol.StdioConnection(process) as connection:
        assert connection.is_valid(path_named(world, "none")) is False
        path, _ = connection.add_to_store("file", "fixed:r:sha256", nar(regular(b"x")))
        assert connection.is_valid(path)
    assert world.is_valid(path)
