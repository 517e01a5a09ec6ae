"""Shared memory: one block that carries the policy's weights to engines on the same machine.

The policy's parameters move into the block and stay there, so that an optimiser step writes straight
into what engines read, and publishing only takes digests. What has no place of its own in the policy
(merged adapters, other types, gathered shards) is copied once, beside the policy, each bucket over the last
one. The block is an anonymous file: it vanishes with the processes that hold it.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from align.sync.manifest import TensorSpec
from align.sync.sender import Sender

ALIGNMENT = 64  # bytes; one cache line


@dataclass(frozen=True, slots=True)
class SharedBlock:
    """The reading side."""

    path: str
    size: int
    offsets: tuple[int, ...]

    def fetch(self, specs: Sequence[TensorSpec], rank: int) -> Iterator[Tensor]:
        block = _mapped(self.path, self.size)
        for spec, offset in zip(specs, self.offsets, strict=True):
            yield spec.view(block[offset : offset + spec.nbytes])


class Arena(Sender):
    """The writing side."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(dtype)
        self._fd = -1
        self._used = self._hosted_bytes = 0
        self._hosted = self._block = torch.empty(0, dtype=torch.uint8)
        self._places: dict[str, int] = {}

    def host(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Move parameters of the engine's type into the block. They keep their identity and their values.

        Args:
            parameters: in main memory; views of their data taken before are cut off.
        """
        hosted = [each for each in parameters if each.dtype == self.catalogue.dtype and each.is_contiguous()]
        offsets = [self._reserve(each.nbytes) for each in hosted]
        self._hosted, self._hosted_bytes = self._block, self._used
        for parameter, offset in zip(hosted, offsets, strict=True):
            place = self._hosted[offset : offset + parameter.nbytes].view(parameter.dtype)
            place = place.view(parameter.shape)
            with torch.no_grad():
                place.copy_(parameter)
            parameter.data = place

    def begin(self, *, first: bool = True) -> None:
        super().begin(first=first)
        self._used, self._places = self._hosted_bytes, {}

    def release(self) -> None:
        """Nothing: the policy lives in the block, and what stands beside it is written over."""

    def _place(self, tensor: Tensor, spec: TensorSpec) -> Tensor:
        if self._hosted_at(tensor) is not None:
            return tensor
        if spec.name not in self._places:
            self._places[spec.name] = self._reserve(spec.nbytes)
        offset = self._places[spec.name]
        place = spec.view(self._block[offset : offset + spec.nbytes])
        return place.copy_(tensor)

    def _carrier(self, sent: Sequence[Tensor], specs: Sequence[TensorSpec]) -> SharedBlock:
        offsets = []
        for tensor, spec in zip(sent, specs, strict=True):
            place = self._hosted_at(tensor)
            offsets.append(self._places[spec.name] if place is None else place)
        return SharedBlock(f"/proc/{os.getpid()}/fd/{self._fd}", self._block.nbytes, tuple(offsets))

    def _hosted_at(self, tensor: Tensor) -> int | None:
        """Offset in the block, when the tensor lies there as it is."""
        offset = tensor.data_ptr() - self._hosted.data_ptr()
        return offset if 0 <= offset < self._hosted.nbytes and tensor.is_contiguous() else None

    def _reserve(self, nbytes: int) -> int:
        offset = self._used
        self._used += -(-nbytes // ALIGNMENT) * ALIGNMENT
        if self._used > self._block.nbytes:
            self._grow()
        return offset

    def _grow(self) -> None:
        """Twice what is used: pages that were never written take no memory. Earlier maps stay valid."""
        if self._fd < 0:
            self._fd = os.memfd_create("align-weights")
        size = -(-2 * self._used // mmap.PAGESIZE) * mmap.PAGESIZE
        os.ftruncate(self._fd, size)
        self._block = _map(f"/proc/self/fd/{self._fd}", size)


_maps: dict[str, Tensor] = {}


def _mapped(path: str, size: int) -> Tensor:
    """The block, mapped once: the first touch of every page costs more than reading it."""
    block = _maps.get(path)
    if block is None or block.nbytes != size:
        _maps.clear()
        block = _maps[path] = _map(path, size)
    return block


def release() -> None:
    """Drop this process's view of the block; the next push maps it again."""
    _maps.clear()


def _map(path: str, size: int) -> Tensor:
    return torch.from_file(path, shared=True, size=size, dtype=torch.uint8)
