"""What a builder sees and may do in the Linux sandbox."""

import os
import re
import signal
import subprocess

import pytest

import machine


def inside(world, script, attrs="{}", *args):
    """What a sandboxed script writes to its output, by lines."""
    return world.text(f"sh \"inside\" ''exec > $out; {script}'' ({attrs})", *args).splitlines()


def test_the_store_shows_only_the_inputs(world):
    world.output('sh "unrelated" "echo > $out" {}')
    lines = world.text(f"""let dep = sh "dep" "echo needed > $out" {{}};
      in sh "inside" "ls {world.store} > $TMPDIR/l; cat ${{dep}} $TMPDIR/l > $out" {{}}""").splitlines()
    assert lines[0] == "needed"
    names = [line for line in lines[1:] if not line.startswith(".")]
    assert [name.split("-", 1)[1] for name in names] in (["dep"], ["dep", "inside"])


def test_the_closure_of_an_input_is_visible(world):
    assert world.text("""let a = sh "a" "echo deep > $out" {}; b = sh "b" "ln -s ${a} $out" {};
      in sh "c" "cat ${b} > $out" {}""") == "deep\n"


def test_an_unrelated_store_path_is_invisible(world):
    other = world.output('sh "unrelated" "echo > $out" {}')
    assert inside(world, f"test -e {other} && echo there || echo absent") == ["absent"]


def test_the_root_folder_holds_what_nix_s_does(world):
    names = set(inside(world, "ls /"))
    first = world.store.parts[1]
    assert names == {"bin", "build", "dev", "etc", "proc", "tmp", first}


def test_the_host_s_files_are_invisible(world):
    assert inside(world, "for f in /home /root /usr /var /etc/shadow /etc/hostname /sys; do test -e $f && echo $f; done; echo end") == ["end"]


def test_sandbox_paths_are_visible(world):
    (world.root / "host").mkdir()
    (world.root / "host/file").write_text("from the host\n")
    world.conf["sandbox-paths"] += f" /mounted={world.root}/host /absent={world.root}/none?"
    assert inside(world, "cat /mounted/file; test -e /absent || echo absent") == ["from the host", "absent"]


def test_a_sandbox_path_that_is_missing_is_an_error(world):
    world.conf["sandbox-paths"] += f" /absent={world.root}/none"
    world.build('sh "x" "echo > $out" {}').fails().says(f"{world.root}/none")


def test_the_build_directory_is_build_and_writable(world):
    assert inside(world, "pwd; echo x > file && cat file; ls -a | wc -l") == ["/build", "x", "3"]


def test_tmp_is_writable(world):
    assert inside(world, "echo x > /tmp/file && cat /tmp/file") == ["x"]


def test_dev_has_the_usual_entries(world):
    names = set(inside(world, "ls /dev"))
    assert {"fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"} <= names
    assert names <= {"fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero", "kvm", "console"}


def test_devices_work(world):
    assert inside(world, "head -c 3 /dev/zero | wc -c; echo gone > /dev/null; head -c 5 /dev/urandom | wc -c; echo x > /dev/shm/f; cat /dev/shm/f") \
        == ["3", "5", "x"]


def test_proc_shows_only_the_build_s_processes(world):
    numbers = [int(line) for line in inside(world, "cd /proc; for n in [0-9]*; do echo $n; done")]
    assert 1 in numbers and max(numbers) < 100


def test_passwd_and_group_name_the_build_user(world):
    lines = inside(world, "cat /etc/passwd; echo --; cat /etc/group; echo --; id -u; id -g")
    passwd, group, ids = [part.strip().splitlines() for part in "\n".join(lines).split("--")]
    uid, gid = ids
    assert passwd == ["root:x:0:0:Nix build user:/build:/noshell", f"nixbld:x:{uid}:{gid}:Nix build user:/build:/noshell",
                      "nobody:x:65534:65534:Nobody:/:/noshell"]
    assert group == ["root:x:0:", f"nixbld:!:{gid}:", "nogroup:x:65534:"]
    assert (uid, gid) == ("1000", "100")


def test_hosts_names_localhost(world):
    assert inside(world, "cat /etc/hosts") == ["127.0.0.1 localhost", "::1 localhost"]


def test_the_host_name_is_localhost(world):
    assert inside(world, "hostname; cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname") == ["localhost", "localhost", "(none)"]


def test_loopback_works(world):
    assert inside(world, "(echo over loopback | nc -l -p 4000 > /dev/null &); sleep 0.3; nc 127.0.0.1 4000 < /dev/null") == ["over loopback"]


def test_loopback_is_the_only_interface(world):
    assert [line.split(":")[0].strip() for line in inside(world, "grep : /proc/net/dev")] == ["lo"]


