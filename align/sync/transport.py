"""The way of the weights from a trainer to an engine: one interface, three transports.

| trainer and engine | transport | bytes are copied |
| --- | --- | --- |
| on one machine without GPU | shared memory (``arena``) | never: the policy computes with the shared block |
| on one machine with a GPU | CUDA IPC (``cuda_ipc``) | never: the engine reads the policy's memory |
| on two machines | broadcast (``broadcast``), NCCL between GPUs, else Gloo | once |

Tensors of another type than the engine's, and merged adapters, are cast into place once on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Literal

import torch

from align.sync.arena import Arena
from align.sync.broadcast import Broadcast, Rendezvous
from align.sync.buckets import Buckets
from align.sync.cuda_ipc import CudaIpc
from align.sync.manifest import Manifest
from align.sync.sender import Sender

Transport = Literal["shared_memory", "cuda_ipc", "broadcast"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process computes."""

    node: str
    """Identifies the machine."""
    device: str
    """``cpu`` or ``cuda``."""
    gpu: str = ""
    """Identifies the GPU."""
    workers: int = 1
    """Processes of an engine that take weights."""


def choose_transport(trainer: Place, engine: Place) -> Transport:
    """The fastest transport that both sides can use."""
    if trainer.node != engine.node:
        return "broadcast"
    if (trainer.device, engine.device) != ("cuda", "cuda"):
        return "shared_memory"
    return "cuda_ipc" if trainer.gpu == engine.gpu and engine.workers == 1 else "broadcast"


def who_serves(ranks: Sequence[Place], engines: Sequence[Place]) -> list[int]:
    """The rank that each engine gets its weights from: one on its GPU, else the first of its machine, else
    the first of all."""

    def chosen(engine: Place) -> int:
        near = [rank for rank, place in enumerate(ranks) if place.node == engine.node]
        same = [rank for rank in near if ranks[rank].gpu == engine.gpu]
        return next(iter(same or near), 0)

    return [chosen(engine) for engine in engines]


class Outlets:
    """A rank's ways to the engines that it serves.

    Usage: ``start`` a push, then ``publish`` until its manifests are the last; ``release`` after each, once
    the engines have loaded it. All engines of one transport read from the same place.
    """

    def __init__(
        self,
        place: Place,
        engines: Mapping[int, Place],
        dtype: torch.dtype,
        parameters: Iterable[torch.nn.Parameter],
        *,
        host: str,
    ) -> None:
        """
        Args:
            place: the rank's.
            engines: those that it serves, by their numbers.
            dtype: of their weights.
            parameters: the policy's, to be held where engines can read them; empty for a sharded policy,
                whose weights are copied.
            host: address of this machine.
        """
        self._push: tuple[Buckets, int, bool, Set[str]] | None = None
        self.transports = {number: choose_transport(place, engine) for number, engine in engines.items()}
        self.senders: dict[Transport, Sender] = {}
        self._workers: dict[int, int] = {}
        """Of each engine that is broadcast to: the number of its first worker."""
        receivers = 0
        for number, transport in self.transports.items():
            if transport == "broadcast":
                self._workers[number] = receivers
                receivers += engines[number].workers
        for transport in dict.fromkeys(self.transports.values()):
            if transport == "broadcast":
                self.senders[transport] = Broadcast(
                    dtype, host=host, device=place.device, receivers=receivers
                )
            elif transport == "cuda_ipc":
                self.senders[transport] = CudaIpc(dtype)
            else:
                arena = Arena(dtype)
                if place.device == "cpu":
                    arena.host(parameters)
                self.senders[transport] = arena

    def start(self, buckets: Buckets, version: int, *, whole: bool, required: Set[str]) -> None:
        """Begin a push; one that was not ended is forgotten.

        Args:
            buckets: what is pushed.
            version: of the policy.
            whole: it is all of the policy's tensors.
            required: names that must be there when it is not.
        """
        self._push = buckets, version, whole, required
        self._first = True

    def publish(self) -> dict[int, Manifest]:
        """Make the next bucket readable for every engine; its manifest by its number.

        Raises:
            SyncError: as :class:`align.sync.sender.Sender` has it.
        """
        assert self._push is not None, "start a push first"
        buckets, version, whole, required = self._push
        for sender in self.senders.values():
            sender.begin(first=self._first)
        self._first = False
        for name, tensor in buckets.take():
            for sender in self.senders.values():
                sender.add(name, tensor)
        made = {
            transport: sender.finish(version, whole=whole, last=buckets.last, required=required)
            for transport, sender in self.senders.items()
        }
        return {
            number: self._for_engine(number, made[transport]) for number, transport in self.transports.items()
        }

    def release(self) -> None:
        """Let go of the last bucket, now that the engines have loaded it."""
        for sender in self.senders.values():
            sender.release()

    def _for_engine(self, number: int, manifest: Manifest) -> Manifest:
        if isinstance(manifest.carrier, Rendezvous):
            return replace(manifest, carrier=replace(manifest.carrier, first=self._workers[number]))
        return manifest
