"""Code that goes for the machine around it. Nothing escapes."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from align.reward.sandbox import Limits, Sandbox, Verdict

Attack = Callable[..., Verdict]
Seen = Callable[[str], list[object]]
LIMITS = Limits(wall_seconds=20, cpu_seconds=10, memory_mb=256, output_kb=256)


def attempts(*expressions: str) -> str:
    """Code whose ``f`` tries each expression and returns those that raised nothing."""
    lines = [
        "import os, sys, socket, ctypes, resource, signal, subprocess, glob, shutil, pathlib",
        "libc = ctypes.CDLL(None, use_errno=True)",
        "def ok(result):",
        "    if result < 0: raise OSError(ctypes.get_errno())",
        "def create(path):",
        "    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))",
        "    os.unlink(path)",
        "def f(x):",
        "    done = []",
    ]
    for expression in expressions:
        lines += [
            "    try:",
            f"        {expression}",
            f"        done.append({expression!r})",
            "    except (OSError, ValueError, RuntimeError): pass",
        ]
    return "\n".join([*lines, "    return done"])


def test_it_reads_nothing_of_the_machine(seen: Seen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = tmp_path / "canary"
    canary.write_text("private")
    monkeypatch.setenv("PRIVATE_KEY", "private")
    assert seen("import os\ndef f(x): return [k for k, v in os.environ.items() if 'private' in v]") == []
    paths = ["/etc/shadow", "/etc/passwd", "/proc/self/environ", f"/proc/{os.getpid()}/environ", str(canary)]
    folders = [str(Path.home()), str(tmp_path), "/root", "/home", "/proc", str(Path(__file__).parents[3])]
    reading = [f"open({path!r}).read()" for path in paths]
    listing = [f"os.listdir({folder!r})[0]" for folder in folders]
    code = attempts(*reading, *listing).replace("RuntimeError", "RuntimeError, IndexError")
    found = seen(code)
    assert [line for line in found if "home" not in str(line) and "'/root'" not in str(line)] == []
    # Of a home directory that holds the interpreter, only the way to it is there.
    code = "import os\ndef f(x):\n    try: return os.listdir(HOME)\n    except OSError: return []"
    assert len(seen(f"HOME = {str(Path.home())!r}\n{code}")) <= 1


def test_it_writes_nowhere_else(seen: Seen, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("as it was")
    canary.chmod(0o644)
    before = canary.stat()
    here = str(canary)
    code = attempts(
        f"open({here!r}, 'w')",
        f"open({here!r}, 'a').write('x')",
        f"os.truncate({here!r}, 0)",
        f"os.remove({here!r})",
        f"os.rename({here!r}, {here + 'x'!r})",
        f"os.chmod({here!r}, 0)",
        f"os.utime({here!r}, (0, 0))",
        f"os.chown({here!r}, os.getuid(), -1)",
        f"os.link({here!r}, 'link')",
        f"os.mkdir({str(tmp_path / 'new')!r})",
        f"os.rmdir({str(tmp_path)!r})",
        f"os.setxattr({here!r}, 'user.x', b'1')",
        "create('/usr/lib/new')",
        "create(os.path.dirname(os.__file__) + '/new.py')",
        "create('/new')",
        "create('/dev/shm/new')",
        "os.chmod(os.__file__, os.stat(os.__file__).st_mode)",
        "ok(libc.mount(b'none', b'/tmp', b'tmpfs', 0, None))",
        "ok(libc.chroot(b'/tmp'))",
    )
    assert seen(code) == []
    after = canary.stat()
    assert canary.read_text() == "as it was"
    assert (after.st_mode, after.st_mtime, after.st_uid) == (before.st_mode, before.st_mtime, before.st_uid)
    assert list(tmp_path.iterdir()) == [canary]


def test_it_writes_in_its_scratch_folder_up_to_the_limit(seen: Seen) -> None:
    code = attempts("open('a', 'w').write('x')", "open('b', 'w').write('x' * (1 << 20))")
    assert seen(code) == ["open('a', 'w').write('x')"]


def test_its_scratch_folder_is_empty_for_the_next(attack: Attack, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("as it was")
    code = f"""
import os
def f(x):
    os.symlink({str(tmp_path)!r}, 'link')
    os.mkdir('locked'); open('locked/file', 'w').close()
    try: os.chmod('locked', 0)
    except OSError: pass
    for _ in range(1200):
        os.mkdir('deep'); os.chdir('deep')
