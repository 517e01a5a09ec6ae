"""The system calls that Python has no name for."""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
_CAPABILITY_VERSION_3 = 0x20080522


def call(name: str, *args: Any) -> int:
    """Call a function of the C library that returns a negative number on failure.

    Raises:
        OSError: it failed.
    """
    result = int(getattr(_libc, name)(*args))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def syscall(number: int, *args: Any) -> int:
    """Make a system call by its number.

    Raises:
        OSError: it failed.
    """
    wide = (ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args)
    return call("syscall", ctypes.c_long(number), *wide)


def prctl(option: int, *args: Any) -> None:
    """``prctl(2)``.

    Raises:
        OSError: it failed.
    """
    filled = [ctypes.c_ulong(arg) if isinstance(arg, int) else arg for arg in (*args, 0, 0, 0, 0)[:4]]
    call("prctl", option, *filled)


def die_with_parent() -> None:
    """Be killed when the thread that started this process ends."""
    parent = os.getppid()
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Have descendants whose parents ended become children of this process."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def give_up_privileges() -> None:
    """No capabilities, no way to get any; memory and /proc files closed to other processes. Children
    inherit all of it."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    call("capset", header, (ctypes.c_uint32 * 6)())
    prctl(_PR_SET_DUMPABLE, 0)
