"""Builtin builders: builtin:fetchurl, builtin:buildenv and builtin:unpack-channel, as <nix/fetchurl.nix>, nix-env and nix-channel
use them. The servers that they download from are the test's own."""

import base64
import contextlib
import grp
import hashlib
import http.server
import io
import os
import pwd
import ssl
import subprocess
import tarfile
import threading
from pathlib import Path

import pytest

import machine

pytestmark = pytest.mark.stock_leaves("store")  # what a failed builtin builder made
STOCK = os.environ.get("FIRN_TEST_DAEMON", "firn") != "firn"
STOCK_NEW = STOCK and os.environ["FIRN_TEST_DAEMON"] != "stock"
DATA = b"some bytes from far away\n" * 1000


def sri(data):
    return "sha256-" + base64.b64encode(hashlib.sha256(data).digest()).decode()


class Server:
    """An HTTP server on the loopback interface. Each path has a function that answers; what was asked is kept."""

    def __init__(self, certificate=None):
        outer = self
        self.paths, self.requests = {}, []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.requests.append((self.path, dict(self.headers)))
                outer.paths.get(self.path, missing)(self)
                self.close_connection = True

            def log_message(self, *_):
                pass
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.scheme = "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            self.scheme = "https"
        self.server.handle_error = lambda *_: None
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def url(self, path):
        return f"{self.scheme}://127.0.0.1:{self.server.server_address[1]}{path}"

    def serve(self, path, data=DATA, **headers):
        self.paths[path] = lambda request: answer(request, 200, data, **headers)
        return self.url(path)

    def times(self, path):
        return len([asked for asked, _ in self.requests if asked == path])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def answer(request, status, body=b"", length=None, **headers):
    request.send_response(status)
    request.send_header("Content-Length", str(len(body) if length is None else length))
    request.send_header("Connection", "close")
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)


def missing(request):
    answer(request, 404, b"no such page here")


def fetch(url, digest=None, name="fetched", **more):
    extra = " ".join(f"{key} = {value};" for key, value in more.items())
    return f'import <nix/fetchurl.nix> {{ name = "{name}"; url = "{url}"; hash = "{digest or sri(DATA)}"; {extra} }}'


@pytest.fixture
def server():
    with Server() as made:
        yield made


@pytest.fixture(params=["true", "false"], ids=["sandboxed", "unsandboxed"])
def confined(request, world):
    world.conf["sandbox"] = request.param
    return world


def nar_of(world, path):
    return world.run_bytes("nix-store", "--dump", path)


# --- fetchurl


@pytest.mark.every_client
def test_a_download_becomes_a_plain_file(confined, server):
    path = confined.output(fetch(server.serve("/data")))
    assert path.read_bytes() == DATA and path.stat().st_mode & 0o777 == 0o444


def test_an_executable_download(confined, server):
    script = b"#!/bin/sh\necho hello\n"
    tree = confined.src / "script"
    tree.write_bytes(script)
    tree.chmod(0o755)
    digest = sri(nar_of(confined, tree))
    path = confined.output(fetch(server.serve("/script", script), digest, executable="true"))
    assert path.read_bytes() == script and path.stat().st_mode & 0o777 == 0o555


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "xz"])
def test_unpack_takes_a_nar(confined, server, packed):
    tree = confined.src / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/run").write_text("text")
    (tree / "bin/run").chmod(0o755)
    (tree / "link").symlink_to("bin/run")
    nar = nar_of(confined, tree)
    body = subprocess.run(["xz"], input=nar, capture_output=True, check=True).stdout if packed else nar
    path = confined.output(fetch(server.serve("/tree.nar" + ".xz" * packed, body), sri(nar), unpack="true"))
    assert os.readlink(path / "link") == "bin/run" and (path / "bin/run").stat().st_mode & 0o777 == 0o555
    assert nar_of(confined, path) == nar


def test_what_is_no_nar_is_not_unpacked(world, server):
    world.build(fetch(server.serve("/no.nar"), unpack="true")).fails()


def test_redirects_are_followed(world, server):
    server.paths["/one"] = lambda request: answer(request, 302, b"moved", Location="/two")
    server.paths["/two"] = lambda request: answer(request, 301, b"moved", Location=server.url("/data"))
    server.serve("/data")
    assert world.output(fetch(server.url("/one"))).read_bytes() == DATA


def test_redirects_without_end_are_given_up(world, server):
    server.paths["/loop"] = lambda request: answer(request, 302, b"", Location="/loop")
    world.build(fetch(server.url("/loop"))).fails().says(server.url("/loop"))


def test_a_redirect_does_not_lead_to_a_file(world, server):
    secret = world.src / "secret"
    secret.write_bytes(DATA)
    world.conf["sandbox"] = "false"
    server.paths["/evil"] = lambda request: answer(request, 302, b"", Location=f"file://{secret}")
    world.build(fetch(server.url("/evil"))).fails().says(server.url("/evil"))


