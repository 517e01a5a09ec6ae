"""Landlock: a process gives up files, ports and signals for good, on any machine with Linux 6.2."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable

from . import kernel

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_READ = _READ_FILE | _READ_DIR
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | 1 << 14
_FILE_RIGHTS = {3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""By version: all rights that the kernel knows how to refuse."""
_NETWORK = 0b11  # TCP bind and connect, from version 4
_SCOPES = 0b11  # abstract sockets and signals, from version 6
_NEEDED = 3  # before it, files could be cut short


def version() -> int:
    """Version of the kernel's Landlock; 0 where it has none that suffices."""
    try:
        found = kernel.syscall(_CREATE, None, 0, _VERSION)
    except OSError:
        return 0
    return found if found >= _NEEDED else 0


def covers_signals() -> bool:
    """Whether processes outside are out of reach of signals."""
    return version() >= 6


def ruleset(readable: Iterable[str], writable: Iterable[str]) -> int:
    """A file descriptor that allows reading below some paths, and everything below others.

    Raises:
        OSError: the kernel refuses.
    """
    known = version()
    files = max(rights for since, rights in _FILE_RIGHTS.items() if since <= known)
    attributes = (ctypes.c_uint64 * 3)(files, _NETWORK if known >= 4 else 0, _SCOPES if known >= 6 else 0)
    size = 24 if known >= 6 else 16 if known >= 4 else 8
    rules = kernel.syscall(_CREATE, ctypes.byref(attributes), size, 0)
    for path in readable:
        _allow(rules, path, _READ)
    for path in writable:
        _allow(rules, path, files & ~_EXECUTE)
    return rules


def restrict(rules: int) -> None:
    """Put this process under a rule set, for good.

    Raises:
        OSError: the kernel refuses.
    """
    kernel.syscall(_RESTRICT, rules, 0)


def _allow(rules: int, path: str, rights: int) -> None:
    folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        granted = rights if os.path.isdir(path) else rights & _ON_FILES
        rule = granted.to_bytes(8, "little") + folder.to_bytes(4, "little")
        kernel.syscall(_ADD_RULE, rules, _PATH_BENEATH, rule, 0)
    finally:
        os.close(folder)
