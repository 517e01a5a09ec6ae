"""What the loop drives: engines and helpers, known by their Protocols alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from align.algo.step_rewards import Decode
from align.types import Group, Policy, Prompt, Rewards, Rollout, Sync


class Sampler(Protocol):
    """Where prompts come from; its cursor is part of every checkpoint."""

    def next(self, count: int) -> list[Prompt]: ...


class Stages(Protocol):
    """``with stages.stage("rollout"): …``; ``take`` gives the seconds of each since last asked."""

    def stage(self, name: str) -> AbstractContextManager[Any]: ...
    def take(self) -> dict[str, float]: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that the loop drives."""

    sampler: Sampler
    policy: Policy
    rollout: Rollout
    rewards: Rewards
    sync: Sync
    stages: Stages
    decode: Decode
    """Tokens to text without special tokens."""
    mark: Callable[[int], None]
    """Notes where sampler and rewards stand once a step's samples are scored, for its checkpoint."""
    carried: list[Group] = field(default_factory=list)
    """Groups that earlier steps left unfinished, oldest first: ``align.train.partial``."""
