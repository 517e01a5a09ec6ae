"""The way of the weights from a trainer to an engine: one interface, three transports.

| trainer and engine | transport | bytes are copied |
| --- | --- | --- |
| on one machine without GPU | shared memory (``arena``) | never: the policy computes with the shared block |
| on one machine with a GPU | CUDA IPC (``cuda_ipc``) | never: the engine reads the policy's memory |
| on two machines | broadcast (``broadcast``), NCCL between GPUs, else Gloo | once |

Tensors of another type than the engine's, and merged adapters, are cast into place once on the way.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch

from align.sync.arena import Arena
from align.sync.broadcast import Broadcast
from align.sync.cuda_ipc import CudaIpc
from align.sync.sender import Sender

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
    if transport == "shared_memory":
        arena = Arena(dtype)
        if device == "cpu":
            arena.host(parameters)
        return arena
    if transport == "cuda_ipc":
        return CudaIpc(dtype)
    return Broadcast(dtype, host=host, device=device)
