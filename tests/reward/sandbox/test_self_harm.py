"""Code that hangs, crashes or takes too much: it ends within its limit and says how."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from align.reward.sandbox import Limits, Verdict

Attack = Callable[..., Verdict]
LIMITS = Limits(wall_seconds=20, cpu_seconds=10, memory_mb=256, output_kb=256)
SHORT = Limits(wall_seconds=0.7, cpu_seconds=10, memory_mb=256, output_kb=256)
SMALL = Limits(wall_seconds=20, cpu_seconds=10, memory_mb=96)
SECRET = "sesame-4711"  # what the test wants

DEFINE = "import os, sys, time, threading, signal\ndef f(x):\n    "
SELF_HARM = {
    "infinite loop": (DEFINE + "while True: pass", SHORT, {"timeout"}),
    "infinite loop at the top": ("while True: pass", SHORT, {"timeout"}),
    "sleep": (DEFINE + "time.sleep(1000)", SHORT, {"timeout"}),
    "ignores signals": (
        DEFINE + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    while True: pass",
        SHORT,
        {"timeout"},
    ),
    "swallows everything": (
        DEFINE + "while True:\n        try: f(x)\n        except BaseException: pass",
        SHORT,
        {"timeout"},
    ),
    "processor time": (
        DEFINE + "[threading.Thread(target=f, args=(x,)).start() for _ in range(3)]\n    while True: pass",
        Limits(wall_seconds=20, cpu_seconds=1, memory_mb=256),
        {"timeout", "memory", "exception"},
    ),
    "stuck in C": (DEFINE + "return 9 ** 9 ** 9", SHORT, {"timeout"}),
    "fork bomb": (DEFINE + "while True: os.fork()", LIMITS, {"exception"}),
    "stubborn fork bomb": (
        DEFINE + "while True:\n        try: os.fork()\n        except OSError: pass",
        SHORT,
        {"timeout"},
    ),
    "thread bomb": (
        DEFINE + "while True: threading.Thread(target=time.sleep, args=(1000,)).start()",
        LIMITS,
        {"exception", "memory"},
    ),
    "memory bomb": (DEFINE + "hold = []\n    while True: hold.append(bytearray(10**7))", LIMITS, {"memory"}),
    "one large object": (DEFINE + "return bytearray(10**12)", LIMITS, {"memory"}),
    "prints for ever": (DEFINE + "while True: print('x' * 10**5)", LIMITS, {"output"}),
    "prints too much, then is right": (
        DEFINE + f"print('x' * 10**6)\n    return {SECRET!r}",
        LIMITS,
        {"output"},
    ),
    "writes past Python": (
        DEFINE + "while True:\n        try: os.write(2, b'x' * 10**5)\n        except OSError: break",
        LIMITS,
        {"output"},
    ),
    "large answer": (DEFINE + "return 'x' * (20 << 20)", LIMITS, {"output"}),
    "endless answer": (DEFINE + "return (i for i in iter(int, 1))", LIMITS, {"failed"}),
    "deep recursion": (DEFINE + "return f(x)", LIMITS, {"exception"}),
    "deeper recursion": (
        DEFINE + "sys.setrecursionlimit(10**9)\n    return f(x)",
        SMALL,
        {"memory", "exited", "exception", "timeout"},
    ),
    "recursion in C": (
        DEFINE
        + "sys.setrecursionlimit(10**9)\n    a = []\n    for _ in range(10**5): a = [a]\n    return repr(a)",
        SMALL,
        {"exited", "memory", "exception"},
    ),
    "nested source": ("x = " + "(" * 10**5 + ")" * 10**5, LIMITS, {"syntax", "memory", "exited"}),
    "nested answer": (
        DEFINE + "a = []\n    for _ in range(10**5): a = [a]\n    return a",
        LIMITS,
        {"exception", "exited", "malformed"},
    ),
    "cyclic answer": (DEFINE + "a = []\n    a.append(a)\n    return a", LIMITS, {"exception"}),
    "os._exit": (DEFINE + "os._exit(0)", LIMITS, {"exited"}),
    "os._exit at the top": ("import os; os._exit(0)", LIMITS, {"exited"}),
    "sys.exit": (DEFINE + "sys.exit(0)", LIMITS, {"exited"}),
    "sys.exit at the top": ("import sys; sys.exit(0)", LIMITS, {"exited"}),
    "abort": (DEFINE + "os.abort()", LIMITS, {"exited"}),
    "crash": (DEFINE + "import ctypes; ctypes.string_at(0)", LIMITS, {"exited"}),
    "not code": ("The answer is 4.", LIMITS, {"syntax"}),
    "nul byte": ("x = '\0'", LIMITS, {"syntax", "exception"}),
    "lone surrogate": ("x = '\ud800'", LIMITS, {"syntax", "exception"}),
    "interrupt": (DEFINE + "raise KeyboardInterrupt", LIMITS, {"exited"}),
}


@pytest.mark.parametrize("name", SELF_HARM)
def test_it_ends_within_its_limit(attack: Attack, name: str) -> None:
    code, limits, reasons = SELF_HARM[name]
    assert attack(code, limits=limits).reason in reasons
