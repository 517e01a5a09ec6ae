"""The way of the weights from a trainer to an engine: one interface, three transports.

| trainer and engine | transport | bytes are copied |
| --- | --- | --- |
| on one machine without GPU | shared memory (``arena``) | never: the policy computes with the shared block |
| on one machine with a GPU | CUDA IPC (``cuda_ipc``) | never: the engine reads the policy's memory |
| on two machines | broadcast (``broadcast``), NCCL between GPUs, else Gloo | once |

Tensors of another type than the engine's, and merged adapters, are cast into place once on the way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from align.sync.manifest import Carrier, Catalogue, Manifest, Named, TensorSpec, digests

Transport = Literal["shared_memory", "cuda_ipc", "broadcast"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process computes."""

    node: str
    """Identifies the machine."""
    device: str
    """``cpu`` or ``cuda``."""


def choose_transport(trainer: Place, engine: Place) -> Transport:
    """The fastest transport that both sides can use."""
    if trainer.node != engine.node:
        return "broadcast"
    return "cuda_ipc" if (trainer.device, engine.device) == ("cuda", "cuda") else "shared_memory"


class Sender(ABC):
    """The trainer's end.

    Usage: ``manifest = sender.publish(hf_stream(model), version)``, then ``sender.release()`` once the
    engine has loaded it, any number of times. The policy must not change before that.
    Invariant: names, shapes and types are those of the first call, which is a whole one.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        """Floating tensors are cast to ``dtype``, the type the engine holds."""
        self.catalogue = Catalogue(dtype)

    def publish(
        self,
        pairs: Iterable[Named],
        version: int,
        *,
        whole: bool = True,
        required: Set[str] = frozenset(),
    ) -> Manifest:
        """Make tensors readable and describe them.

        Args:
            pairs: (checkpoint name, tensor).
            version: of the policy.
            whole: ``pairs`` are all of the policy's tensors.
            required: names that ``pairs`` must have when they are not all.

        Raises:
            SyncError: a tensor is missing, or names or shapes changed since the first call.
        """
        specs: list[TensorSpec] = []
        sent: list[Tensor] = []
        for name, tensor in pairs:  # one at a time: a merged adapter is gone before the next comes
            specs.append(self.catalogue.admit(name, tensor))
            sent.append(self._place(tensor, specs[-1]))
        self.catalogue.close([spec.name for spec in specs], whole=whole, required=required)
        carrier = self._carrier(sent, specs)
        return Manifest(version, whole, tuple(specs), digests(sent), carrier)

    @abstractmethod
    def release(self) -> None:
        """Let go of what was published last, now that the engine has loaded it."""

    @abstractmethod
    def _place(self, tensor: Tensor, spec: TensorSpec) -> Tensor:
        """The tensor in the type of ``spec``, contiguous, where it can be read from."""

    @abstractmethod
    def _carrier(self, sent: Sequence[Tensor], specs: Sequence[TensorSpec]) -> Carrier:
        """How to get at what was placed."""


def open_sender(
    transport: Transport,
    dtype: torch.dtype,
    parameters: Iterable[torch.nn.Parameter],
    *,
    host: str,
    device: str,
) -> Sender:
    """The trainer's end of a transport.

    Args:
        transport: which one.
        dtype: the engine's.
        parameters: the policy's.
        host: address of this machine.
        device: ``cpu`` or ``cuda``.
    """
    from align.sync.arena import Arena
    from align.sync.broadcast import Broadcast
    from align.sync.cuda_ipc import CudaIpc

    if transport == "shared_memory":
        arena = Arena(dtype)
        if device == "cpu":
            arena.host(parameters)
        return arena
    if transport == "cuda_ipc":
        return CudaIpc(dtype)
    return Broadcast(dtype, host=host, device=device)
