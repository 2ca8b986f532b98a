#!/usr/bin/env python3
"""Records what stock Nix clients and a stock nix-daemon say to each other.

Runs each client command below against a throw-away store in /tmp/firn-fuzz-000000 and writes, per connection,
the client's bytes to corpus/protocol/NAME-N.bin, and with --answers DIR the daemon's bytes to DIR/NAME-N.bin. The fuzzer and the unit
tests know the store's directory by that name.
"""
import argparse
import os
import pathlib
import shutil
import socket
import subprocess
import threading
import time

ROOT = pathlib.Path("/tmp/firn-fuzz-000000")
HERE = pathlib.Path(__file__).resolve().parent

DERIVATION = """
let shell = "/bin/sh"; in rec {
  a = derivation { name = "a"; system = "x86_64-linux"; builder = shell; args = [ "-c" "echo line; echo a > $out" ]; };
  b = derivation { name = "b"; system = "x86_64-linux"; builder = shell; outputs = [ "out" "doc" ];
                   args = [ "-c" "echo ${a} > $out; echo doc > $doc" ]; };
  bad = derivation { name = "bad"; system = "x86_64-linux"; builder = shell; args = [ "-c" "echo no; exit 3" ]; };
}
"""


def environment(store_of_daemon):
    variables = dict(os.environ)
    variables.update(
        NIX_STORE_DIR=str(ROOT / "store"), NIX_STATE_DIR=str(ROOT / "var"), NIX_LOG_DIR=str(ROOT / "log"),
        NIX_CONF_DIR=str(ROOT / "etc"), NIX_DAEMON_SOCKET_PATH=str(ROOT / "socket"), HOME=str(ROOT / "home"),
        NIX_REMOTE="" if store_of_daemon else "daemon", NIX_CONFIG="", USER="root", TMPDIR="/tmp")
    return variables


class Recorder:
    """Accepts clients on the socket and passes each on to a stock `nix-daemon --stdio`."""

    def __init__(self):
        self.sessions = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(ROOT / "socket"))
        self.listener.listen()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        daemon = subprocess.Popen(["nix-daemon", "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL, env=environment(True), bufsize=0)
        session = {"request": bytearray(), "answer": bytearray()}
        self.sessions.append(session)

        def back():
            while data := daemon.stdout.read(65536):
                session["answer"] += data
                client.sendall(data)
            client.close()

        thread = threading.Thread(target=back, daemon=True)
        thread.start()
        while data := client.recv(65536):
            session["request"] += data
            daemon.stdin.write(data)
        daemon.stdin.close()
        thread.join()
        session["done"] = True


def commands():
    expression = str(ROOT / "tree.nix")
    source = str(ROOT / "source")
    saved = {}

    def store(word):
        # Where the daemon at hand cannot build, the sources stand in.
        paths = [str(p) for p in (ROOT / "store").iterdir()]
        path = next((p for end in [word, "-source"] for p in paths if p.endswith(end)), paths[0])
        saved[word.strip("-")] = path
        return path

    features = ["--extra-experimental-features", "nix-command"]
    yield "add", lambda: ["nix-store", "--add", source]
    yield "add-fixed", lambda: ["nix-store", "--add-fixed", "sha1", source + "/file"]
    yield "add-text", lambda: ["nix-instantiate", "--eval", "-E", 'builtins.toFile "text" "some text"']
    yield "instantiate", lambda: ["nix-instantiate", expression]
    yield "build", lambda: ["nix-build", expression, "-A", "b", "-o", str(ROOT / "result")]
    yield "build-bad", lambda: ["nix-build", expression, "-A", "bad", "--no-out-link"]
    yield "build-new", lambda: ["nix", *features, "build", "-f", expression, "a", "--no-link"]
    yield "build-bad-new", lambda: ["nix", *features, "build", "-f", expression, "bad", "--no-link"]
    for query in ["references", "referrers", "deriver", "hash", "requisites"]:
        yield query, lambda: ["nix-store", "-q", "--" + query, store("-b")]
    yield "path-info", lambda: ["nix", *features, "path-info", "--json", store("-b")]
    yield "outputs", lambda: ["nix-store", "-q", "--outputs", store("-b.drv")]
    yield "dump", lambda: ["nix-store", "--dump", store("-a")]
    yield "export", lambda: ["sh", "-c", f"nix-store --export {store('-a')} > {ROOT}/export"]
    yield "import", lambda: ["sh", "-c", f"nix-store --delete {store('-a')}; nix-store --import < {ROOT}/export"]
    yield "copy-to", lambda: ["nix", *features, "copy", "--to", f"file://{ROOT}/cache", store("-b")]
    yield "delete", lambda: ["sh", "-c", f"rm {ROOT}/result; nix-store --delete {store('-b')}"]
    yield "copy-from", lambda: ["nix", *features, "copy", "--no-check-sigs", "--from", f"file://{ROOT}/cache", saved["b"]]
    yield "roots", lambda: ["nix-store", "--gc", "--print-roots"]
    yield "dead", lambda: ["nix-store", "--gc", "--print-dead"]
    yield "verify", lambda: ["nix-store", "--verify", "--check-contents"]
    yield "sign", lambda: ["nix", *features, "store", "sign", "-k", str(ROOT / "key"), store("-source")]
    yield "gc", lambda: ["nix-store", "--gc"]
    yield "optimise", lambda: ["nix-store", "--optimise"]


def prepare():
    shutil.rmtree(ROOT, ignore_errors=True)
    for name in ["store", "var", "etc", "home", "source/dir"]:
        (ROOT / name).mkdir(parents=True)
    (ROOT / "etc/nix.conf").write_text("sandbox = false\nbuild-users-group =\nsubstituters =\nbuild-hook =\nbuilders =\n")
    (ROOT / "source/file").write_text("hello\n")
    (ROOT / "source/dir/link").symlink_to("../file")
    (ROOT / "tree.nix").write_text(DERIVATION)
    with open(ROOT / "key", "w") as key:
        subprocess.run(["nix-store", "--generate-binary-cache-key", "test-1", str(ROOT / "key"), str(ROOT / "key.pub")],
                       check=True, env=environment(True))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=pathlib.Path)
    parser.add_argument("--programs", help="folder of the client's and the daemon's programs")
    parser.add_argument("--prefix", default="", help="put before the names of the files")
    arguments = parser.parse_args()
    if arguments.programs:
        os.environ["PATH"] = arguments.programs + ":" + os.environ["PATH"]
    prepare()
    recorder = Recorder()
    corpus = HERE / "corpus/protocol"
    corpus.mkdir(parents=True, exist_ok=True)
    for name, make in commands():
        recorder.sessions.clear()
        run = subprocess.run(make(), env=environment(False), stdin=subprocess.DEVNULL, capture_output=True, text=True)
        print(name, run.returncode, run.stderr.strip().splitlines()[-1:], len(recorder.sessions))
        while not all("done" in session for session in recorder.sessions):
            time.sleep(0.01)
        for number, session in enumerate(recorder.sessions):
            (corpus / f"{arguments.prefix}{name}-{number}.bin").write_bytes(session["request"])
            if arguments.answers:
                arguments.answers.mkdir(parents=True, exist_ok=True)
                (arguments.answers / f"{arguments.prefix}{name}-{number}.bin").write_bytes(session["answer"])
    subprocess.run(["chmod", "-R", "u+w", str(ROOT)])
    shutil.rmtree(ROOT)


if __name__ == "__main__":
    main()
