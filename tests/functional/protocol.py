"""An independent implementation of the worker protocol's client side: a second opinion, and a way to send what no
stock client sends.

Everything is a little-endian 64-bit number, or a byte string: its length, its bytes, zeros up to a multiple of eight. A request is
an operation's number and its arguments; the answer is a stream of log messages, ended by LAST or by an ERROR, and after LAST the result.
"""

import hashlib
import socket
import struct

CLIENT_MAGIC, DAEMON_MAGIC = 0x6E697863, 0x6478696F

IS_VALID_PATH, QUERY_REFERRERS, ADD_TO_STORE, ADD_TEXT_TO_STORE, BUILD_PATHS, ENSURE_PATH, ADD_TEMP_ROOT = 1, 6, 7, 8, 9, 10, 11
ADD_INDIRECT_ROOT, SYNC_WITH_GC, FIND_ROOTS, SET_OPTIONS, COLLECT_GARBAGE = 12, 13, 14, 19, 20
QUERY_ALL_VALID_PATHS, QUERY_PATH_INFO, QUERY_PATH_FROM_HASH_PART, QUERY_VALID_PATHS = 23, 26, 29, 31
BUILD_DERIVATION, ADD_SIGNATURES, NAR_FROM_PATH, ADD_TO_STORE_NAR, QUERY_MISSING = 36, 37, 38, 39, 40
QUERY_DERIVATION_OUTPUT_MAP, REGISTER_DRV_OUTPUT, QUERY_REALISATION, ADD_MULTIPLE_TO_STORE, BUILD_PATHS_WITH_RESULTS = 41, 42, 43, 44, 46

NEXT, READ, WRITE, LAST, ERROR = 0x6F6C6D67, 0x64617461, 0x64617416, 0x616C7473, 0x63787470
START_ACTIVITY, STOP_ACTIVITY, RESULT = 0x53545254, 0x53544F50, 0x52534C54


class DaemonError(Exception):
    """The daemon refused; the message is its own."""


class Closed(Exception):
    """The daemon ended the connection."""


def number(value):
    return struct.pack("<Q", value)


def text(value):
    data = value.encode() if isinstance(value, str) else bytes(value)
    return number(len(data)) + data + bytes(-len(data) % 8)


def texts(values):
    return number(len(values)) + b"".join(text(value) for value in values)


def framed(data, size=1 << 16):
    """Data in frames, with the empty one that ends them."""
    frames = [data[start:start + size] for start in range(0, len(data), size)]
    return b"".join(number(len(frame)) + frame for frame in frames) + number(0)


