"""What the loop drives: engines and helpers, known by their Protocols alone; and where they stood."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    """Groups that earlier steps left unfinished, oldest first: ``align.train.grpo.partial``."""


KEPT = 3
"""Steps whose marks are kept: the one sampled ahead, the one that is trained, the one before it."""


class Marks:
    """Where sampler, rewards and carried groups stood after each of the last steps' samples.

    It notes states by step, so that a checkpoint of step t says where t ends, though t + 1 is drawn already.

    Usage: ``marks.note(step)`` after sampling and scoring; ``marks.at(step)`` when it is saved.
    """

    def __init__(self, state: Callable[[], Mapping[str, Any]]) -> None:
        """``state`` gives the present state as JSON values."""
        self._state = state
        self._noted: dict[int, Mapping[str, Any]] = {}

    def note(self, step: int) -> None:
        """Note the present state as that of ``step``."""
        self._noted[step] = self._state()
        for old in sorted(self._noted)[:-KEPT]:
            del self._noted[old]

    def at(self, step: int) -> Mapping[str, Any]:
        """The state of a step noted lately; the present one for a step that never was."""
        return self._noted.get(step) or self._state()
