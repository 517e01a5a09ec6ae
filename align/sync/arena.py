"""One block of shared memory that carries the policy's weights to engines on the same machine.

The trainer casts and copies each tensor once, straight into the block; engines read views of it.
The block is an anonymous file, so it vanishes with the processes that hold it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import xxhash
from torch import Tensor

from align.errors import SyncError

ALIGNMENT = 64  # bytes; one cache line


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Where one tensor lies."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was published: enough to read it in another process of this machine, and to check it."""

    path: str
    nbytes: int
    version: int
    specs: tuple[TensorSpec, ...]
    digests: tuple[int, ...]
    """xxh3-64 of each tensor's bytes, in the order of ``specs``."""


class Arena:
    """The writing side.

    Usage: ``manifest = arena.publish(hf_stream(model), version)``, any number of times.
    Invariant: names, shapes and types are those of the first call.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        """Floating tensors are cast to ``dtype``, the type the engine holds."""
        self.dtype = dtype
        self._fd = -1
        self._block = torch.empty(0, dtype=torch.uint8)
        self._specs: tuple[TensorSpec, ...] = ()

    def publish(self, pairs: Iterable[tuple[str, Tensor]], version: int) -> Manifest:
        """Copy every tensor in and describe the result.

        Raises:
            SyncError: names or shapes changed since the first call.
        """
        tensors = list(pairs)
        specs = self._layout(tensors)
        if not self._specs:
            self._allocate(specs)
        elif specs != self._specs:
            raise SyncError("the policy's tensors changed their names or shapes during the run")
        digests = []
        for spec, (_, tensor) in zip(specs, tensors, strict=True):
            target = _view(self._block, spec)
            target.copy_(tensor)
            digests.append(_digest(target))
        path = f"/proc/{os.getpid()}/fd/{self._fd}"
        return Manifest(path, self._block.numel(), version, specs, tuple(digests))

    def _layout(self, tensors: list[tuple[str, Tensor]]) -> tuple[TensorSpec, ...]:
        specs, offset = [], 0
        for name, tensor in tensors:
            dtype = self.dtype if tensor.is_floating_point() else tensor.dtype
            nbytes = tensor.numel() * dtype.itemsize
            specs.append(
                TensorSpec(name, tuple(tensor.shape), str(dtype).removeprefix("torch."), offset, nbytes)
            )
            offset += -(-nbytes // ALIGNMENT) * ALIGNMENT
        return tuple(specs)

    def _allocate(self, specs: tuple[TensorSpec, ...]) -> None:
        size = specs[-1].offset + -(-specs[-1].nbytes // ALIGNMENT) * ALIGNMENT
        self._fd = os.memfd_create("align-weights")
        os.ftruncate(self._fd, size)
        self._block = _map(f"/proc/self/fd/{self._fd}", size)
        self._specs = specs


def read(manifest: Manifest) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, view) of a published block, each checked against its digest.

    Raises:
        SyncError: naming the tensor whose bytes differ from what the trainer published.
    """
    block = _map(manifest.path, manifest.nbytes)
    for spec, expected in zip(manifest.specs, manifest.digests, strict=True):
        tensor = _view(block, spec)
        if _digest(tensor) != expected:
            raise SyncError(
                f"checksum of {spec.name} differs between trainer and engine at version {manifest.version}",
                remedy="the transport corrupted weights: restart from the last checkpoint with --resume",
            )
        yield spec.name, tensor


def _map(path: str, size: int) -> Tensor:
    return torch.from_file(path, shared=True, size=size, dtype=torch.uint8)


def _view(block: Tensor, spec: TensorSpec) -> Tensor:
    flat = block[spec.offset : spec.offset + spec.nbytes]
    return flat.view(getattr(torch, spec.dtype)).view(spec.shape)


def _digest(tensor: Tensor) -> int:
    return xxhash.xxh3_64_intdigest(tensor.view(torch.uint8).numpy().data)
