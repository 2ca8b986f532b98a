"""What the tests need to know of the machine: processes, mounts, locks and users.

Every process that a test starts, and every process these start, stays a descendant of pytest: it is a "child
subreaper", to which the kernel hands orphans. So "nothing was left running" can be asked exactly, without regard to
what else runs on the machine.
"""

import ctypes
import grp
import os
import pwd
import socket
import subprocess
import time
from pathlib import Path

BUILD_USERS = 10


def become_subreaper():
    PR_SET_CHILD_SUBREAPER = 36
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def is_root():
    return os.geteuid() == 0


def make_build_users():
    """The group nixbld with nixbld1 to nixbld10, and the ordinary user firntest; what exists is left as it is."""
    groups = {g.gr_name for g in grp.getgrall()}
    users = {u.pw_name for u in pwd.getpwall()}
    if "nixbld" not in groups:
        subprocess.run(["groupadd", "--system", "nixbld"], check=True)
    for number in range(1, BUILD_USERS + 1):
        if f"nixbld{number}" not in users:
            subprocess.run(["useradd", "--system", "--no-create-home", "--home-dir", "/var/empty", "--shell",
                            "/usr/sbin/nologin", "--gid", "nixbld", "--groups", "nixbld", f"nixbld{number}"], check=True)
    if "firntest" not in users:
        subprocess.run(["useradd", "--create-home", "--shell", "/bin/sh", "firntest"], check=True)


def build_uids():
    return {pwd.getpwnam(name).pw_uid for name in grp.getgrnam("nixbld").gr_mem}


class Process:
    """One line of /proc: pid, parent, state and command."""

    def __init__(self, pid):
        text = Path(f"/proc/{pid}/stat").read_text()
        self.pid = pid
        self.name = text[text.index("(") + 1:text.rindex(")")]
        fields = text[text.rindex(")") + 2:].split()
        self.state, self.parent = fields[0], int(fields[1])

    @property
    def command(self):
        """Its arguments; none when it has ended. `name` is cut to 15 characters by the kernel."""
        try:
            return Path(f"/proc/{self.pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
        except OSError:
            return []

    def __repr__(self):
        return f"{self.pid} ({self.name}, {self.state}) {' '.join(self.command)[:200]}"


def all_processes():
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                found[int(entry)] = Process(int(entry))
            except (OSError, ValueError):
                pass
    return found


def descendants(of=None, without=()):
    """Living processes below `of` (default: this one), without the pids in `without`; zombies do not live."""
    processes = all_processes()
    children = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process)
    found, queue = [], [of or os.getpid()]
    while queue:
        for child in children.get(queue.pop(), []):
            queue.append(child.pid)
            if child.state != "Z" and child.pid not in without:
                found.append(child)
    return found


def reap_orphans(known):
    """Collects the dead that the kernel handed to us; `known` are the pids that subprocess looks after."""
    for process in all_processes().values():
        if process.parent == os.getpid() and process.state == "Z" and process.pid not in known:
            try:
                os.waitpid(process.pid, os.WNOHANG)
            except ChildProcessError:
                pass


# How long something may take that happens at once on a quiet machine. Only a failing test waits for so long: what must not go on
# (a builder's sleep) would go on for much longer.
PATIENCE = 60.0


def wait_until(condition, seconds=PATIENCE, step=0.02):
    """The condition's value as soon as it is true, or its last value when the time is over."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > end:
            return value
        time.sleep(step)


def is_listened_on(path):
    """Whether somebody listens on the Unix socket: asked of the kernel's table, and only where the table knows the socket by another
    name (it was bound elsewhere and renamed) by connecting."""
    ACCEPTS = 0x10000
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    flags = [int(line[3], 16) for line in lines if line[-1] == str(path)]
    if flags or not os.path.exists(path):
        return any(flag & ACCEPTS for flag in flags)
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def mounts_below(directory):
    return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if line.split()[4].startswith(str(directory))]


def locks_below(directory):
    """Files below the directory that somebody holds a lock on."""
    locked = {line.split()[-3] for line in Path("/proc/locks").read_text().splitlines() if "->" not in line}
    found = []
    for folder, folders, names in os.walk(directory):
        if folder.count("/") > str(directory).count("/") + 3:
            folders.clear()  # no lock file is as deep as this, while a hostile archive may be
        for name in names:
            try:
                status = os.lstat(os.path.join(folder, name))
            except OSError:
                continue
            if f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}" in locked:
                found.append(os.path.join(folder, name))
    return found
