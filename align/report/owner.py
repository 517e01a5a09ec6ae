"""Who works in a run directory: one process at a time, however many are started.

``owner.json`` says which process on which machine, for as long as it lives. A record whose process is gone is
taken over. On the same machine the process itself is looked at; of another one only its heartbeat is seen.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from align.errors import RecipeError

RECORD, LOCK = "owner.json", "owner.lock"
FILES = frozenset({RECORD, LOCK})
"""What this leaves in a directory while a run is under way."""
BEAT_SECONDS = 10.0
SILENT_SECONDS = 60.0
"""A process on another machine whose record was not touched for so long is gone."""

_log = logging.getLogger(__name__)


class Owner:
    """The right to work in a run directory.

    Usage: ``owner = Owner.take(path)`` before anything is written, ``owner.release()`` at the end.
    """

    def __init__(self, path: Path, record: dict[str, Any]) -> None:
        self._file, self._record = path / RECORD, record
        self._ended = threading.Event()
        threading.Thread(target=self._beat, name="owner", daemon=True).start()

    @classmethod
    def take(cls, path: Path) -> Owner:
        """Become the one who works in an existing directory.

        Raises:
            RecipeError: another process does, naming it.
        """
        record = {**_self(), "since": time.time(), "token": uuid.uuid4().hex}
        with _alone(path):
            other = _read(path / RECORD)
            if other is not None and _lives(other, path / RECORD):
                raise _taken(path, other)
            _write(path / RECORD, record)
        if other is not None:
            _log.warning("took over from process %s on %s, which is gone", other["pid"], other["host"])
        return cls(path, record)

    def release(self) -> None:
        """Let others have the directory; safe to call twice, and when it is gone."""
        self._ended.set()
        if not self._file.exists():
            return
        with _alone(self._file.parent):
            if (_read(self._file) or {}).get("token") == self._record["token"]:
                self._file.unlink()
            if not self._file.exists():
                self._file.with_name(LOCK).unlink()  # whoever waits for it sees that it is gone

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            try:
                os.utime(self._file)
            except OSError as error:  # the directory is away: its own writes will say so
                _log.warning("the record of this run's process cannot be touched: %s", error)


def _self() -> dict[str, Any]:
    process = psutil.Process()
    return {"pid": process.pid, "started": process.create_time(), "host": socket.gethostname(), **_machine()}


def _machine() -> dict[str, str]:
    """Tells one start of one machine, and one container on it, from all others."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return {"boot": boot, "processes": os.readlink("/proc/self/ns/pid")}
    except OSError:  # no Linux
        return {"boot": str(psutil.boot_time()), "processes": socket.gethostname()}


def _lives(record: dict[str, Any], file: Path) -> bool:
    if {key: record.get(key) for key in ("boot", "processes")} == _machine():
        try:
            started = psutil.Process(int(record["pid"])).create_time()
        except psutil.NoSuchProcess:
            return False
        return abs(started - float(record["started"])) < 1  # else the number was given to another one
    return time.time() - file.stat().st_mtime < SILENT_SECONDS


def _taken(path: Path, other: dict[str, Any]) -> RecipeError:
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(float(other["since"])))
    pid, host = other["pid"], other["host"]
    here = {key: other.get(key) for key in ("boot", "processes")} == _machine()
    remedy = (
        f"wait for it, end it with `kill -INT {pid}`{'' if here else f' on {host}'}, or choose another name=…"
    )
    if not here:
        remedy += f"; if that machine is gone, try again in {SILENT_SECONDS:.0f} s"
    return RecipeError(
        f"a run is under way in this directory: process {pid} on {host}, since {since}",
        file=path,
        key="name",
        remedy=remedy,
    )


def _read(file: Path) -> dict[str, Any] | None:
    """A record; None where there is none that can be read, as a killed writer leaves it."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        return record if {"pid", "started", "host", "since", "token"} <= record.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _write(file: Path, record: dict[str, Any]) -> None:
    made = file.with_name(f".{RECORD}.{record['token']}")
    made.write_text(json.dumps(record) + "\n", encoding="utf-8")
    made.replace(file)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Nobody else on this machine looks at the record meanwhile."""
    while True:
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError as error:  # a file system without locks
                _log.debug("no locks in %s: %s", path, error)
                yield
                return
            if _same(descriptor, path / LOCK):
                yield
                return
        finally:
            os.close(descriptor)


def _same(descriptor: int, path: Path) -> bool:
    """Whether the file that was locked still has its name: who ends takes it away."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
