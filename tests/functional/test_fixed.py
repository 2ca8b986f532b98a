"""Fixed-output derivations: hashes, the network, and the descriptors that must not leave."""

import hashlib
import os
import socket
import subprocess
import textwrap
import threading

import pytest

import machine

TEXT = b"fixed\n"
FLAT = hashlib.sha256(TEXT).hexdigest()


def nar_hash(world, content):
    """The hash of a NAR of one plain file, as stock nix-hash says."""
    file = world.root / "for-hash"
    file.write_bytes(content)
    return world.direct("nix-hash", "--type", "sha256", file).ok().path


@pytest.mark.every_client
def test_a_flat_output_with_the_right_hash_is_registered(world):
    path = world.output(f'fixed "flat" "flat" "{FLAT}" "echo fixed > $out" {{}}')
    assert path.read_bytes() == TEXT
    expected = world.direct("nix-store", "--print-fixed-path", "sha256", FLAT, "flat").ok().path
    assert str(path) == expected


@pytest.mark.every_client
def test_a_recursive_output_with_the_right_hash_is_registered(world):
    digest = nar_hash(world, TEXT)
    path = world.output(f'fixed "recursive" "recursive" "{digest}" "echo fixed > $out" {{}}')
    expected = world.direct("nix-store", "--print-fixed-path", "--recursive", "sha256", digest, "recursive").ok().path
    assert str(path) == expected


def test_the_content_address_of_a_fixed_output_is_recorded(world):
    path = world.output(f'fixed "flat" "flat" "{FLAT}" "echo fixed > $out" {{}}')
    found = world.run("nix", "path-info", "--json", path).ok().json
    expected = world.direct("nix-hash", "--to-base32", "--type", "sha256", FLAT).ok().path
    assert found[0]["ca"] == f"fixed:sha256:{expected}"


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha512"])
def test_other_hash_algorithms_are_accepted(world, algorithm):
    digest = hashlib.new(algorithm, TEXT).hexdigest()
    path = world.output(f'fixed "f" "flat" "{digest}" "echo fixed > $out" {{ outputHashAlgo = "{algorithm}"; }}')
    assert path.read_bytes() == TEXT


def test_an_sri_hash_is_accepted(world):
    import base64
    sri = "sha256-" + base64.b64encode(hashlib.sha256(TEXT).digest()).decode()
    assert world.text(f'fixed "f" "flat" "{sri}" "echo fixed > $out" {{ outputHashAlgo = null; }}') == TEXT.decode()


@pytest.mark.every_client
@pytest.mark.parametrize("mode", ["flat", "recursive"])
def test_a_wrong_hash_is_refused_with_both_hashes(world, mode):
    import base64
    result = world.build(f'fixed "wrong" "{mode}" "{"0" * 64}" "echo fixed > $out" {{}}').fails()
    real = FLAT if mode == "flat" else nar_hash(world, TEXT)
    got = "sha256-" + base64.b64encode(bytes.fromhex(real)).decode()
    result.says("hash mismatch in fixed-output derivation '", "-wrong.drv'", f"specified: sha256-{'A' * 43}=", f"got:    {got}")
    assert result.status in (1, 102)


@pytest.mark.every_client
@pytest.mark.firn_only("stock Nix knows the attribute 'url' alone, or none")
@pytest.mark.parametrize("attribute", ["url", "urls"])
def test_a_wrong_hash_is_told_with_what_was_to_be_fetched(world, attribute):
    attrs = f'{{ {attribute} = "https://example.org/some"; }}'
    world.build(f'fixed "wrong" "flat" "{"0" * 64}" "echo fixed > $out" {attrs}').fails().says("likely URL: https://example.org/some")


@pytest.mark.allow_left("store")
def test_content_with_the_wrong_hash_never_gets_the_promised_path(world):
    promised = world.direct("nix-store", "--print-fixed-path", "sha256", "0" * 64, "wrong").ok().path
    world.build(f'fixed "wrong" "flat" "{"0" * 64}" "echo fixed > $out" {{}}').fails()
    assert not world.is_valid(promised)


