"""Limits of the kernel on one process."""

from __future__ import annotations

import resource
from typing import Any

FILES = 64
THREADS = 32


def forget() -> None:
    """Lift the limit on data that the starting process may have set for itself: a job has its own."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    _limit(resource.RLIMIT_DATA, hard, hard)


def apply(limits: dict[str, Any]) -> None:
    """Put this process, and what it starts, under the limits of a job.

    Args:
        limits: ``memory_bytes`` of address space, ``cpu_seconds``, ``file_bytes`` a file may have.
    """
    seconds = limits["cpu_seconds"]
    _limit(resource.RLIMIT_AS, limits["memory_bytes"])
    _limit(resource.RLIMIT_CPU, seconds, seconds + 1)  # the first ends it with a signal of its own
    _limit(resource.RLIMIT_FSIZE, limits["file_bytes"])


def memory(limits: dict[str, Any]) -> None:
    """The memory limit of a job, for a process that goes on after it."""
    _limit(resource.RLIMIT_AS, limits["memory_bytes"], resource.RLIM_INFINITY)


def always(*, threads: bool) -> None:
    """The limits that are the same for all jobs.

    Args:
        threads: also limit threads and processes. Outside of a user namespace that counts everything
            of the user on the machine.
    """
    for what in (resource.RLIMIT_CORE, resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE):
        _limit(what, 0)
    _limit(resource.RLIMIT_NOFILE, FILES)
    if threads:
        _limit(resource.RLIMIT_NPROC, THREADS)


def no_processes() -> None:
    """No further process at all."""
    _limit(resource.RLIMIT_NPROC, 1)


def _limit(what: int, soft: int, hard: int | None = None) -> None:
    resource.setrlimit(what, (soft, soft if hard is None else hard))
