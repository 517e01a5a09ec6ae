"""What a push carries, and how it is known to have arrived: names, shapes and a digest of every tensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import torch
import xxhash
from torch import Tensor

from align.errors import SyncError

Named = tuple[str, Tensor]

CHECKED_AT_ONCE = 8 << 20
"""Bytes whose digests are compared before the engine gets them: about a layer of a small model, so that
they are still in the cache when the engine repacks them."""
_FOLDED_AT_ONCE = 1 << 24  # words
_PRECISE = ".e_score_correction_bias"
"""A router's correction bias, which engines hold in fp32 whatever their type: rounded, it picks others."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of a push."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int

    @classmethod
    def of(cls, name: str, tensor: Tensor, dtype: torch.dtype) -> TensorSpec:
        """The spec of a tensor that travels as ``dtype``."""
        shape = tuple(tensor.shape)
        return cls(name, shape, str(dtype).removeprefix("torch."), tensor.numel() * dtype.itemsize)

    def view(self, data: Tensor) -> Tensor:
        """``data``, uint8 [nbytes], as this tensor."""
        return data.view(getattr(torch, self.dtype)).view(self.shape)


class Carrier(Protocol):
    """The receiving end of a transport: picklable, opened in any worker process of the engine."""

    def fetch(self, specs: Sequence[TensorSpec], rank: int) -> Iterator[Tensor]:
        """Yield the tensors of ``specs`` in order; what is yielded stays valid until all are fetched."""
        ...


@dataclass(frozen=True, slots=True)
class Manifest:
    """One bucket of a push: enough to read it in another process, and to check it."""

    version: int
    whole: bool
    """The push has every tensor of the policy, not only those that changed since the last one."""
    specs: tuple[TensorSpec, ...]
    digests: tuple[int, ...]
    """Of each tensor's bytes, in the order of ``specs``; see :func:`digest`."""
    carrier: Carrier
    first: bool = True
    """A push begins with it."""
    last: bool = True
    """A push ends with it."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors that travel."""
        return tuple(spec.name for spec in self.specs)

    @property
    def nbytes(self) -> int:
        """Bytes that travel."""
        return sum(spec.nbytes for spec in self.specs)

    def open(self, rank: int = 0) -> Iterator[Named]:
        """Yield (name, tensor), each checked against its digest.

        Args:
            rank: of the engine's worker process.

        Raises:
            SyncError: naming the tensor whose bytes differ from what the trainer published.
        """
        tensors = self.carrier.fetch(self.specs, rank)
        expected = iter(zip(self.specs, self.digests, strict=True))
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for batch in _batches(tensors):
                for tensor, found in zip(batch, pool.map(digest, batch), strict=True):
                    spec, wanted = next(expected)
                    if found != wanted:
                        raise SyncError(
                            f"checksum of {spec.name} differs between trainer and engine at version "
                            f"{self.version}",
                            remedy="the transport corrupted weights: restart from the last checkpoint with "
                            "--resume",
                        )
                    yield spec.name, tensor


class Catalogue:
    """The policy's tensors as the first push had them; every later push is held against it."""

    def __init__(self, dtype: torch.dtype) -> None:
        """Floating tensors travel as ``dtype``, the correction bias of a router in fp32."""
        self.dtype = dtype
        self._known: dict[str, TensorSpec] = {}
        self._complete = False

    def admit(self, name: str, tensor: Tensor) -> TensorSpec:
        """The spec of a tensor that is to be published.

        Raises:
            SyncError: the first push did not have it so.
        """
        dtype = torch.float32 if name.endswith(_PRECISE) else self.dtype
        spec = TensorSpec.of(name, tensor, dtype if tensor.is_floating_point() else tensor.dtype)
        if not self._complete:
            self._known[name] = spec
        elif self._known.get(name) != spec:
            raise SyncError(
                f"the policy's tensors changed their names or shapes during the run: {name}",
                remedy="nothing may rename or resize weights while a run trains them",
            )
        return spec

    def close(self, names: Sequence[str], *, whole: bool, required: Set[str]) -> None:
        """Called with all names of a push.

        Args:
            names: what was admitted.
            whole: they are said to be all.
            required: names that must be among them when they are not.

        Raises:
            SyncError: one is missing.
        """
        if not (whole or self._complete):
            raise SyncError("the first push must be a whole one")
        found = set(names)
        absent = sorted((set(self._known) if whole else required) - found)
        if absent or len(found) < len(names):
            raise SyncError(
                f"{len(absent)} of the policy's tensors are missing from the push, the first is {absent[0]}"
                if absent
                else "two of the policy's tensors have the same name",
                remedy="trainer and engine must hold the same weights: report it with the config.json",
            )
        self._complete = True


def digest(tensor: Tensor) -> int:
    """A checksum of a contiguous tensor's bytes.

    xxh3-64 in main memory. On a GPU the sum of its words times odd numbers, modulo 2^64, which no
    single changed word leaves as it was.
    """
    if tensor.device.type != "cpu":
        return fold(tensor)
    state = xxhash.xxh3_64()  # its update lets other threads run, the one-shot function does not
    state.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return state.intdigest()


def digests(tensors: Sequence[Tensor]) -> tuple[int, ...]:
    """The digest of each, on as many threads as torch has."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return tuple(pool.map(digest, tensors))


def fold(tensor: Tensor) -> int:
    """The digest of a tensor where it is, whatever the device."""
    data = tensor.view(-1).view(torch.uint8)
    if data.storage_offset() % 4:
        data = data.clone()
    words = data.view(torch.int32) if data.numel() % 4 == 0 else data
    total = torch.zeros((), dtype=torch.int64, device=tensor.device)
    for start in range(0, words.numel(), _FOLDED_AT_ONCE):
        part = words[start : start + _FOLDED_AT_ONCE]
        index = torch.arange(start, start + part.numel(), dtype=torch.int64, device=tensor.device)
        total += (part.long() * (index * _ODD_STEP + 1)).sum()
    return int(total) % 2**64


_ODD_STEP = 0x1E3779B97F4A7C16  # even, so that index * step + 1 is odd


def _batches(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    batch: list[Tensor] = []
    size = 0
    for tensor in tensors:
        batch.append(tensor)
        size += tensor.nbytes
        if size >= CHECKED_AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
