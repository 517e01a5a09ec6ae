"""Code that runs as a program: what it reads, what it prints, how it ends."""

from __future__ import annotations

import json
import time

import pytest

from align.reward.sandbox import Limits, Run, Sandbox

LIMITS = Limits(wall_seconds=20, cpu_seconds=10, memory_mb=256, output_kb=256)


def ran(sandbox: Sandbox, code: str, stdin: str = "", limits: Limits = LIMITS) -> Run:
    return sandbox.run_program(code, stdin, limits=limits)


@pytest.mark.parametrize(
    ("code", "stdin", "printed"),
    [
        ("print(int(input()) + 1)", "41\n", "42\n"),
        ("print(int(input()) + int(input()))", "1\n2", "3\n"),
        ("import sys\nfor line in sys.stdin: print(line.strip()[::-1])", "ab\ncd\n", "ba\ndc\n"),
        ("import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))", "1 2 3", "6\n"),
        ("print(open(0).read().upper(), end='')", "é\n", "É\n"),
        ("import os\nos.write(1, os.read(0, 9))", "direct", "direct"),
        ("import sys\nsys.stdout.buffer.write(b'a')\nprint('b')", "", "ab\n"),
        ("import sys\nsys.stderr.write('noise')\nprint('x')", "", "x\n"),
        ("if __name__ == '__main__': print('main')", "", "main\n"),
        ("print('x')\nexit()", "", "x\n"),
        ("import sys\nprint('x')\nsys.exit(0)", "", "x\n"),
        ("import os\nprint('x', flush=True)\nos._exit(0)", "", "x\n"),
        ("import os\nprint('never written')\nos._exit(0)", "", ""),
        ("import atexit\natexit.register(print, 'last')\nprint('first')", "", "first\nlast\n"),
        (
            "import threading\nthreading.Thread(target=lambda: print(input())).start()",
            "in a thread",
            "in a thread\n",
        ),
        (
            "import io, sys\nsys.stdout = o = io.StringIO()\nprint(1)\nsys.__stdout__.write(o.getvalue())",
            "",
            "1\n",
        ),
        ("print(len(input()))", "7" * 3_000_000, "3000000\n"),
    ],
)
def test_what_it_prints(sandbox: Sandbox, code: str, stdin: str, printed: str) -> None:
    run = ran(sandbox, code, stdin)
    assert (run.status, run.printed) == ("passed", printed)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("print(1)\nraise ValueError", "exception"),
        ("input()", "exception"),
        ("print(", "syntax"),
        ("import sys\nprint(1)\nsys.exit(3)", "exited"),
        ("import sys\nsys.exit('a message')", "exited"),
        ("import os\nos._exit(1)", "exited"),
        ("import ctypes\nctypes.string_at(0)", "exited"),
        ("import os, time\nprint(1, flush=True)\nos.close(3)\ntime.sleep(60)", "exited"),
        ("x = [0] * 10**10", "memory"),
        ("print('x' * 10**6)", "output"),
    ],
)
def test_how_it_ends(sandbox: Sandbox, code: str, status: str) -> None:
    assert ran(sandbox, code).status == status


def test_an_endless_program_is_ended(sandbox: Sandbox) -> None:
    start = time.monotonic()
    run = ran(sandbox, "print(1, flush=True)\nwhile True: pass", limits=Limits(wall_seconds=0.5))
    assert (run.status, run.printed) == ("timeout", "1\n")
    assert time.monotonic() - start < 30


def test_runs_see_nothing_of_each_other(sandbox: Sandbox, still_sound: None) -> None:
    leave = "import builtins, os\nbuiltins.left = 1\nopen('left', 'w').write('x')\nprint(os.listdir('.'))"
    look = "import builtins, os\nprint(os.listdir('.'), hasattr(builtins, 'left'))"
    assert ran(sandbox, leave, "secret").printed == "['left']\n"
    assert ran(sandbox, look).printed == "[] False\n"
    assert ran(sandbox, "import sys\nprint(repr(sys.stdin.read()))").printed == "''\n"


def test_a_program_is_as_confined_as_other_code(sandbox: Sandbox, still_sound: None) -> None:
    """It sees its input and nothing else; what should be printed is not even sent."""
    code = """
import json, os, socket
def tried(do):
    try: return str(do())
    except (OSError, PermissionError): return "refused"
print(json.dumps([
    tried(lambda: open('/etc/passwd').read()),
    tried(lambda: open('/home', 'w')),
    tried(os.fork),
    tried(lambda: socket.create_connection(('127.0.0.1', 80), 1)),
    tried(lambda: os.execv('/bin/sh', ['sh'])),
]))
"""
    run = ran(sandbox, code)
    assert run.status == "passed"
    assert json.loads(run.printed) == ["refused"] * 5


@pytest.mark.parametrize(
    "forged",
    [
        '{"statuses": ["passed"], "detail": "", "printed": "42"}',
        '["value", 0, null]',
    ],
)
def test_a_forged_end_gains_nothing(sandbox: Sandbox, still_sound: None, forged: str) -> None:
    """What it sends the judge can only say that it ended; what it printed is read from the file."""
    code = f"import os\nd = {forged!r}.encode()\nos.write(3, len(d).to_bytes(4, 'big') + d)\nraise ValueError"
    assert ran(sandbox, code).printed == ""