def test_the_host_s_processes_are_invisible(world):
    """Neither these tests nor the client that asked for the build are to be seen, and so cannot be signalled by number."""
    text = " ".join(inside(world, "for f in /proc/[0-9]*/cmdline; do tr '\\0' + < $f; done"))
    assert "pytest" not in text and "nix-build" not in text and "-euc+" in text


def test_setuid_bits_are_refused(world):
    lines = inside(world, "touch f; for m in 4755 2755 6755; do chmod $m f 2>/dev/null && echo set $m || echo refused; done; chmod 755 f && echo plain")
    assert lines == ["refused", "refused", "refused", "plain"]


def c_program(world, name, text):
    """A static program in a folder of its own below the expressions."""
    folder = world.src / name
    folder.mkdir()
    source = world.root / f"{name}.c"
    source.write_text(text)
    subprocess.run(["cc", "-static", "-o", folder / name, source], check=True)


SYSCALLS = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <sys/prctl.h>
#include <unistd.h>
static FILE *out;
static void say(const char *what, long result) { fprintf(out, "%s %s\n", what, result < 0 ? strerrorname_np(errno) : "ok"); }
int main(void) {
    out = fopen(getenv("out"), "w");
    int fd = open("file", O_CREAT | O_RDWR, 0644);
    say("setxattr", setxattr("file", "user.x", "1", 1, 0));
    say("fsetxattr", fsetxattr(fd, "user.x", "1", 1, 0));
    say("lsetxattr", lsetxattr("file", "user.x", "1", 1, 0));
    say("fchmod-setuid", fchmod(fd, 04755));
    say("fchmodat-setuid", fchmodat(AT_FDCWD, "file", 04755, 0));
    say("fchmodat2-setuid", syscall(452, AT_FDCWD, "file", 04755, 0));
    say("chmod-plain", chmod("file", 0755));
    int made = open("made-setuid", O_CREAT | O_WRONLY, 04755);
    say("open-setuid", made);
    fprintf(out, "no-new-privs %d\n", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    for (int i = 3; i < 1024; i++)
        if (fcntl(i, F_GETFD) >= 0 && i != fd && i != fileno(out) && i != made) fprintf(out, "open descriptor %d\n", i);
    char line[256];
    FILE *status = fopen("/proc/self/status", "r");
    while (fgets(line, sizeof line, status))
        if (!strncmp(line, "CapEff", 6) || !strncmp(line, "CapPrm", 6)) fputs(line, out);
    return 0;
}
"""


def syscall_answers(world):
    c_program(world, "calls", SYSCALLS)
    text = world.text('derivation { name = "calls"; inherit system; builder = "${./calls}/calls"; }')
    return dict(line.split(maxsplit=1) for line in text.splitlines() if not line.startswith("open descriptor")), text


def test_extended_attributes_are_not_supported(world):
    answers, _ = syscall_answers(world)
    assert {answers[name] for name in ("setxattr", "fsetxattr", "lsetxattr")} == {"ENOTSUP"} or \
        {answers[name] for name in ("setxattr", "fsetxattr", "lsetxattr")} == {"EOPNOTSUPP"}


@pytest.mark.firn_only("stock 2.8 does not know fchmodat2")
def test_no_call_sets_setuid_bits(world):
    answers, _ = syscall_answers(world)
    assert {answers[name] for name in ("fchmod-setuid", "fchmodat-setuid")} == {"EPERM"}
    assert answers["fchmodat2-setuid"] in ("EPERM", "ENOSYS", "EOPNOTSUPP", "ENOTSUP")
    assert answers["chmod-plain"] == "ok"


def test_builders_have_no_new_privileges_no_capabilities_and_no_descriptors(world):
    answers, text = syscall_answers(world)
    assert answers["no-new-privs"] == "1"
    assert int(answers["CapEff:"], 16) == 0 and int(answers["CapPrm:"], 16) == 0
    assert "open descriptor" not in text


def test_mounting_is_refused(world):
    assert inside(world, "mkdir m; mount -t tmpfs none m 2>/dev/null && echo mounted || echo refused") == ["refused"]


def test_inputs_are_read_only(world):
    text = world.text("""let a = sh "a" "mkdir $out; echo a > $out/f" {};
      in sh "b" "(echo b > ${a}/f) 2>/dev/null && echo written > $out || echo refused > $out; chmod u+w ${a}/f 2>/dev/null || true" {}""")
    assert text == "refused\n"


def test_the_terminal_and_standard_input_are_closed(world):
    assert inside(world, "cat; test -t 0 || echo no terminal") == ["no terminal"]


def test_relaxed_lets_a_derivation_out_of_the_sandbox(world):
    world.conf["sandbox"] = "relaxed"
    world.conf["trusted-users"] = ""
    (world.root / "host").write_text("host\n")
    (world.root / "host").chmod(0o644)
    assert world.text(f'sh "out" "cat {world.root}/host > $out" {{ __noChroot = true; }}') == "host\n"
    assert inside(world, f"test -e {world.root}/host || echo absent") == ["absent"]


@pytest.mark.stock_leaves("store")
def test_without_relaxed_no_derivation_leaves_the_sandbox(world):
    world.build('sh "out" "echo > $out" { __noChroot = true; }').fails().says("__noChroot", "not allowed")


def test_sandbox_false_shows_the_host(world):
    world.conf["sandbox"] = "false"
    assert inside(world, "test -d /home && echo home") == ["home"]


def test_the_personality_of_a_32_bit_system_is_linux32(world):
    if os.uname().machine != "x86_64":
        pytest.skip("this machine has no 32-bit sister system")
    world.conf["extra-platforms"] = "i686-linux"
    assert inside(world, "uname -m", '{ system = "i686-linux"; }') == ["i686"]


def test_the_machine_is_the_host_s(world):
    assert inside(world, "uname -m") == [os.uname().machine]


def test_an_impure_host_dependency_needs_permission(world):
    (world.root / "host").write_text("host\n")
    attrs = f'{{ __impureHostDeps = [ "{world.root}/host" ]; }}'
    world.build(f'sh "impure" "echo > $out" ({attrs})').fails().says("requested impure path", f"{world.root}/host")
    world.conf["allowed-impure-host-deps"] = f"{world.root}/host"
    world.restart()
    assert inside(world, f"cat {world.root}/host", attrs) == ["host"]


def test_two_sandboxes_do_not_see_each_other(world):
    lines = [open(path).read().split() for path in world.build(
        'let f = n: sh n "echo x > /tmp/mark-$name; echo x > mark-$name; sleep 0.4; ls /tmp . | grep mark > $out" {}; in [ (f "a") (f "b") ]',
        "--max-jobs", "2").ok().lines]
    assert lines == [["mark-a", "mark-a"], ["mark-b", "mark-b"]] or all(len(set(line)) == 1 for line in lines)


def waiting_sandboxes(world):
    """Those that have been started and not been told yet what to do."""
    below = machine.descendants(of=world.daemon.pid)
    inits = {process.pid for process in below if os.path.basename((process.command or [""])[0]) == "firn-sandbox-init"}
    parents = {process.parent for process in below}
    return [process.pid for process in below if process.pid in inits and process.parent not in inits and process.pid not in parents]


@pytest.mark.firn_only("stock Nix has no such processes")
@pytest.mark.parametrize("follows, killed", [(True, False), (True, True), (False, False)])
def test_the_next_sandbox_is_started_while_a_builder_runs_if_another_build_follows(world, follows, killed):
    signals = world.root / "signal"
    signals.mkdir()
    os.mkfifo(signals / "go")
    signals.joinpath("go").chmod(0o666)
    world.conf["sandbox-paths"] += f" /signal={signals}"
    first = """sh "first" "echo started >&2; read line < /signal/go; echo > $out" {}"""
    client = world.popen(["nix-build", "--no-out-link", world.nix(f"""sh "second" "cat ${{{first}}} > $out" {{}}""" if follows else first)])
    assert any(b"started" in line for line in client.stderr)
    assert machine.wait_until(lambda: len(waiting_sandboxes(world)) == follows)
    if killed:
        os.kill(waiting_sandboxes(world)[0], signal.SIGKILL)
        assert machine.wait_until(lambda: waiting_sandboxes(world) == [])
    signals.joinpath("go").write_text("\n")
    client.communicate()
    assert client.returncode == 0
    assert world.wait_for_quiet() == []


@pytest.mark.root_only
def test_builders_are_nobody_s_peer_on_the_host(world):
    """The uid outside is a build user's, the one inside is 1000."""
    mark = f"51{os.getpid() % 10000:04d}.5"
    client = world.popen(["nix-build", "--no-out-link", world.nix(f'sh "who" "id -u >&2; sleep {mark}" {{}}')])
    assert machine.wait_until(lambda: [p for p in world.live_children() if repr(p).rstrip().endswith(f"sleep {mark}")])
    process = [p for p in world.live_children() if repr(p).rstrip().endswith(f"sleep {mark}")][0]
    uid = os.stat(f"/proc/{process.pid}").st_uid
    client.kill()
    import grp
    import pwd
    assert pwd.getpwuid(uid).pw_name in grp.getgrnam("nixbld").gr_mem


def test_mounts_do_not_reach_the_host(world):
    client = world.popen(["nix-build", "--no-out-link", world.nix('sh "mounts" "echo started >&2; sleep 3400" {}')])
    for line in client.stderr:
        if b"started" in line:
            break
    assert machine.mounts_below(world.root) == []
    client.kill()


def test_log_text_with_escapes_reaches_the_client_whole(world):
    result = world.build(r'''sh "esc" "printf 'a\\033[31mred\\033[0m\\n'; echo > $out" {}''').ok()
    assert re.search("red", result.err)
