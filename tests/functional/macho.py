"""What the tests of Mach-O signatures share: real files, linked programs, and the second opinion in tests/macho."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import world as worlds

HERE = worlds.REPOSITORY / "tests/macho"
sys.path.insert(0, str(HERE))

import check  # noqa: E402
import fetch  # noqa: E402
import plant  # noqa: E402

LINKERS = {"lld": ["arm64", "x86_64", "universal"], "lld-uuid": ["arm64", "x86_64", "universal"],
           "zig": ["arm64", "x86_64", "universal"]}


def real_files():
    """[(what files.json says, path)]; scripts/macho-files has fetched them."""
    return fetch.files(real_folder())


def real_folder():
    for folder in worlds.cache_folders():
        if fetch.have(folder / "macho-files"):
            return folder / "macho-files"
    raise AssertionError("real Mach-O files are not there: run scripts/macho-files first")


def real_file(package):
    return next(path for file, path in real_files() if file["package"] == package)


def name_of(file):
    return f"{file['package']}/{Path(file['path']).name}"


def zig():
    for folder in worlds.cache_folders():
        program = folder / "zig-0.11.0/zig"
        if os.access(program, os.X_OK):
            return program
    raise AssertionError("the Zig compiler is not there: run scripts/macho-files first")


def link(linker, architecture, text, program, zig_cache, extra_mb=None):
    environment = os.environ | {"ZIG": str(zig()), "ZIG_GLOBAL_CACHE_DIR": str(zig_cache), "TMPDIR": str(Path(program).parent)}
    if extra_mb:
        environment["EXTRA_MB"] = str(extra_mb)
    subprocess.run([HERE / "link", linker, architecture, text, program], env=environment, check=True)
    return Path(program)


def program():
    return Path(os.environ.get("FIRN") or worlds.REPOSITORY / "build/src/firn/firn").resolve()


def firn(*arguments, status=0):
    """Runs `firn macho …` and returns what it printed."""
    done = subprocess.run([program(), "macho", *map(str, arguments)], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    wanted = status if isinstance(status, tuple) else (status,)
    assert done.returncode in wanted, f"firn macho {arguments}: status {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done


def rewrite(path, old=plant.OLD, new=plant.NEW, status=0):
    return firn("rewrite", "--json", "--replace", f"{old.decode()}={new.decode()}", path, status=status)


def same(one, other):
    """Asserts that bytes are equal, and says in few words where they are not."""
    if one == other:
        return
    assert len(one) == len(other), f"{len(one)} bytes, expected {len(other)}"
    places = [i for i in range(len(one)) if one[i] != other[i]] if len(one) < 1 << 20 else \
        [i for start in range(0, len(one), 4096) if one[start:start + 4096] != other[start:start + 4096]
         for i in range(start, min(start + 4096, len(one))) if one[i] != other[i]]
    raise AssertionError(f"{len(places)} bytes differ, the first at {places[:40]}")


def differences(one, other):
    """Offsets of the bytes that differ."""
    assert len(one) == len(other), f"{len(one)} and {len(other)} bytes"
    return [i for i in range(len(one)) if one[i] != other[i]]


def copy_linker(world):
    """The linking script, where a test's expressions can name it."""
    shutil.copytree(HERE / "program", world.src / "macho/program")
    shutil.copy(HERE / "link", world.src / "macho/link")