@pytest.mark.every_client
def test_a_page_that_is_not_there_is_asked_for_once(world, server):
    world.build(fetch(server.url("/absent"))).fails().says("unable to download", server.url("/absent"), "404", "no such page here")
    assert server.times("/absent") == 1


def test_a_server_in_trouble_is_asked_again(world, server):
    def troubled(request):
        answer(request, 200, DATA) if server.times("/data") > 2 else answer(request, 503, b"busy")
    server.paths["/data"] = troubled
    assert world.output(fetch(server.url("/data"))).read_bytes() == DATA
    assert server.times("/data") == 3


def test_a_truncated_body_is_a_failure(world, server):
    world.conf["download-attempts"] = "2"
    server.paths["/short"] = lambda request: answer(request, 200, DATA[:1000], length=len(DATA))
    world.build(fetch(server.url("/short"), sri(DATA[:1000]))).fails().says(server.url("/short"))
    assert server.times("/short") == 2 or STOCK  # which tries again only while it has nothing


def test_a_broken_download_goes_on_where_it_stopped(world, server):
    def breaking(request):
        offset = request.headers.get("Range", "")
        if not offset:
            return answer(request, 200, DATA[:1000], length=len(DATA), Accept_Ranges="bytes", ETag='"v1"')
        assert offset == "bytes=1000-"
        answer(request, 206, DATA[1000:], Content_Range=f"bytes 1000-{len(DATA) - 1}/{len(DATA)}", Accept_Ranges="bytes")
    server.paths["/data"] = breaking
    assert world.output(fetch(server.url("/data"))).read_bytes() == DATA
    assert server.times("/data") == 2


@pytest.mark.firn_only("the stock daemon does not look whether the file has changed meanwhile")
def test_a_file_that_changed_after_a_broken_download_is_taken_from_its_beginning(world, server):
    def changing(request):
        if server.times("/data") == 1:
            return answer(request, 200, b"x" * 1000, length=len(DATA), Accept_Ranges="bytes", ETag='"v1"')
        answer(request, 200, DATA, Accept_Ranges="bytes", ETag='"v2"')
    server.paths["/data"] = changing
    assert world.output(fetch(server.url("/data"))).read_bytes() == DATA


def test_a_compressed_answer_is_what_it_stands_for(world, server):
    import gzip
    assert world.output(fetch(server.serve("/data", gzip.compress(DATA), Content_Encoding="gzip"))).read_bytes() == DATA


@pytest.mark.every_client
@pytest.mark.allow_left("store")
def test_the_wrong_hash_is_told_with_both_hashes(world, server):
    wrong = sri(b"other")
    result = world.build(fetch(server.serve("/data"), wrong)).fails()
    result.says("hash mismatch in fixed-output derivation '", f"specified: {wrong}", f"got:    {sri(DATA)}")


@pytest.mark.firn_only("stock 2.8 does not name the URL")
@pytest.mark.allow_left("store")
def test_the_wrong_hash_is_told_with_the_url(world, server):
    url = server.serve("/data")
    world.build(fetch(url, sri(b"other"))).fails().says(url)


def test_a_server_that_is_not_there(world, server):
    world.conf["download-attempts"] = "2"
    world.build(fetch("http://127.0.0.1:1/data")).fails().says("unable to download", "http://127.0.0.1:1/data")


def test_a_file_url_without_a_sandbox(world):
    world.conf["sandbox"] = "false"
    source = world.root / "a file"
    source.write_bytes(DATA)
    assert world.output(fetch(f"file://{world.root}/a%20file")).read_bytes() == DATA


def test_a_file_url_in_a_sandbox_shows_nothing_of_the_host(world):
    source = world.root / "host-file"
    source.write_bytes(DATA)
    world.build(fetch(f"file://{source}")).fails().says(f"file://{source}")


def test_a_file_url_in_a_sandbox_reaches_what_sandbox_paths_show(world):
    (world.root / "shown").write_bytes(DATA)
    world.conf["sandbox-paths"] += f" /shown={world.root}/shown"
    assert world.output(fetch("file:///shown")).read_bytes() == DATA


@pytest.mark.firn_only("the stock daemon guesses that it is http")
@pytest.mark.parametrize("form", ["127.0.0.1:{port}/page", "//127.0.0.1:{port}/page", "localhost:{port}/page", "file:{port}/page",
                                  "ftp://127.0.0.1:{port}/page", "httpx://127.0.0.1:{port}/page", ""])