"""
    attack(code)
    assert canary.read_text() == "as it was"  # and see _still_sound


def test_it_reaches_no_network(seen: Seen, tmp_path: Path) -> None:
    heard: list[object] = []
    servers = [
        socket.create_server(("127.0.0.1", 0)),
        socket.socket(socket.AF_UNIX),
        socket.socket(socket.AF_UNIX),
    ]
    servers[1].bind(str(tmp_path / "socket"))
    servers[2].bind("\0align-test-canary")
    for server in servers:
        server.listen()
        server.settimeout(0.5)

    def listen(server: socket.socket) -> None:
        with contextlib.suppress(TimeoutError):
            heard.append(server.accept())

    threads = [threading.Thread(target=listen, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    port = servers[0].getsockname()[1]
    code = attempts(
        f"socket.create_connection(('127.0.0.1', {port}), timeout=1)",
        f"socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))",
        "socket.create_connection(('1.1.1.1', 53), timeout=1)",
        "socket.getaddrinfo('example.org', 80)",
        f"socket.socket(socket.AF_UNIX).connect({str(tmp_path / 'socket')!r})",
        "socket.socket(socket.AF_UNIX).connect('\\0align-test-canary')",
        "socket.create_server(('127.0.0.1', 0))",
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    )
    assert seen(code) == []
    for thread in threads:
        thread.join()
    for server in servers:
        server.close()
    assert heard == []


def test_it_harms_no_process(seen: Seen, sandbox: Sandbox) -> None:
    # Signal 0 asks for leave only, and seizing does not stop: should this test fail, nothing is hurt.
    pids = sorted({os.getpid(), os.getppid(), sandbox._process.pid, 1, 2, 3, 4, 5, 6})
    calls = [f"os.kill({pid}, 0)" for pid in [*pids, -1, 0]]
    calls += ["os.kill(os.getppid(), 0)", "os.killpg(0, 0)", "os.setsid()", "os.setpgid(0, 0)"]
    calls += [f"signal.pidfd_send_signal(os.pidfd_open({pid}), 0)" for pid in pids]
    calls += [f"resource.prlimit({pid}, resource.RLIMIT_CPU)" for pid in pids]
    calls += ["resource.prlimit(os.getppid(), resource.RLIMIT_CPU)"]
    calls += [f"ok(libc.ptrace(0x4206, {pid}, 0, 0))" for pid in pids]
    calls += ["ok(libc.ptrace(0x4206, os.getppid(), 0, 0))"]
    calls += ["os.fork()", "subprocess.Popen(['/bin/sh', '-c', ':'])"]
    calls += ["os.execv(sys.executable or '/bin/sh', ['x'])", "os.posix_spawn('/bin/sh', ['sh'], {})"]
    calls += ["ok(libc.unshare(0x10000000))", "ok(libc.unshare(0x20000))", "ok(libc.setns(3, 0))"]
    calls += [
        "ok(libc.memfd_create(b'x', 0))",
        "ok(libc.shmget(0, 4096, 0o1600))",
        "ok(libc.syscall(425, 1, 0))",
    ]
    calls += [
        "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
        "resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))",
    ]
    calls += [
        "ok(libc.syscall(101, 16, os.getppid(), 0, 0))",
        "ok(libc.syscall(310, os.getppid(), 0, 0, 0, 0, 0))",
    ]
    calls += ["os.nice(-1)", "os.setuid(0) or os.setuid(1)", "ok(libc.fcntl(3, 8, os.getppid()))"]
    calls += ["ok(libc.prctl(1, 0, 0, 0, 0))"]
    calls += [
        "open(f'/proc/{os.getppid()}/mem', 'rb')",
        "open('/proc/self/mem', 'rb')",
        "os.listdir('/proc')",
    ]
    assert seen(attempts(*calls)) == []


def test_no_process_of_its_own_survives(attack: Attack) -> None:
    marker = "align-survivor"
    code = f"""
import os, subprocess, threading, time
def f(x):
    for start in (
        lambda: subprocess.Popen(['sleep', '1000', {marker!r}], start_new_session=True),
        lambda: os.system('nohup sleep 1000 &'),
        lambda: os.fork() or (os.setsid(), time.sleep(1000)),
        lambda: threading.Thread(target=time.sleep, args=(1000,)).start(),
    ):
        try: start()
        except Exception: pass
    return 1
"""
    attack(code)
    assert not [p for p in psutil.process_iter(["cmdline"]) if marker in (p.info["cmdline"] or [])]


def test_it_cannot_change_what_later_code_gets(attack: Attack, sandbox: Sandbox) -> None:
    code = "import math, builtins\nmath.sqrt = builtins.len = lambda x: 7\ndef f(x): return 1"
    attack(code)
    later = "import math\ndef f(x): return [math.sqrt(4), len('ab')]"
    assert sandbox.run(later, ["assert f(1) == [2.0, 2]"], limits=LIMITS).reason == "passed"
