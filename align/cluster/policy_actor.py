"""The training actor: the policy in a process of its own."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import ray
import torch

from align.cluster.placement import Placement
from align.cluster.remote import wait
from align.config.recipe import GrpoRecipe
from align.model.policy import PolicyModel
from align.sync.arena import Arena, Manifest
from align.types import TrainBatch

TRAINER = "training actor"
"""In messages."""


@ray.remote
class PolicyActor:
    """One training rank. Methods mirror :class:`align.model.policy.PolicyModel`."""

    def __init__(
        self, recipe: GrpoRecipe, device: str, threads: int, chat_template: str | None = None
    ) -> None:
        torch.set_num_threads(threads)
        self.policy = PolicyModel(recipe, device=device, chat_template=chat_template)
        self.arena = Arena(getattr(torch, recipe.rollout.dtype or recipe.policy.dtype))

    def ready(self) -> bool:
        """Answer once the model is loaded."""
        return True

    def logprobs(self, batch: TrainBatch) -> list[list[float]]:
        return self.policy.logprobs(batch)

    def ref_logprobs(self, batch: TrainBatch) -> list[list[float]]:
        return self.policy.ref_logprobs(batch)

    def update(self, batch: TrainBatch) -> dict[str, float]:
        return self.policy.update(batch) | {"memory/trainer_gib": peak_gib()}

    def publish(self, version: int) -> Manifest:
        """Put the current weights into shared memory."""
        return self.arena.publish(self.policy.weights(), version)

    def probe(self, token_ids: list[int]) -> list[float]:
        return self.policy.probe(token_ids)

    def save(self, folder: Path) -> None:
        self.policy.save(folder)

    def save_model(self, folder: Path) -> None:
        self.policy.save_model(folder)

    def load(self, folder: Path) -> None:
        self.policy.load(folder)


def peak_gib() -> float:
    """Largest resident size of this process so far, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


class PolicyClient:
    """The actor as the loop sees it (``align.types.Policy``)."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    @classmethod
    def start(cls, placement: Placement, recipe: GrpoRecipe, chat_template: str | None) -> PolicyClient:
        """Start the actor in the bundle and wait until its model is loaded."""
        make: Any = PolicyActor.options(**placement.options())  # type: ignore[attr-defined]
        actor = make.remote(recipe, placement.device, placement.threads, chat_template)
        wait(actor.ready.remote(), TRAINER)
        return cls(actor)

    def logprobs(self, batch: TrainBatch) -> list[list[float]]:
        return wait(self.actor.logprobs.remote(batch), TRAINER)

    def ref_logprobs(self, batch: TrainBatch) -> list[list[float]]:
        return wait(self.actor.ref_logprobs.remote(batch), TRAINER)

    def update(self, batch: TrainBatch) -> dict[str, float]:
        return wait(self.actor.update.remote(batch), TRAINER)

    def save(self, folder: Path) -> None:
        """Write a checkpoint's policy part."""
        wait(self.actor.save.remote(folder), TRAINER)

    def save_model(self, folder: Path) -> None:
        """Write the model alone."""
        wait(self.actor.save_model.remote(folder), TRAINER)

    def load(self, folder: Path) -> None:
        """Continue from a checkpoint."""
        wait(self.actor.load.remote(folder), TRAINER)