def test_a_url_without_a_scheme_that_is_known_is_refused_unasked(world, server, form):
    """libcurl would take some of these for http, and an error page would be what was to be downloaded."""
    world.conf["sandbox"] = "false"
    url = form.format(port=server.server.server_address[1])
    server.paths["/page"] = lambda request: answer(request, 404, DATA)
    world.build(fetch(url)).fails().says(f"unable to download '{url}'", "'http://', 'https://' and 'file:///'")
    assert server.requests == []


def test_the_scheme_of_a_url_may_be_in_capitals(world, server):
    assert world.output(fetch(server.serve("/data").replace("http:", "HTTP:"))).read_bytes() == DATA
    world.build(fetch(server.url("/absent").replace("http:", "hTTp:"), sri(b"no such page here"))).fails().says("404")


@pytest.mark.firn_only("the stock daemon guesses that it is http")
def test_a_mirror_s_error_page_is_not_taken_for_the_file(world, server):
    server.paths["/mirror/sha256/" + hashlib.sha256(DATA).hexdigest()] = lambda request: answer(request, 404, b"no such file")
    world.conf["hashed-mirrors"] = server.url("/mirror").removeprefix("http://")
    assert world.output(fetch(server.serve("/data"))).read_bytes() == DATA
    assert [path for path, _ in server.requests] == ["/data"]


def test_hashed_mirrors_are_asked_first(world, server):
    server.serve("/mirror/sha256/" + hashlib.sha256(DATA).hexdigest())
    world.conf["hashed-mirrors"] = server.url("/mirror")
    assert world.output(fetch(server.url("/absent"))).read_bytes() == DATA
    assert server.times("/absent") == 0


def test_a_mirror_that_lacks_the_file_is_passed_over(world, server):
    world.conf["hashed-mirrors"] = server.url("/mirror")
    assert world.output(fetch(server.serve("/data"))).read_bytes() == DATA


def test_passwords_come_from_the_netrc_file(confined, server):
    (confined.root / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    (confined.root / "netrc").chmod(0o600)
    confined.conf["netrc-file"] = confined.root / "netrc"
    expected = "Basic " + base64.b64encode(b"me:secret").decode()

    def guarded(request):
        answer(request, 200, DATA) if request.headers.get("Authorization") == expected else answer(request, 401, b"who are you")
    server.paths["/data"] = guarded
    assert confined.output(fetch(server.url("/data"))).read_bytes() == DATA


@pytest.mark.allow_left("tmp", "store")
@pytest.mark.firn_only("stock Nix leaves the netrc in a kept build directory")
def test_passwords_are_not_kept_with_a_failed_build(world, server):
    (world.root / "netrc").write_text("machine example.org login me password secret\n")
    world.conf["netrc-file"] = world.root / "netrc"
    world.build(fetch(server.url("/absent")), "--keep-failed").fails().says("keeping build directory")
    kept = [path for path in world.tmp.rglob("*") if path.is_file()]
    assert kept and not [path for path in kept if b"secret" in path.read_bytes()]


@pytest.mark.firn_only("stock 2.8 downloads for any derivation where there is no sandbox")
def test_other_outputs_may_not_download(world, server):
    world.conf["sandbox"] = "false"
    expression = f'derivation {{ name = "x"; system = "builtin"; builder = "builtin:fetchurl"; url = "{server.serve("/data")}"; }}'
    world.build(expression).fails().says("must be a fixed-output")
    assert server.times("/data") == 0


@pytest.mark.every_client
def test_an_impure_derivation_may_download(confined, server):
    features = "nix-command ca-derivations impure-derivations"
    confined.conf["experimental-features"] = confined.client_conf["experimental-features"] = features
    expression = f"""derivation {{ name = "i"; system = "builtin"; builder = "builtin:fetchurl"; url = "{server.serve("/data")}";
      __impure = true; outputHashMode = "flat"; outputHashAlgo = "sha256"; }}"""
    assert confined.new_output(expression).read_bytes() == DATA


def test_attributes_are_no_environment(confined, server):
    """As variables, these would change what the program does, or keep it from starting."""
    url = server.serve("/data")
    more = 'LD_PRELOAD = "/nonexistent"; http_proxy = "http://127.0.0.1:1"; big = builtins.concatStringsSep "" (builtins.genList (i: "0123456789") 20000);'
    expression = f"""derivation {{ name = "plain"; system = "builtin"; builder = "builtin:fetchurl"; url = "{url}"; {more}
      outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = "{hashlib.sha256(DATA).hexdigest()}"; }}"""
    result = confined.build(expression).ok()
    assert Path(result.path).read_bytes() == DATA and "preload" not in result.err


@pytest.mark.firn_only("stock 2.8 finds no attributes there")
def test_structured_attributes(world, server):
    expression = f"""derivation {{ name = "s"; system = "builtin"; builder = "builtin:fetchurl"; url = "{server.serve("/data")}";
      __structuredAttrs = true; outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = "{hashlib.sha256(DATA).hexdigest()}"; }}"""
    assert world.output(expression).read_bytes() == DATA


def test_a_download_is_in_the_build_s_log(world, server):
    url = server.serve("/data")
    drv = world.instantiate(fetch(url))[0]
    world.run("nix-store", "--realise", drv).ok()
    assert url in world.run("nix-store", "--read-log", drv).ok().out or STOCK


# --- https


@pytest.fixture
def authority(tmp_path):
    """A certificate authority and a certificate of it for 127.0.0.1."""
    def openssl(*args):
        subprocess.run(["openssl", *args], cwd=tmp_path, check=True, capture_output=True)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=Test authority", "-days", "2")
    openssl("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1")
    (tmp_path / "ext").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-out", "server.crt",
            "-days", "2", "-extfile", "ext")
    tmp_path.chmod(0o755)
    (tmp_path / "ca.crt").chmod(0o600)  # only the daemon can read it
    return tmp_path


