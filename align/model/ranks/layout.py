"""Which part of the policy a process holds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ranks:
    """One of the processes that hold a policy together."""

    rank: int = 0
    world: int = 1
    expert_parallel: int = 1
    """Ranks that share the experts of a layer; divides ``world``."""