def test_a_flat_output_must_be_a_plain_file(world):
    world.build(f'fixed "dir" "flat" "{FLAT}" "mkdir $out" {{}}').fails().says("should be a non-executable regular file")


def test_a_flat_output_must_not_be_executable(world):
    world.build(f'fixed "exe" "flat" "{FLAT}" "echo fixed > $out; chmod +x $out" {{}}').fails()


@pytest.mark.firn_only("the stock 2.8 daemon crashes on it")
def test_a_fixed_output_must_not_refer_to_store_paths(world):
    expression = 'let a = sh "a" "echo > $out" {}; in fixed "refs" "flat" "%s" "echo ${a} > $out" {}'
    a = world.output('sh "a" "echo > $out" {}')
    digest = hashlib.sha256(f"{a}\n".encode()).hexdigest()
    world.build(expression % digest).fails().says("not allowed to refer to")


def test_a_fixed_output_that_is_there_is_not_built(world):
    world.run("nix-store", "--add-fixed", "sha256", make_file(world, "flat")).ok()
    result = world.build(f'fixed "flat" "flat" "{FLAT}" "exit 1" {{}}').ok()
    assert "building" not in result.err


def make_file(world, name, content=TEXT):
    path = world.src / name
    path.write_bytes(content)
    return path


def test_derivations_that_differ_only_in_how_they_fetch_give_the_same_dependents(world):
    """Output paths are computed modulo fixed outputs."""
    make = lambda script: world.instantiate(  # noqa: E731
        f'let f = fixed "f" "flat" "{FLAT}" "{script}" {{}}; in sh "user" "cat ${{f}} > $out" {{}}')[0]
    one, two = make("echo fixed > $out"), make("printf \'fixed\\\\n\' > $out")
    assert one != two
    outputs = [world.run("nix-store", "-q", "--outputs", drv).ok().path for drv in (one, two)]
    assert outputs[0] == outputs[1]


def listener():
    """A TCP server on the host's loopback that says hello to whoever connects."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            peer.sendall(b"hello\n")
            peer.close()
    threading.Thread(target=serve, daemon=True).start()
    return server


def test_a_fixed_output_build_reaches_the_network(world):
    """The routes, interfaces and resolver of the host, or at least a way out: loopback is the host's with stock Nix."""
    interfaces = 'fixed "net" "flat" "%s" "cat /proc/net/dev /etc/resolv.conf >&2; exit 1" {}' % FLAT
    result = world.build(interfaces).fails()
    others = [line.split(":")[0].strip().removeprefix("> ") for line in result.err.splitlines() if ":" in line and "  " in line]
    host = [name for name in os.listdir("/sys/class/net") if name != "lo"]
    assert not host or [name for name in others if name not in ("lo",)]


def test_a_fixed_output_build_connects_to_the_host_s_network_services(world):
    with listener() as server:
        port = server.getsockname()[1]
        text = world.text(f'fixed "net" "flat" "{hashlib.sha256(b"hello" + chr(10).encode()).hexdigest()}" '
                          f'"nc 127.0.0.1 {port} < /dev/null > $out" {{}}')
    assert text == "hello\n"


def test_a_normal_build_does_not_reach_the_network(world):
    with listener() as server:
        port = server.getsockname()[1]
        text = world.text(f'sh "net" "if nc -w 2 127.0.0.1 {port} < /dev/null > got 2>/dev/null; then echo open; else echo closed; fi > $out; '
                          'grep -c : /proc/net/dev >> $out" {}')
    assert text == "closed\n1\n"


def test_a_normal_build_has_no_resolver_but_a_fixed_one_has(world):
    assert world.text('sh "r" "test -e /etc/resolv.conf && echo there > $out || echo absent > $out" {}') == "absent\n"
    world.build(f'fixed "r" "flat" "{FLAT}" "test -e /etc/resolv.conf && test -e /etc/services && echo fixed > $out" {{}}').ok()