@pytest.fixture
def secure(authority):
    with Server((authority / "server.crt", authority / "server.key")) as made:
        yield made


@pytest.mark.every_client
@pytest.mark.firn_only("stock 2.8 has no setting ssl-cert-file")
def test_https_with_an_authority_from_ssl_cert_file(world, secure, authority):
    world.conf["ssl-cert-file"] = authority / "ca.crt"
    assert world.output(fetch(secure.serve("/data"))).read_bytes() == DATA


def test_https_with_an_authority_from_the_environment(confined, secure, authority):
    confined.daemon_env["NIX_SSL_CERT_FILE"] = str(authority / "ca.crt")
    assert confined.output(fetch(secure.serve("/data"))).read_bytes() == DATA


@pytest.mark.firn_only("stock 2.8 does not verify certificates here (CVE-2024-47174)")
def test_https_with_an_unknown_authority_is_refused(confined, secure):
    url = secure.serve("/data")
    confined.build(fetch(url)).fails().says("unable to download", url, "certificate")
    assert secure.times("/data") == 0


@pytest.mark.firn_only("stock 2.8 does not verify certificates here (CVE-2024-47174)")
def test_https_with_a_certificate_for_another_name_is_refused(world, secure, authority):
    world.conf["ssl-cert-file"] = authority / "ca.crt"
    url = secure.serve("/data").replace("127.0.0.1", "localhost")
    world.build(fetch(url)).fails().says(url)
    assert secure.times("/data") == 0


@pytest.mark.firn_only("stock 2.8 does not verify certificates here (CVE-2024-47174)")
def test_https_without_any_authorities_says_what_to_do(confined, secure):
    confined.conf["ssl-cert-file"] = confined.root / "nonexistent"
    confined.build(fetch(secure.serve("/data"))).fails().says("ssl-cert-file")


# --- unknown ones


@pytest.mark.every_client
@pytest.mark.parametrize("name", ["frobnicate", "", "fetchurl2"])
def test_an_unknown_builtin_is_refused_by_name(world, name):
    expression = f'derivation {{ name = "x"; system = "builtin"; builder = "builtin:{name}"; }}'
    world.build(expression).fails().says(f"unsupported builtin builder '{name}'")


# --- where they run


@pytest.mark.every_client
@pytest.mark.parametrize("system", ["builtin", "pdp11-unix"])
def test_a_builtin_runs_whatever_its_system_is(world, server, system):
    """It is the daemon's own, so there is no system that it would not run on."""
    expression = f"""derivation {{ name = "x"; system = "{system}"; builder = "builtin:fetchurl"; url = "{server.serve("/data")}";
      outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = "{hashlib.sha256(DATA).hexdigest()}"; }}"""
    assert world.output(expression).read_bytes() == DATA


@pytest.mark.every_client
def test_a_builtin_needs_the_features_that_it_names(world):
    expression = """derivation { name = "x"; system = "builtin"; builder = "builtin:buildenv"; derivations = "";
      manifest = builtins.toFile "manifest" "[]"; requiredSystemFeatures = [ "antigravity" ]; }"""
    world.build(expression).fails().says("antigravity")


@pytest.mark.every_client
def test_other_builders_do_not_run_on_the_system_called_builtin(world):
    world.build('sh "x" "echo > $out" { system = "builtin"; }').fails().says("'builtin'")


# --- buildenv


def package(name, script, attrs=""):
    return f'(sh "{name}" "mkdir $out; cd $out; {script}" {{}}) // {{ meta = {{ }}; {attrs} }}'


def packages(world, **scripts):
    """A file with packages, each an attribute."""
    text = "".join(f"{name.replace('_', '-')} = {value if value.startswith('(') else package(name, value)};\n"
                   for name, value in scripts.items())
    return world.nix("rec { " + text + "}")


def install(world, file, *names, **options):
    return world.run("nix-env", "--profile", world.root / "profile", "-f", file, "-iA", *names, timeout=120, **options)


