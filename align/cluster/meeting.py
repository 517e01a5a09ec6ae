"""Where training ranks find each other: torch's process group over the network that Ray uses."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

import psutil
import torch.distributed as distributed

TIMEOUT = timedelta(minutes=10)
"""A rank that is silent for so long has failed."""
_stores: dict[Meeting, distributed.TCPStore] = {}
"""What this process opened: the others' meeting place lives as long as it."""


@dataclass(frozen=True, slots=True)
class Meeting:
    """An open store."""

    host: str
    port: int


def open_meeting(host: str) -> Meeting:
    """Open a store on this machine.

    Args:
        host: its address, as the others reach it.
    """
    store = distributed.TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=TIMEOUT)
    meeting = Meeting(host, store.port)
    _stores[meeting] = store
    return meeting


def join(meeting: Meeting, rank: int, world: int, device: str) -> None:
    """Make the default process group of this process: Gloo between CPUs, NCCL between GPUs. On several
    machines :func:`use_interface` comes before.

    Args:
        meeting: opened by rank 0.
        rank: of this process.
        world: how many there are.
        device: ``cpu`` or ``cuda``.
    """
    store = _stores.get(meeting) or distributed.TCPStore(
        meeting.host, meeting.port, is_master=False, timeout=TIMEOUT
    )
    backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=TIMEOUT)


def use_interface(address: str) -> None:
    """Have Gloo and NCCL talk over the interface with this address. Of themselves they take the one that the
    host's name resolves to, which on many machines is the loopback. A user's own setting stays."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == address for each in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", name)
