"""The training actor: a rank of the policy in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import ray
import torch

from align.cluster.meeting import Meeting, join, open_meeting, use_interface
from align.cluster.memory import PeakMemory, keep_freed
from align.cluster.remote import opening
from align.config.recipe import GrpoRecipe
from align.model.files.hf_stream import adapted_tensors
from align.model.offload import Offload
from align.model.peak import peak_flops
from align.model.policy import PolicyModel
from align.model.ranks.layout import Ranks
from align.packed import Rows, number_rows
from align.plan.residency import Part
from align.sync.buckets import Buckets
from align.sync.manifest import Manifest
from align.sync.transport import Outlets, Place, Transport
from align.types import TrainBatch

TRAINER = "training actor"
"""In messages."""


@ray.remote
class PolicyActor:
    """One training rank. Methods mirror :class:`align.model.policy.PolicyModel`; of several ranks all are
    called at the same time and with the same arguments."""

    def meet(self) -> Meeting:
        """Open the place where the ranks find each other: asked of rank 0."""
        return open_meeting(ray.util.get_node_ip_address())

    def open(
        self,
        recipe: GrpoRecipe,
        device: str,
        threads: int,
        chat_template: str | None = None,
        ranks: Ranks | None = None,
        meeting: Meeting | None = None,
    ) -> None:
        """Load the policy.

        Args:
            recipe: the run.
            device: ``cpu`` or ``cuda``.
            threads: CPU threads.
            chat_template: saved with the tokenizer.
            ranks: which of how many this is; default: the only one.
            meeting: where they meet.

        Raises:
            ModelError: its files cannot be used.
        """
        torch.set_num_threads(threads)
        ranks = ranks or Ranks()
        if device == "cpu":
            keep_freed()
        use_interface(ray.util.get_node_ip_address())
        self.memory = PeakMemory(device)
        if meeting is not None:
            join(meeting, ranks.rank, ranks.world, device)
        with opening("the policy", file=recipe.policy.path, key="policy.path"):
            self.policy = PolicyModel(recipe, device=device, chat_template=chat_template, ranks=ranks)
        self.ranks = ranks
        self.offload = Offload(self.policy, device)
        self.place = place_of(device)
        self.bucket_bytes = recipe.sync.bucket_mib << 20
        self.engine_dtype = getattr(torch, recipe.rollout.dtype or recipe.policy.dtype)
        self.outlets: Outlets | None = None

    def logprobs(self, batch: TrainBatch) -> Rows | None:
        return self._told(self.policy.logprobs(batch))

    def ref_logprobs(self, batch: TrainBatch) -> Rows | None:
        return self._told(self.policy.ref_logprobs(batch))

    def _told(self, logprobs: list[list[float]]) -> Rows | None:
        """Rank 0 speaks for all: every rank has the same."""
        return number_rows(logprobs) if self.ranks.rank == 0 else None

    def update(self, batch: TrainBatch) -> dict[str, float]:
        return self.policy.update(batch) | {"memory/trainer_gib": self.memory.largest_gib()}

    def peak_flops(self) -> float:
        """FLOP/s of the device at its best."""
        return peak_flops(self.place.device, self.policy.dtype)

    def where(self) -> Place:
        """Machine and device."""
        return self.place

    def connect(self, engines: Mapping[int, Place]) -> dict[int, Transport]:
        """Choose and open the ways to the engines that this rank serves."""
        self.outlets = Outlets(
            self.place,
            engines,
            self.engine_dtype,
            self.policy.model.parameters() if self.ranks.world == 1 else (),
            host=ray.util.get_node_ip_address(),
        )
        return self.outlets.transports

    def publish(self, version: int, whole: bool) -> dict[int, Manifest]:
        """Make the current weights readable for each engine, all of them or what changed since last time: the
        first bucket. From a policy that one rank holds nothing has to be gathered, so there it is all."""
        assert self.outlets is not None
        self.memory.trim_where_short()
        adapted = adapted_tensors(self.policy.model)
        whole = whole or not adapted
        size = None if self.ranks.world == 1 else self.bucket_bytes
        buckets = Buckets(self.policy.weights(changed_only=not whole), size)
        self.outlets.start(buckets, version, whole=whole, required=adapted)
        return self.outlets.publish()

    def publish_more(self) -> dict[int, Manifest]:
        """The next bucket, now that the engines have loaded the last one."""
        self.release()
        assert self.outlets is not None
        return self.outlets.publish()

    def release(self) -> None:
        """Hold the last bucket no longer: the engines have loaded it."""
        assert self.outlets is not None
        self.outlets.release()

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


def place_of(device: str, workers: int = 1) -> Place:
    """Machine and device of this process.

    Args:
        device: ``cpu`` or ``cuda``.
        workers: processes that take weights here.
    """
    place = Place(ray.get_runtime_context().get_node_id(), device, workers=workers)
    if device == "cpu":
        return place
    return replace(place, gpu=str(torch.cuda.get_device_properties(0).uuid))