def tree(root):
    """Symlinks by their name in the tree, directories as "/"."""
    result = {}
    for folder, names, files in os.walk(root):
        for name in names + files:
            path = Path(folder) / name
            result[str(path.relative_to(root))] = os.readlink(path) if path.is_symlink() else "/"
    return result


@pytest.mark.every_client
def test_two_packages_are_installed(confined):
    file = packages(confined, a="mkdir bin share; echo a > bin/a; echo x > share/x", b="mkdir bin lib; echo b > bin/b; echo > .hidden")
    install(confined, file, "a", "b").ok()
    profile = confined.root / "profile"
    a, b = (confined.run("nix-build", "--no-out-link", file, "-A", name).ok().path for name in "ab")
    links = tree(profile)
    manifest = links.pop("manifest.nix")
    assert links == {"bin": "/", "bin/a": f"{a}/bin/a", "bin/b": f"{b}/bin/b", "share": f"{a}/share", "lib": f"{b}/lib"}
    assert manifest.endswith("-env-manifest.nix")
    assert (profile / "bin/a").read_text() == "a\n"


@pytest.mark.every_client
def test_a_conflict_names_both_files(world):
    file = packages(world, a="mkdir bin; echo a > bin/x", b="mkdir bin; echo b > bin/x")
    a, b = (world.run("nix-build", "--no-out-link", file, "-A", name).ok().path for name in "ab")
    install(world, file, "a", "b").fails().says(f"{a}/bin/x", f"{b}/bin/x", "conflict" if STOCK_NEW else "priority")
    assert not (world.root / "profile").exists()


def test_the_package_with_the_smaller_priority_number_wins(world):
    file = packages(world, a="mkdir bin; echo a > bin/x", b=package("b", "mkdir bin; echo b > bin/x", "meta.priority = 4;").replace("meta = { };", ""))
    install(world, file, "a", "b").ok()
    assert (world.root / "profile/bin/x").read_text() == "b\n"
    install(world, file, "a").ok()
    assert (world.root / "profile/bin/x").read_text() == "b\n"


def test_an_inactive_package_is_not_linked(world):
    file = packages(world, a="mkdir bin; echo a > bin/x", b="mkdir bin; echo b > bin/y")
    install(world, file, "a", "b").ok()
    world.run("nix-env", "--profile", world.root / "profile", "--set-flag", "active", "false", "a").ok()
    assert os.listdir(world.root / "profile/bin") == ["y"]


def test_directories_of_several_packages_are_merged_at_any_depth(world):
    file = packages(world, a="mkdir -p share/man/man1; echo > share/man/man1/a", b="mkdir -p share/man/man1; echo > share/man/man1/b",
                    c="mkdir -p share/man/man2; echo > share/man/man2/c; ln -s man2 share/man/man3")
    install(world, file, "a", "b", "c").ok()
    links = tree(world.root / "profile/share")
    assert [name for name, target in links.items() if target == "/"] == ["man", "man/man1"]
    assert {name for name in links} == {"man", "man/man1", "man/man1/a", "man/man1/b", "man/man2", "man/man3"}


def test_a_file_and_a_directory_of_one_name_collide(world):
    for first, second in (("a", "b"), ("b", "a")):
        file = packages(world, **{first: "mkdir -p share/x; echo > share/x/y", second: "mkdir share; echo > share/x"})
        install(world, file, "a", "b").fails().says("share/x")


def test_propagated_packages_come_along_and_yield(world):
    file = packages(world, low="mkdir bin; echo low > bin/x; echo low > bin/low",
                    a='(let low = ' + package("low", "mkdir bin; echo low > bin/x; echo low > bin/low") + '; in ' +
                      package("a", "mkdir bin nix-support; echo a > bin/x; echo ${low} > nix-support/propagated-user-env-packages") + ')')
    install(world, file, "a").ok()
    profile = world.root / "profile"
    assert (profile / "bin/x").read_text() == "a\n" and (profile / "bin/low").read_text() == "low\n"
    assert not (profile / "nix-support").exists()


def test_what_is_no_directory_and_what_dangles_is_left_out_with_a_warning(world):
    file = packages(world, a='(sh "a" "echo > $out" {} // { meta = { }; })', b="mkdir bin; ln -s nowhere bin/x; echo > bin/y", c="mkdir bin; echo > bin/z")
    install(world, file, "a", "b", "c").ok().says("not including", "skipping dangling symlink")
    assert sorted(os.listdir(world.root / "profile/bin")) == ["y", "z"]