ATTACK = r"""
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void send_descriptor(int peer, int fd) {
    char byte = 'x', control[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET, header->cmsg_type = SCM_RIGHTS, header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    sendmsg(peer, &message, 0);
}

/* attack connect|listen NAME: makes $out and hands it out over the abstract socket NAME. */
int main(int argc, char **argv) {
    int out = open(getenv("out"), O_CREAT | O_RDWR, 0644), peer;
    if (out < 0 || argc != 3 || write(out, "fixed\n", 6) != 6) return 9;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path + 1, argv[2]);
    socklen_t length = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(argv[2]);
    int sock = socket(AF_UNIX, SOCK_STREAM, 0);
    if (sock < 0) { fprintf(stderr, "no socket: %s\n", strerror(errno)); return 0; }
    if (!strcmp(argv[1], "connect")) {
        if (connect(sock, (void *)&address, length) < 0) { fprintf(stderr, "no connection: %s\n", strerror(errno)); return 0; }
        send_descriptor(sock, out);
        fprintf(stderr, "handed out\n");
    } else {
        if (bind(sock, (void *)&address, length) < 0 || listen(sock, 1) < 0) { fprintf(stderr, "no listener\n"); return 0; }
        struct timeval patience = {3, 0};
        setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        if ((peer = accept(sock, NULL, NULL)) < 0) { fprintf(stderr, "nobody came\n"); return 0; }
        send_descriptor(peer, out);
        fprintf(stderr, "handed out\n");
    }
    return 0;
}
"""


def attack_program(world):
    """The program in a folder that an expression can take as a source."""
    folder = world.src / "attack"
    folder.mkdir()
    source = world.root / "attack.c"
    source.write_text("#include <stddef.h>\n" + textwrap.dedent(ATTACK))
    subprocess.run(["cc", "-static", "-o", folder / "attack", source], check=True)


def attack_expression(how, name):
    return f"""derivation {{ name = "attack"; inherit system; builder = "${{./attack}}/attack"; args = [ "{how}" "{name}" ];
      outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = "{FLAT}"; }}"""


@pytest.mark.firn_only("stock Nix lets a fixed-output build connect to the host's abstract sockets (CVE-2024-27297)")
def test_a_fixed_output_build_cannot_hand_out_a_descriptor_by_connecting(world):
    attack_program(world)
    name = f"firn-test-{os.getpid()}-connect"
    got = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0" + name)
        server.listen()
        server.settimeout(8)
        client = world.popen(["nix-build", "--no-out-link", world.nix(attack_expression("connect", name))])
        try:
            client.wait(8)
            server.settimeout(0.2)
            peer, _ = server.accept()
            got = socket.recv_fds(peer, 10, 4)[1]
        except (TimeoutError, socket.timeout):
            pass
    _, errors = world.finish(client)
    assert client.returncode == 0, errors
    assert got == [] and b"handed out" not in errors


@pytest.mark.firn_only("stock Nix lets an outside process connect to a fixed-output build's abstract socket")
def test_nobody_outside_gets_a_descriptor_from_a_fixed_output_build_that_listens(world):
    attack_program(world)
    name = f"firn-test-{os.getpid()}-listen"
    client = world.popen(["nix-build", "--no-out-link", world.nix(attack_expression("listen", name))])
    got = []

    def try_to_connect():
        with socket.socket(socket.AF_UNIX) as peer:
            try:
                peer.connect("\0" + name)
                peer.settimeout(2)
                got.extend(socket.recv_fds(peer, 10, 4)[1])
            except OSError:
                return client.poll() is not None
        return True
    machine.wait_until(try_to_connect)
    _, errors = world.finish(client)
    assert client.returncode == 0, errors
    assert got == [] and b"handed out" not in errors


@pytest.mark.firn_only("stock 2.8 registers the files that the build wrote")
def test_the_output_of_a_fixed_build_is_made_of_new_files(world):
    """Somebody may hold a descriptor to what the build wrote; here a process outside that opened it meanwhile."""
    world.conf["sandbox"] = "false"
    held = world.root / "held"
    held.mkdir()
    held.chmod(0o777)
    path = world.output(f'fixed "copy" "flat" "{FLAT}" "echo fixed > $out; ln $out {held}/x 2>/dev/null || stat -c %i $out > {held}/inode" {{}}')
    if (held / "x").exists():
        assert os.stat(held / "x").st_ino != path.stat().st_ino
    else:
        assert int((held / "inode").read_text()) != path.stat().st_ino

