"""What goes into the sandbox and what comes out."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from align.errors import RewardError

Isolation = Literal["required", "best_effort"]
Reason = Literal[
    "passed", "failed", "exception", "syntax", "timeout", "memory", "output", "exited", "malformed"
]
REASONS: tuple[str, ...] = get_args(Reason)
"""How a test ends. ``failed``: an assertion is false. ``exception``: another error. ``syntax``: the code
does not parse. ``timeout``, ``memory``, ``output``: a limit. ``exited``: the process ended, by
``os._exit``, ``sys.exit`` or a crash. ``malformed``: the process answers nonsense."""


class SandboxError(RewardError):
    """The sandbox itself failed; it says nothing about the code."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """What one job may use. The scratch folder has 16 MiB, where it is in memory."""

    wall_seconds: float = 5.0
    """For the code and all its tests together."""
    cpu_seconds: int = 5
    memory_mb: int = 512
    """Address space of the process that runs the code, MiB; a stack of a thread takes its full size."""
    output_kb: int = 1024
    """What it may print, and the size of a file in its scratch folder, KiB."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not value > 0:
                raise ValueError(f"{item.name} must be positive, got {value}")


@dataclass(frozen=True, slots=True)
class Protection:
    """What guards each thing on this machine; empty where nothing does."""

    files: tuple[str, ...] = ()
    """Nothing outside of the scratch folder can be written, and no home directory read."""
    network: tuple[str, ...] = ()
    """No connection can be made."""
    processes: tuple[str, ...] = ()
    """No process can be started beyond the limit."""
    signals: tuple[str, ...] = ()
    """No process outside can be killed or inspected."""
    limits: tuple[str, ...] = ("rlimit",)
    """CPU time, memory, output and open files."""
    reason: str = field(default="", compare=False)
    """Why there are no namespaces."""

    @property
    def missing(self) -> tuple[str, ...]:
        """What nothing guards."""
        return tuple(name for name in _GUARDED if not getattr(self, name))

    def __str__(self) -> str:
        lines = [f"{name:<10}{' + '.join(getattr(self, name)) or 'unprotected'}" for name in _GUARDED]
        return "\n".join([*lines, f"(no namespaces: {self.reason})"] if self.reason else lines)

    @classmethod
    def of(cls, told: dict[str, Any]) -> Protection:
        """From what the process inside says of itself."""
        guards = {name: tuple(value) for name, value in told.items() if name != "reason"}
        return cls(reason=told["reason"], **guards)


_GUARDED = tuple(item.name for item in fields(Protection) if item.name != "reason")


@dataclass(frozen=True, slots=True)
class Run:
    """How a program ended, and what it printed."""

    status: str
    """``passed`` where it ended by itself with status 0, else one of ``REASONS``."""
    printed: str = ""
    """Its standard output; the error stream is not kept."""
    detail: str = ""
    """Why it did not pass. It comes from the code: do not trust it."""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the tests of one job ended."""

    statuses: tuple[str, ...]
    """One of ``REASONS`` for each test."""
    detail: str = ""
    """The message of the first test that did not pass. It comes from the code: do not trust it."""
    seconds: float = 0.0

    @property
    def share(self) -> float:
        """Share of the tests that passed."""
        return sum(status == "passed" for status in self.statuses) / len(self.statuses)

    @property
    def reason(self) -> str:
        """``passed``, or how the first test that did not pass ended."""
        return next((status for status in self.statuses if status != "passed"), "passed")