def test_a_very_long_list_of_packages(world):
    """Longer than one environment variable can be."""
    path = world.output('sh "p" "mkdir -p $out/bin; echo > $out/bin/p" {}')
    expression = f"""let p = builtins.storePath "{path}"; in derivation {{ name = "env"; system = "builtin"; builder = "builtin:buildenv";
      manifest = builtins.toFile "manifest" "[]"; derivations = builtins.genList (i: [ "true" 5 1 p ]) 3000; }}"""
    assert tree(world.output(expression))["bin"] == f"{path}/bin"


@pytest.mark.parametrize("text", ["true", "true five 1 /x", "true 5 2 /x"])
def test_a_malformed_list_of_packages_is_refused(world, text):
    expression = f"""derivation {{ name = "env"; system = "builtin"; builder = "builtin:buildenv"; derivations = "{text}";
      manifest = builtins.toFile "manifest" "[]"; }}"""
    world.build(expression).fails()


STRUCTURED_ENV = """derivation {{ name = "env"; system = "builtin"; builder = "builtin:buildenv"; __structuredAttrs = true;
  manifest = builtins.toFile "manifest" "[]"; {attributes} }}"""


@pytest.mark.firn_only("stock 2.8 finds no attributes there")
@pytest.mark.parametrize("value", ["{ a = 1; }", '[ "true" 5 1 { path = "/x"; } ]', "{ }"])
def test_an_attribute_that_is_no_text_is_refused(world, value):
    expression = STRUCTURED_ENV.format(attributes=f"derivations = {value};")
    world.build(expression).fails().says("'derivations'", "'builtin:buildenv'")


@pytest.mark.firn_only("stock 2.8 finds no attributes there")
def test_an_attribute_that_no_builtin_reads_may_be_anything(world):
    assert tree(world.output(STRUCTURED_ENV.format(attributes="derivations = [ ]; other = { a = 1; };"))).keys() == {"manifest.nix"}


@pytest.mark.firn_only("stock 2.8 finds no attributes there")
def test_lists_in_a_structured_list_of_packages(world):
    path = world.output('sh "p" "mkdir -p $out/bin; echo > $out/bin/p" {}')
    attributes = f'derivations = [ [ "true" 5 [ 1 ] (builtins.storePath "{path}") ] [ ] ];'
    assert tree(world.output(STRUCTURED_ENV.format(attributes=attributes)))["bin"] == f"{path}/bin"


# --- unpack-channel


def tarball(path, entries, compression="xz"):
    """entries: (name, content or TarInfo fields)."""
    with tarfile.open(path, f"w:{compression}", format=tarfile.PAX_FORMAT) as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            fields = content if isinstance(content, dict) else {}
            data = b"" if fields else content
            if content is None:
                info.type, data = tarfile.DIRTYPE, b""
            info.mode = 0o755 if content is None else 0o644
            info.size = len(data)
            for key, value in fields.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return path


GOOD = [("channel-1.0", None), ("channel-1.0/default.nix", b'{ hello = derivation { name = "hello"; system = "x"; builder = "x"; }; }\n'),
        ("channel-1.0/run", {"mode": 0o4777}), ("channel-1.0/link", {"type": tarfile.SYMTYPE, "linkname": "default.nix"}),
        ("channel-1.0/hard", {"type": tarfile.LNKTYPE, "linkname": "channel-1.0/default.nix"}),
        ("channel-1.0/s\u00fc\u00df", b"umlauts")]


def unpack(world, archive, name="mine"):
    return world.build(f"""derivation {{ name = "channel"; system = "builtin"; builder = "builtin:unpack-channel"; channelName = "{name}";
      src = {archive}; }}""")


@pytest.mark.every_client
@pytest.mark.parametrize("compression", ["xz", "gz", "bz2"])
def test_a_channel_is_updated(world, server, compression):
    archive = tarball(world.src / "nixexprs.tar", GOOD, compression)
    url = server.serve(f"/nixexprs.tar.{compression}", archive.read_bytes())
    # A 2.8 client expects its daemon to have made this, which a newer one does not.
    (world.state / "profiles/per-user" / world.environment()["USER"]).mkdir(parents=True, exist_ok=True)
    world.run("nix-channel", "--add", url, "mine").ok()
    world.run("nix-channel", "--update", timeout=120).ok()
    channels = [path for path in list(world.state.rglob("channels")) + list(world.home.rglob("channels")) if path.is_symlink()]
    assert (channels[0] / "mine/default.nix").read_bytes() == GOOD[1][1]


def test_a_channel_s_files_are_as_a_store_has_them(confined):
    path = Path(unpack(confined, tarball(confined.src / "x.tar.xz", GOOD)).ok().path)
    assert sorted(os.listdir(path / "mine")) == ["default.nix", "hard", "link", "run", "s\u00fc\u00df"]
    assert (path / "mine/run").stat().st_mode & 0o7777 == 0o555
    assert (path / "mine/default.nix").stat().st_mode & 0o7777 == 0o444
    assert (path / "mine/hard").read_bytes() == GOOD[1][1]
    assert os.readlink(path / "mine/link") == "default.nix"


