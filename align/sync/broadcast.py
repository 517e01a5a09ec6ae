"""Broadcast to an engine on another machine: NCCL between GPUs, Gloo between CPUs.

A process group of its own (the default one belongs to the engine) joins the trainer, rank 0, and the
engine's workers. Tensors travel in the order of the manifest, packed into buckets. Gloo is tested; NCCL
differs only in the class of the group and was not tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch.distributed import PrefixStore, TCPStore

from align.sync.manifest import TensorSpec
from align.sync.sender import Sender

BUCKET = 64 << 20
"""Bytes of one message; a larger tensor has one of its own."""
ALIGNMENT = 64
TIMEOUT = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """The receiving side: where to meet the trainer."""

    host: str
    port: int
    size: int
    device: str
    first: int = 0
    """Place of an engine's first worker among the receivers."""

    def fetch(self, specs: Sequence[TensorSpec], rank: int) -> Iterator[Tensor]:
        group = _joined(self, self.first + rank + 1)
        for bucket in _buckets(specs):
            data = torch.empty(_length(bucket), dtype=torch.uint8, device=self.device)
            _broadcast(group, data)
            yield from _views(data, bucket)


class Broadcast(Sender):
    """The sending side: a thread sends while the engine loads."""

    def __init__(self, dtype: torch.dtype, *, host: str, device: str, receivers: int = 1) -> None:
        super().__init__(dtype)
        self._store = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=TIMEOUT)
        self._meeting = Rendezvous(host, self._store.port, receivers + 1, device)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="weights")
        self._group: Any = None
        self._sending: Future[None] | None = None

    def release(self) -> None:
        """Wait until all is sent; raises what went wrong."""
        if self._sending is not None:
            self._sending.result()

    def _place(self, tensor: Tensor, spec: TensorSpec) -> Tensor:
        return tensor.to(self._meeting.device, getattr(torch, spec.dtype)).contiguous()

    def _carrier(self, sent: Sequence[Tensor], specs: Sequence[TensorSpec]) -> Rendezvous:
        self._sending = self._thread.submit(self._send, sent, specs)
        return self._meeting

    def _send(self, sent: Sequence[Tensor], specs: Sequence[TensorSpec]) -> None:
        if self._group is None:
            self._group = _group(self._store, self._meeting, 0)
        rest = iter(sent)
        for bucket in _buckets(specs):
            data = torch.zeros(_length(bucket), dtype=torch.uint8, device=self._meeting.device)
            for place in _views(data, bucket):
                place.copy_(next(rest))
            _broadcast(self._group, data)


_groups: dict[Rendezvous, Any] = {}


def _joined(meeting: Rendezvous, rank: int) -> Any:
    if meeting not in _groups:
        store = TCPStore(meeting.host, meeting.port, is_master=False, timeout=TIMEOUT)
        _groups[meeting] = _group(store, meeting, rank)
    return _groups[meeting]


def _group(store: TCPStore, meeting: Rendezvous, rank: int) -> Any:
    import torch.distributed as distributed

    prefixed = PrefixStore("weights", store)
    if meeting.device == "cpu":
        return distributed.ProcessGroupGloo(prefixed, rank, meeting.size, TIMEOUT)
    options = distributed.ProcessGroupNCCL.Options()
    options._timeout = TIMEOUT
    return distributed.ProcessGroupNCCL(prefixed, rank, meeting.size, options)


def _broadcast(group: Any, data: Tensor) -> None:
    from torch.distributed import BroadcastOptions

    options = BroadcastOptions()
    options.rootRank, options.rootTensor = 0, 0
    group.broadcast([data], options).wait()
    if data.is_cuda:
        torch.cuda.synchronize()


def _buckets(specs: Sequence[TensorSpec]) -> Iterator[list[TensorSpec]]:
    bucket: list[TensorSpec] = []
    size = 0
    for spec in specs:
        if bucket and size + spec.nbytes > BUCKET:
            yield bucket
            bucket, size = [], 0
        bucket.append(spec)
        size += _padded(spec.nbytes)
    if bucket:
        yield bucket


def _padded(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _length(bucket: Sequence[TensorSpec]) -> int:
    return sum(_padded(spec.nbytes) for spec in bucket)


def _views(data: Tensor, bucket: Sequence[TensorSpec]) -> Iterator[Tensor]:
    offset = 0
    for spec in bucket:
        yield spec.view(data[offset : offset + spec.nbytes])
        offset += _padded(spec.nbytes)
