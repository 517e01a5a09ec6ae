"""What is on the device in each stage of a step: the table that planner and scheduler both read.

*Device* is the GPU; on a CPU machine it is main memory. Pure: sets in, moves out.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Literal

from align.config.recipe import GrpoRecipe
from align.errors import EngineError

Part = Literal["policy", "optimizer", "reference", "scorers", "engine", "kv_cache"]

PARTS: tuple[Part, ...] = ("policy", "optimizer", "reference", "scorers", "engine", "kv_cache")
"""``policy``: compute weights. ``optimizer``: master weights, moments, gradients. ``reference``: the
frozen copy. ``scorers``: reward models. ``engine``: the rollout engine's weights. In the order in which
they come to the device (a KV cache needs its engine); they leave it in the opposite one."""


@dataclass(frozen=True, slots=True)
class Need:
    """What one stage has on the device."""

    uses: frozenset[Part] = frozenset()
    """Brought there for it."""
    keeps: frozenset[Part] = frozenset()
    """Not brought, but not sent away either."""


def _need(*uses: Part, keeps: tuple[Part, ...] = ()) -> Need:
    return Need(frozenset(uses), frozenset(keeps))


# The engine's weights are not saved when they leave: a push brings them back. So they stay until
# the stage whose result is pushed, and a stage in between may be followed by another rollout.
TABLE: dict[str, Need] = {
    "data": _need(),
    "rollout": _need("engine", "kv_cache"),
    "score": _need("scorers", keeps=("engine",)),
    "reference": _need("policy", "reference", keeps=("engine",)),
    "old": _need("policy", keeps=("engine",)),
    "update": _need("policy", "optimizer"),
    "sync": _need("policy", "engine"),
    "verify": _need("engine", "kv_cache"),
}
"""Stages in the order of a step. ``sync`` copies the weights over, ``verify`` asks the engine what it
makes of them: apart, so that KV cache and optimiser are never on the device together."""

MOVABLE: dict[str, frozenset[Part]] = {
    "cpu": frozenset(("engine", "kv_cache")),
    "cuda": frozenset(PARTS),
}
"""What can leave the device. On a CPU only what need not be kept: there is nowhere to put the rest."""


@dataclass(frozen=True, slots=True)
class Move:
    """One part arrives (``wake``) or leaves (``sleep``)."""

    verb: Literal["sleep", "wake"]
    part: Part


@dataclass(frozen=True, slots=True)
class Household:
    """The parts that a run has, and which of them move."""

    present: frozenset[Part]
    movable: frozenset[Part]

    @classmethod
    def of(cls, recipe: GrpoRecipe, device: str) -> Household:
        """The parts of a GRPO run on a ``cpu`` or on ``cuda``."""
        present: set[Part] = {"policy", "optimizer", "engine", "kv_cache"}
        if recipe.grpo.beta > 0 and not recipe.policy.lora:  # else the policy without its adapters
            present.add("reference")
        models = any(term.model for term in recipe.rewards.terms.values())
        if models and not recipe.cluster.reward_devices:  # else they are elsewhere
            present.add("scorers")
        movable = MOVABLE[device] & present if recipe.scheduled(device) else frozenset()
        return cls(frozenset(present), movable)

    def wanted(self, stage: str, now: Set[Part]) -> frozenset[Part]:
        """What is on the device during ``stage``, when ``now`` is there before it.

        A stage that uses none of the run's parts (scoring by rules alone) leaves all as it is.

        Raises:
            EngineError: the table has no such stage.
        """
        need = find(stage)
        if not need.uses & self.present:
            return frozenset(now)
        return (need.uses | (need.keeps & now)) & self.present | (self.present - self.movable)

    def during_a_step(self) -> dict[str, frozenset[Part]]:
        """Stage → what is on the device, over one whole step in the order of the table."""
        now = self.present
        for _ in range(2):  # the first step begins with everything there
            states = {}
            for stage in TABLE:
                states[stage] = now = self.wanted(stage, now)
        return states


def find(stage: str) -> Need:
    """The table's entry.

    Raises:
        EngineError: there is none.
    """
    if stage not in TABLE:
        raise EngineError(
            f"no stage is called {stage!r}",
            remedy=f"use one of {', '.join(TABLE)}, or add it to the table in align/plan/residency.py",
        )
    return TABLE[stage]


def transitions(now: Set[Part], wanted: Set[Part]) -> list[Move]:
    """Moves that lead from one state of the device to another: first all that make room."""
    leaving = [Move("sleep", part) for part in reversed(PARTS) if part in now and part not in wanted]
    arriving = [Move("wake", part) for part in PARTS if part in wanted and part not in now]
    return leaving + arriving