@pytest.mark.parametrize("mode", [0o654, 0o645, 0o655, 0o744, 0o100, 0o011])
def test_a_channel_s_file_is_executable_where_its_owner_may_execute_it(world, mode):
    archive = tarball(world.src / "x.tar.xz", [("top", None), ("top/file", {"mode": mode})])
    path = Path(unpack(world, archive).ok().path)
    assert (path / "mine/file").stat().st_mode & 0o7777 == (0o555 if mode & 0o100 else 0o444)


def test_a_channel_in_a_zip_archive(world):
    import zipfile
    with zipfile.ZipFile(world.src / "x.zip", "w") as archive:
        archive.writestr("top/default.nix", "{ }")
    assert (Path(unpack(world, world.src / "x.zip").ok().path) / "mine/default.nix").read_text() == "{ }"


def test_entries_below_a_dot_are_fine(world):
    entries = [(".", None), ("./top", None), ("./top/file", b"x")]
    assert (Path(unpack(world, tarball(world.src / "x.tar.xz", entries)).ok().path) / "mine/file").read_bytes() == b"x"


@pytest.mark.parametrize("entries", [[("a", b"x"), ("b", b"x")], []], ids=["two", "none"])
def test_a_channel_has_one_entry_at_its_top(world, entries):
    unpack(world, tarball(world.src / "x.tar.xz", entries)).fails().says("x.tar.xz")


@pytest.mark.parametrize("name", ["a/b", "..", ".", ""])
@pytest.mark.firn_only("stock 2.8 takes any")
def test_a_channel_s_name_is_one_name(world, name):
    unpack(world, tarball(world.src / "x.tar.xz", GOOD), name).fails().says("channelName")


LINK = tarfile.SYMTYPE
EVIL = {
    "parent": [("top/../../evil", b"evil")],
    "absolute": [("{outside}/evil", b"evil")],
    "through-symlink": [("top", None), ("top/d", {"type": LINK, "linkname": "{outside}"}), ("top/d/evil", b"evil")],
    "through-relative-symlink": [("top", {"type": LINK, "linkname": ".."}), ("top/evil", b"evil")],
    "onto-symlink": [("top", None), ("top/f", {"type": LINK, "linkname": "{outside}/evil"}), ("top/f", b"evil")],
    "hard-link-outside": [("top", None), ("top/f", {"type": tarfile.LNKTYPE, "linkname": "{outside}/victim"}), ("top/f", b"evil")],
    "hard-link-to-symlink": [("top", None), ("top/l", {"type": LINK, "linkname": "{outside}/victim"}),
                             ("top/f", {"type": tarfile.LNKTYPE, "linkname": "top/l"}), ("top/f", b"evil")],
    "hard-link-parent": [("top", None), ("top/f", {"type": tarfile.LNKTYPE, "linkname": "../../victim"})],
    "device": [("top", None), ("top/null", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3})],
    "fifo": [("top", None), ("top/fifo", {"type": tarfile.FIFOTYPE})],
}


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.firn_only("stock 2.8 unpacks absolute names where they say"))
                                  if kind == "absolute" else kind for kind in EVIL])
@pytest.mark.parametrize("sandbox", ["true", "false"], ids=["sandboxed", "unsandboxed"])
def test_an_evil_archive_writes_nothing_outside(world, kind, sandbox):
    world.conf["sandbox"] = sandbox
    outside = world.root / "outside"
    outside.mkdir()
    outside.chmod(0o777)
    (outside / "victim").write_text("untouched")
    (outside / "victim").chmod(0o666)

    def fill(value):
        return value.replace("{outside}", str(outside)) if isinstance(value, str) else value
    entries = [(fill(name), {key: fill(value) for key, value in content.items()} if isinstance(content, dict) else content)
               for name, content in EVIL[kind]]
    before = set(world.root.rglob("evil"))
    result = unpack(world, tarball(world.src / "x.tar.xz", entries))
    if kind == "onto-symlink" and result.status == 0:
        # The symlink is replaced by the file: that is what the archive says.
        assert (Path(result.path) / "mine/f").read_bytes() == b"evil"
    elif not STOCK:
        result.fails()
    assert set(world.root.rglob("evil")) == before and os.listdir(outside) == ["victim"]
    assert (outside / "victim").read_text() == "untouched" and (outside / "victim").stat().st_nlink == 1


