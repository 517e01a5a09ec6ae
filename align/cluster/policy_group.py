"""Several training ranks as the loop sees them: one ``align.types.Policy``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from align.cluster.placement import Placement
from align.cluster.policy_actor import TRAINER, PolicyActor
from align.cluster.remote import wait_all
from align.config.recipe import GrpoRecipe
from align.model.ranks.layout import Ranks
from align.plan.residency import Part
from align.sync.manifest import Manifest
from align.sync.transport import Place, Transport, who_serves
from align.types import TrainBatch


class PolicyGroup:
    """Ranks that hold one policy together. Every call goes to all of them, since they work together."""

    def __init__(self, actors: Sequence[Any]) -> None:
        self.actors = list(actors)

    @classmethod
    def start(cls, placement: Placement, recipe: GrpoRecipe, chat_template: str | None) -> PolicyGroup:
        """Start a rank in each of the trainers' seats and wait until the policy is loaded.

        Raises:
            ModelError: its files cannot be used.
            EngineError: a process died.
        """
        seats = placement.trainers
        actors = [PolicyActor.options(**seat.options()).remote() for seat in seats]  # type: ignore[attr-defined]
        meeting = None if len(seats) == 1 else wait_all([actors[0].meet.remote()], TRAINER)[0]
        group = cls(actors)
        wait_all(
            [
                actor.open.remote(
                    recipe,
                    placement.device,
                    seat.threads,
                    chat_template,
                    Ranks(rank, len(seats), recipe.cluster.expert_parallel),
                    meeting,
                )
                for rank, (actor, seat) in enumerate(zip(actors, seats, strict=True))
            ],
            TRAINER,
        )
        return group

    def logprobs(self, batch: TrainBatch) -> Sequence[Sequence[float]]:
        return self._first("logprobs", ray.put(batch))

    def ref_logprobs(self, batch: TrainBatch) -> Sequence[Sequence[float]]:
        return self._first("ref_logprobs", ray.put(batch))

    def update(self, batch: TrainBatch) -> dict[str, float]:
        found = self._all("update", ray.put(batch))
        gib = [each["memory/trainer_gib"] for each in found]
        ranks = {f"memory/rank_{rank}_gib": each for rank, each in enumerate(gib)} if len(gib) > 1 else {}
        return found[0] | {"memory/trainer_gib": max(gib)} | ranks

    def connect(self, engines: Sequence[Place]) -> list[Transport]:
        """Open the ways to the engines, each from one rank; which transport each has."""
        serving = who_serves(self._all("where"), engines)
        served = [
            {number: place for number, place in enumerate(engines) if serving[number] == rank}
            for rank in range(len(self.actors))
        ]
        asked = [actor.connect.remote(own) for actor, own in zip(self.actors, served, strict=True)]
        return _in_order(wait_all(asked, TRAINER))

    def publish(self, version: int, whole: bool) -> list[Manifest]:
        """Make a bucket of the current weights readable, the first of a push: a manifest for each engine."""
        return _in_order(self._all("publish", version, whole))

    def publish_more(self) -> list[Manifest]:
        """Of a push that has not ended the next bucket, once the engines have loaded the last one."""
        return _in_order(self._all("publish_more"))

    def release(self) -> None:
        """Hold what was published no longer: the engines have loaded it."""
        self._all("release")

    def probe(self, token_ids: list[int]) -> list[float]:
        """Log-probability of each token but the first, nats."""
        return self._first("probe", token_ids)

    def save(self, folder: Path) -> None:
        """Write a checkpoint's policy part."""
        self._all("save", folder)

    def save_model(self, folder: Path) -> None:
        """Write the model alone."""
        self._all("save_model", folder)

    def load(self, folder: Path) -> None:
        """Continue from a checkpoint."""
        self._all("load", folder)

    def sleep(self, part: Part) -> None:
        """Move ``policy``, ``optimizer`` or ``reference`` off a GPU."""
        self._all("sleep", part)

    def wake(self, part: Part) -> None:
        """Move it back."""
        self._all("wake", part)

    def peak_flops(self) -> float:
        """FLOP/s of one rank's device at its best."""
        return wait_all([self.actors[0].peak_flops.remote()], TRAINER)[0]

    def peaks_gib(self) -> list[float]:
        """Peak memory of each rank since last asked, GiB."""
        return self._all("take_peak_gib")

    def _first(self, method: str, *arguments: Any) -> Any:
        """The answer of rank 0."""
        return self._all(method, *arguments)[0]

    def _all(self, method: str, *arguments: Any) -> list[Any]:
        """Call every rank, then wait for all."""
        return wait_all([getattr(actor, method).remote(*arguments) for actor in self.actors], TRAINER)


def _in_order(found: Sequence[Mapping[int, Any]]) -> list[Any]:
    """By the engines' numbers, whichever rank serves them."""
    every = {number: each for served in found for number, each in served.items()}
    return [every[number] for number in sorted(every)]