class Connection:
    """One connection; after the handshake unless `greet` is false. `version` is what we say we speak (major << 8 | minor)."""

    def __init__(self, world, version=0x122, greet=True, timeout=20):
        world.start()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(str(world.socket))
        self.messages = []
        if greet:
            self.greet(version)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def receive(self, size):
        data = b""
        while len(data) < size:
            try:
                more = self.socket.recv(size - len(data))
            except ConnectionResetError:
                more = b""
            if not more:
                raise Closed()
            data += more
        return data

    def number(self):
        return struct.unpack("<Q", self.receive(8))[0]

    def bytes(self):
        size = self.number()
        assert size < 1 << 30, f"the daemon sent a string of {size} bytes"
        data = self.receive(size)
        padding = self.receive(-size % 8)
        assert not any(padding), "the daemon's padding is not zero"
        return data

    def text(self):
        return self.bytes().decode()

    def texts(self):
        return [self.text() for _ in range(self.number())]

    def greet(self, version):
        self.send(number(CLIENT_MAGIC))
        assert self.number() == DAEMON_MAGIC
        self.daemon_version = self.number()
        self.send(number(version))
        self.version = min(version, self.daemon_version)
        minor = self.version & 0xFF
        if minor >= 38:
            self.send(texts([]))
            self.features = self.texts()
        if minor >= 14:
            self.send(number(0))  # no processor affinity
        if minor >= 11:
            self.send(number(0))  # an obsolete wish for reserved space
        self.nix_version = self.text() if minor >= 33 else None
        self.trusted = {0: None, 1: True, 2: False}[self.number()] if minor >= 35 else None
        self.answer()

    def answer(self):
        """Reads log messages up to the end of the stream; raises what the daemon reports as an error."""
        while True:
            kind = self.number()
            if kind == LAST:
                return
            if kind == NEXT:
                self.messages.append(self.bytes())
            elif kind == START_ACTIVITY:
                activity = [self.number(), self.number(), self.number(), self.bytes(), self.fields(), self.number()]
                self.messages.append(activity)
            elif kind == STOP_ACTIVITY:
                self.number()
            elif kind == RESULT:
                self.messages.append([self.number(), self.number(), self.fields()])
            elif kind == ERROR:
                raise DaemonError(self.error())
            else:
                raise AssertionError(f"the daemon sent a message of unknown kind {kind:#x}")

    def fields(self):
        return [self.number() if self.number() == 0 else self.bytes() for _ in range(self.number())]

    def error(self):
        if self.version & 0xFF < 26:
            message, _status = self.text(), self.number()
            return message
        assert self.text() == "Error"
        _level, _name, message, _position = self.number(), self.text(), self.text(), self.number()
        for _ in range(self.number()):
            self.number(), self.text()
        return message

    def request(self, operation, *arguments):
        self.send(number(operation) + b"".join(arguments))
        self.answer()

    # --- operations

    def is_valid(self, path):
        self.request(IS_VALID_PATH, text(path))
        return bool(self.number())

    def all_paths(self):
        self.request(QUERY_ALL_VALID_PATHS)
        return self.texts()

    def set_options(self, **overrides):
        self.request(SET_OPTIONS, *map(number, (0, 0, 0, 3, 2, 0, 1, 0, 0, 0, 0, 1)),
                     number(len(overrides)), *(text(name.replace("_", "-")) + text(value) for name, value in overrides.items()))

    def add_to_store(self, name, method, dump, references=(), size=1 << 16):
        self.request_framed(number(ADD_TO_STORE) + text(name) + text(method) + texts(references) + number(0), framed(dump, size))
        path = self.text()
        return path, self.info()

    def request_framed(self, head, frames):
        """An error may come, and the connection end, before everything is sent."""
        self.send(head)
        try:
            self.send(frames)
        except (BrokenPipeError, ConnectionResetError):
            pass
        self.answer()

    def info(self):
        return {"deriver": self.text(), "hash": self.text(), "references": self.texts(), "time": self.number(), "size": self.number(),
                "ultimate": bool(self.number()), "signatures": self.texts(), "ca": self.text()}

    def path_info(self, path):
        self.request(QUERY_PATH_INFO, text(path))
        return self.info() if self.number() else None

    def add_nar(self, path, nar, digest=None, size=None, references=(), deriver="", signatures=(), ca="", check=False, repair=False):
        digest = digest or hashlib.sha256(nar).hexdigest()
        head = (number(ADD_TO_STORE_NAR) + text(path) + text(deriver) + text(digest) + texts(references) + number(0)
                + number(len(nar) if size is None else size) + number(0) + texts(signatures) + text(ca) + number(repair) + number(not check))
        self.request_framed(head, framed(nar))


class StdioConnection(Connection):
    """A connection over a process's standard input and output, as ssh-ng clients have."""

    def __init__(self, process, version=0x122):
        self.process, self.messages = process, []
        self.greet(version)

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()

    def send(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def receive(self, size):
        data = self.process.stdout.read(size)
        if len(data) < size:
            raise Closed()
        return data


# --- archives


def nar(node):
    return text("nix-archive-1") + node


def node(*parts):
    return text("(") + b"".join(text(part) if isinstance(part, str) else part for part in parts) + text(")")


def regular(content, executable=False):
    return node("type", "regular", *(["executable", ""] if executable else []), "contents", text(content))


def symlink(target):
    return node("type", "symlink", "target", target)


def entry(name, child):
    return text("entry") + node("name", text(name), "node", child)


def directory(*entries):
    return node("type", "directory", *entries)