@pytest.mark.parametrize("damage", ["truncated", "garbage"])
def test_a_damaged_archive_is_refused(world, damage):
    data = tarball(world.src / "good.tar.xz", [("top", None), ("top/f", os.urandom(200_000))]).read_bytes()
    (world.src / "x.tar.xz").write_bytes(data[:len(data) // 2] if damage == "truncated" else b"no archive at all" * 100)
    unpack(world, world.src / "x.tar.xz").fails()


# --- confinement


class Seen:
    """A builtin builder's process, from outside while it waits for something."""

    def __init__(self, process):
        folder = Path(f"/proc/{process.pid}")
        self.status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        self.other_namespace = os.readlink(folder / "ns/user") != os.readlink("/proc/self/ns/user")
        self.top = os.listdir(folder / "root")


def look():
    found = [process for process in machine.descendants() if any(part.endswith("/firn-builtin") for part in process.command)]
    return [Seen(process) for process in found]


def through_a_pipe(world, pipe, data, expression):
    """Builds what reads from the pipe, and looks when that is opened: (what was seen, the output)."""
    os.mkfifo(pipe)
    client = world.popen(["nix-build", "--no-out-link", world.nix(expression)])
    opened = []

    def is_read():
        with contextlib.suppress(OSError):  # nobody reads from it yet
            opened.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        return opened or client.poll() is not None
    machine.wait_until(is_read)
    if not opened:
        raise AssertionError(world.finish(client))
    seen = look()
    os.set_blocking(opened[0], True)
    with open(opened[0], "wb") as file:
        file.write(data)
    out, err = world.finish(client)
    assert client.returncode == 0, err
    return seen, Path(out.decode().strip())


def looked_at_fetchurl(world, gate):
    seen = []
    with Server() as server:
        server.paths["/data"] = lambda request: (seen.extend(look()), answer(request, 200, DATA))
        assert world.output(fetch(server.url("/data"))).read_bytes() == DATA
    return seen


def looked_at_buildenv(world, gate):
    """While it waits for a client that does not read: it has more to say than lies between them."""
    (gate / "package").mkdir()
    (gate / "package/file").write_text("x")
    for number in range(8000):
        (gate / f"package/{number:0>200}").symlink_to("nowhere")
    expression = f"""derivation {{ name = "env"; system = "builtin"; builder = "builtin:buildenv"; derivations = "true 5 1 {gate}/package";
      manifest = builtins.toFile "manifest" "[]"; }}"""
    client = world.popen(["nix-build", "--no-out-link", world.nix(expression)])
    seen = machine.wait_until(look)
    out, err = world.finish(client)
    assert client.returncode == 0 and err.count(b"skipping dangling symlink") == 8000, err
    assert os.readlink(Path(out.decode().strip()) / "file") == f"{gate}/package/file"
    return seen


def looked_at_unpack_channel(world, gate):
    archive = tarball(world.src / "x.tar.xz", GOOD).read_bytes()
    expression = f"""derivation {{ name = "channel"; system = "builtin"; builder = "builtin:unpack-channel"; channelName = "mine";
      src = "{gate}/archive"; }}"""
    seen, path = through_a_pipe(world, gate / "archive", archive, expression)
    assert (path / "mine/default.nix").read_bytes() == GOOD[1][1]
    return seen


@pytest.fixture
def gate(world):
    """A folder that builds see as well."""
    folder = world.root / "gate"
    folder.mkdir()
    world.conf["sandbox-paths"] += f" {folder}"
    return folder


BUILTINS = pytest.mark.parametrize("looked_at", [looked_at_fetchurl, looked_at_buildenv, looked_at_unpack_channel],
                                   ids=["fetchurl", "buildenv", "unpack-channel"])


@pytest.mark.firn_only("in stock Nix it is the daemon's own program")
@BUILTINS
def test_a_sandboxed_builtin_runs_as_any_builder(world, gate, looked_at):
    """Another user namespace, no privileges, few files."""
    seen = looked_at(world, gate)
    assert seen
    for process in seen:
        assert process.status["CapEff"].strip() == "0000000000000000" and process.status["Seccomp"].strip() == "2"
        assert process.status["NoNewPrivs"].strip() == "1"
        assert process.other_namespace and "home" not in process.top and "usr" not in process.top


@pytest.mark.root_only
@pytest.mark.firn_only("in stock Nix it is the daemon's own program")
@pytest.mark.parametrize("sandbox", ["true", "false"], ids=["sandboxed", "unsandboxed"])
@BUILTINS
def test_a_builtin_runs_as_a_build_user(world, gate, sandbox, looked_at):
    world.conf["sandbox"] = sandbox
    seen = looked_at(world, gate)
    assert seen
    group = grp.getgrnam("nixbld")
    users = {pwd.getpwnam(name).pw_uid for name in group.gr_mem}
    for process in seen:
        uids, gids = (set(map(int, process.status[name].split())) for name in ("Uid", "Gid"))
        assert len(uids) == 1 and uids <= users and gids == {group.gr_gid}
        assert set(process.status["Groups"].split()) <= {str(group.gr_gid)}
        assert process.status["CapEff"].strip() == process.status["CapPrm"].strip() == "0000000000000000"
