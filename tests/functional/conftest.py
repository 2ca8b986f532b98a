"""Functional tests: unmodified stock Nix clients against the daemon.

How to run

    tests/functional/run                  as root: everything as root, then everything again as the user firntest;
                                          as an ordinary user: everything as that user
    tests/functional/run --root -k gc     only as root, further arguments are pytest's
    tests/functional/run --user           as root: only as firntest
    /usr/bin/python3 -m pytest tests/functional      the plain form

Environment

    FIRN               the program (default build/src/firn/firn), started as `firn daemon`
    FIRN_TEST_DAEMON   `stock`: the installed nix-daemon instead, `stock-2.34`: a client environment's; the suite's own
                       expectations are checked so. Tests marked firn_only are then skipped, with their reason.
    FIRN_TEST_TMP      where the worlds are made (default /tmp; stock 2.34's daemon wants a place that is not world-writable)
    FIRN_CACHE         where scripts/clients has put newer clients

Each test has a world of its own (world.py): store, state, socket and daemon below one short-lived folder. When it ends, no
process, mount, lock, build directory or unregistered store path may be left, and a stock `nix-store --verify
--check-contents` must find the store in order. protocol.py is an independent implementation of the worker protocol
for what stock clients never send.
"""

import os

import pytest

import machine
import world as worlds

CLIENTS = worlds.find_clients()
STOCK = os.environ.get("FIRN_TEST_DAEMON", "firn") != "firn"


def pytest_configure(config):
    if not CLIENTS:
        raise pytest.UsageError("no stock Nix client is there: install Debian's nix-bin, or run scripts/clients as root")
    machine.become_subreaper()
    os.umask(0o022)
    if machine.is_root():
        machine.make_build_users()


def pytest_report_header(config):
    return [f"daemon: {os.environ.get('FIRN_TEST_DAEMON', 'firn')}, as {'root' if machine.is_root() else 'an ordinary user'}",
            "clients: " + ", ".join(f"{client.version} in {client.bin}" for client in CLIENTS)]


def pytest_terminal_summary(terminalreporter):
    names = ", ".join(client.version for client in CLIENTS)
    terminalreporter.write_line(f"clients: {names}" + ("" if len(CLIENTS) > 1 else
                                " (only what is installed: run scripts/clients as root for Nix 2.34)"))


def pytest_generate_tests(metafunc):
    if "client" not in metafunc.fixturenames:
        return
    if metafunc.definition.get_closest_marker("every_client"):
        clients = CLIENTS
    else:
        clients = CLIENTS[:1]
    needed = metafunc.definition.get_closest_marker("needs_client")
    if needed:
        least = tuple(int(part) for part in needed.args[0].split("."))
        clients = [client for client in CLIENTS if client.number >= least][:None if len(clients) > 1 else 1]
    metafunc.parametrize("client", clients, ids=str)


def pytest_collection_modifyitems(config, items):
    left_out = [item for item in items if not fits(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if fits(item)]
    for item in items:
        marker = item.get_closest_marker("firn_only")
        if marker and STOCK:
            item.add_marker(pytest.mark.skip(reason=f"firn_only: {marker.args[0]}"))


def fits(item):
    """Whether the test is about the kind of user that runs it, and there is a client for it."""
    if item.get_closest_marker("root_only") and not machine.is_root():
        return False
    if item.get_closest_marker("user_only") and machine.is_root():
        return False
    callspec = getattr(item, "callspec", None)
    return callspec is None or all(not str(mark).startswith("NOTSET") for mark in callspec.id.split("-"))


@pytest.fixture
def world(request, client):
    made = worlds.World(client, CLIENTS)
    marker = request.node.get_closest_marker("allow_left")
    if marker:
        made.allow_left = set(marker.args)
    marker = request.node.get_closest_marker("stock_leaves")
    if marker and STOCK:
        made.allow_left |= set(marker.args)
    request.node.world = made
    yield made
    try:
        problems = made.close()
    finally:
        made.remove()
    failed = getattr(request.node, "call_failed", False)
    assert failed or not problems, "left behind after the test:\n" + "\n".join(problems)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    made = getattr(item, "world", None)
    if report.when == "call" and report.failed:
        item.call_failed = True
        if made and (made.root / "daemon.log").exists():
            text = (made.root / "daemon.log").read_text(errors="replace")
            report.sections.append(("daemon's log", text[-5000:]))
