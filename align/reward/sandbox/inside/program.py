"""How the code runs as a program of its own: standard input in, standard output out.

It reads and writes the real descriptors, so that ``open(0)``, ``os.read`` and ``sys.stdin.buffer`` work too.
What it should print is nowhere in this process, nor in the judge.
"""

from __future__ import annotations

import atexit
import builtins
import io
import os
import sys
import threading
import types
from collections.abc import Callable
from typing import Any


def give(text: str) -> None:
    """Make a text the standard input, and let the error stream go nowhere. Comes before the limits: a long
    input is not what the code has written."""
    with open(0, "wb", closefd=False) as file:
        file.write(text.encode(errors="surrogateescape"))
    os.lseek(0, 0, os.SEEK_SET)
    mute()
    raw = io.FileIO(0, closefd=False)
    raw.name = "<stdin>"
    stdin: Any = io.TextIOWrapper(io.BufferedReader(raw))
    stdin.mode = "r"
    sys.stdin = vars(sys)["__stdin__"] = stdin


def mute() -> None:
    """Let the error stream go nowhere."""
    nowhere = os.open("/dev/null", os.O_RDWR)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _by_name(opens: Callable[..., Any]) -> Callable[..., Any]:
    """An ``open`` that knows the standard streams by their paths: the file system here does not."""

    def opened(path: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            number = _STREAMS.get(os.fspath(path))
        except TypeError:  # a number
            number = None
        if number is None:
            return opens(path, *args, **kwargs)
        copy = os.dup(number)
        return copy if opens is _open else opens(copy, *args, **kwargs)

    return opened


_open = os.open
_STREAMS = {
    path.format(number): number
    for number in (0, 1, 2)
    for path in ("/dev/fd/{}", "/proc/self/fd/{}", f"/dev/{('stdin', 'stdout', 'stderr')[number]}")
}


def run(code: str) -> int:
    """Run code as ``__main__``, to the end of its threads and exit handlers. The exit status.

    Raises:
        Exception: what the code raises.
    """
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    sys.argv = ["main.py"]
    builtins.open = io.open = _by_name(open)
    os.open = _by_name(os.open)
    vars(builtins).update(exit=sys.exit, quit=sys.exit)  # the module that brings them is not loaded here
    status = 0
    try:
        exec(compile(code, "main.py", "exec", dont_inherit=True), module.__dict__)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.__stdout__):
        if stream is not None:
            stream.flush()
    return status
