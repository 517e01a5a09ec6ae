"""The training actor: the policy in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
import torch

from align.cluster.memory import PeakMemory, keep_freed
from align.cluster.placement import Placement
from align.cluster.remote import wait
from align.config.recipe import GrpoRecipe
from align.model.hf_stream import adapted_tensors
from align.model.offload import Offload
from align.model.policy import PolicyModel
from align.plan.residency import Part
from align.sync.manifest import Manifest
from align.sync.sender import Sender
from align.sync.transport import Place, Transport, choose_transport, open_sender
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
        if device == "cpu":
            keep_freed()
        self.memory = PeakMemory(device)
        self.policy = PolicyModel(recipe, device=device, chat_template=chat_template)
        self.offload = Offload(self.policy, device)
        self.place = Place(ray.get_runtime_context().get_node_id(), device)
        self.engine_dtype = getattr(torch, recipe.rollout.dtype or recipe.policy.dtype)
        self.sender: Sender | None = None

    def ready(self) -> bool:
        """Answer once the model is loaded."""
        return True

    def logprobs(self, batch: TrainBatch) -> list[list[float]]:
        return self.policy.logprobs(batch)

    def ref_logprobs(self, batch: TrainBatch) -> list[list[float]]:
        return self.policy.ref_logprobs(batch)

    def update(self, batch: TrainBatch) -> dict[str, float]:
        return self.policy.update(batch) | {"memory/trainer_gib": self.memory.largest_gib()}

    def connect(self, engine: Place) -> Transport:
        """Choose and open the way to an engine."""
        transport = choose_transport(self.place, engine)
        self.sender = open_sender(
            transport,
            self.engine_dtype,
            self.policy.model.parameters(),
            host=ray.util.get_node_ip_address(),
            device=self.place.device,
        )
        return transport

    def publish(self, version: int, whole: bool) -> Manifest:
        """Make the current weights readable for the engine: all of them, or what changed since last time."""
        assert self.sender is not None
        self.memory.trim_where_short()
        adapted = adapted_tensors(self.policy.model)
        whole = whole or not adapted
        pairs = self.policy.weights(changed_only=not whole)
        return self.sender.publish(pairs, version, whole=whole, required=adapted)

    def release(self) -> None:
        """Hold what was published no longer: the engine has loaded it."""
        assert self.sender is not None
        self.sender.release()

    def probe(self, token_ids: list[int]) -> list[float]:
        return self.policy.probe(token_ids)

    def save(self, folder: Path) -> None:
        self.policy.save(folder)

    def save_model(self, folder: Path) -> None:
        self.policy.save_model(folder)

    def load(self, folder: Path) -> None:
        self.policy.load(folder)

    def sleep(self, part: Part) -> None:
        self.offload.sleep(part)
        self.memory.take_gib()

    def wake(self, part: Part) -> None:
        self.offload.wake(part)
        self.memory.take_gib()

    def take_peak_gib(self) -> float:
        return self.memory.take_gib()


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

    def sleep(self, part: Part) -> None:
        """Move ``policy``, ``optimizer`` or ``reference`` off a GPU."""
        wait(self.actor.sleep.remote(part), TRAINER)

    def wake(self, part: Part) -> None:
        """Move it back."""
        wait(self.actor.wake.remote(part), TRAINER)
