"""What the daemon keeps in memory must not grow with what a builder makes. FIRN_LONG=1 takes files of 1 GiB."""

import os
import threading

import pytest

import machine

MIB = 1 << 20


class Peak:
    """The largest resident size that a process below the daemon, builders aside, had at any time (the kernel keeps it)."""

    def __init__(self, world):
        world.start()
        self.world, self.bytes, self.done = world, 0, threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def watch(self):
        while not self.done.wait(0.02):
            for process in machine.descendants(of=self.world.daemon.pid):
                try:
                    status = open(f"/proc/{process.pid}/status").read()
                except OSError:
                    continue
                fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
                if fields["Name"].strip() == "firn" and "VmHWM" in fields:
                    self.bytes = max(self.bytes, int(fields["VmHWM"].split()[0]) * 1024)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()


@pytest.mark.firn_only("the stock daemon keeps every position")
def test_memory_does_not_grow_with_a_file_that_is_nothing_but_the_scratch_path(world):
    size = 1024 * MIB if os.environ.get("FIRN_LONG") else 96 * MIB
    world.conf["sandbox"] = "false"
    script = ("echo kept > $doc; echo $out > f; n=$(wc -c < f); while [ $n -lt %d ]; do cat f f > g; mv g f; n=$((n*2)); done; mv f $out"
              % size)
    expression = f'let d = sh "two" "{script}" {{ outputs = [ "doc" "out" ]; }}; in [ d.doc d.out ]'
    doc, out = world.build(expression, timeout=300).ok().lines
    line, length = f"{out}\n".encode(), os.path.getsize(out)
    assert length >= size
    # Without a sandbox the valid path is taken, so --check builds at a scratch path and rewrites what it finds of it.
    with Peak(world) as peak:
        world.build(expression, "--check", timeout=300).ok()
    with open(out, "rb") as file:
        assert file.read(len(line)) == line
        file.seek(length - len(line))
        assert file.read() == line
    # A sanitizer's own bookkeeping is not what is looked for.
    limit = (400 if "ASAN_OPTIONS" in os.environ else 64) * MIB
    assert 0 < peak.bytes < limit, f"the daemon took {peak.bytes / MIB:.0f} MiB for a file of {length / MIB:.0f} MiB"


@pytest.mark.firn_only("the stock daemon keeps every position")
def test_memory_does_not_grow_with_a_floating_output_that_is_nothing_but_its_own_hash_part(world):
    size = 1024 * MIB if os.environ.get("FIRN_LONG") else 256 * MIB
    world.conf["experimental-features"] = world.client_conf["experimental-features"] = "nix-command ca-derivations"
    script = ("p=\\${out##*/}; printf %%s \\${p%%%%-*} > f; n=32; while [ $n -lt %d ]; do cat f f > g; mv g f; n=$((n*2)); done; mv f $out"
              % size)
    ca = '{ __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; }'
    with Peak(world) as peak:
        path = world.build(f'sh "self" "{script}" {ca}', timeout=300).ok().path
    part = os.path.basename(path)[:32].encode()
    assert os.path.getsize(path) >= size
    with open(path, "rb") as file:
        assert file.read(1024) == part * 32
    limit = (400 if "ASAN_OPTIONS" in os.environ else 64) * MIB
    assert 0 < peak.bytes < limit, f"the daemon took {peak.bytes / MIB:.0f} MiB"
