"""CUDA IPC: the engine reads the policy's memory on the same GPU.

Written against torch's own sharing of CUDA storages and not tried on a GPU. Memory from expandable
segments cannot be shared: leave PYTORCH_CUDA_ALLOC_CONF without ``expandable_segments``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor

from align.errors import SyncError
from align.sync.manifest import TensorSpec
from align.sync.sender import Sender


@dataclass(frozen=True, slots=True)
class CudaHandles:
    """The reading side: handles of storages, and where each tensor lies in them."""

    storages: tuple[tuple[Any, tuple[Any, ...]], ...]
    places: tuple[tuple[int, int], ...]
    """(storage, offset in bytes) of each tensor."""

    def fetch(self, specs: Sequence[TensorSpec], rank: int) -> Iterator[Tensor]:
        if rank > 0:
            raise SyncError("CUDA IPC reaches one GPU, the engine has several")
        opened = [rebuild(*arguments) for rebuild, arguments in self.storages]
        for spec, (storage, offset) in zip(specs, self.places, strict=True):
            yield spec.view(opened[storage][offset : offset + spec.nbytes])


class CudaIpc(Sender):
    """The writing side."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(dtype)
        self._kept: list[Tensor] = []
        """What was published and not released: nothing else may hold merged or cast tensors."""

    def begin(self, *, first: bool = True) -> None:
        super().begin(first=first)
        self.release()  # of a push that the engine never loaded

    def release(self) -> None:
        """Hold the policy's memory no longer, or moving it off the GPU would free nothing."""
        self._kept = []
        torch.cuda.ipc_collect()  # what the engine has let go

    def _place(self, tensor: Tensor, spec: TensorSpec) -> Tensor:
        self._kept.append(tensor.to(getattr(torch, spec.dtype)).contiguous())  # itself, if nothing is to do
        return self._kept[-1]

    def _carrier(self, sent: Sequence[Tensor], specs: Sequence[TensorSpec]) -> CudaHandles:
        torch.cuda.synchronize()  # the engine reads on a stream of its own
        storages: dict[int, int] = {}
        handles: list[tuple[Any, tuple[Any, ...]]] = []
        places = []
        for tensor in sent:
            storage = tensor.untyped_storage()
            start = storage.data_ptr()
            if start not in storages:
                storages[start] = len(handles)
                whole = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage)
                handles.append(reduce_tensor(whole))
            places.append((storages[start], tensor.data_ptr() - start))
        return CudaHandles(tuple(handles), tuple(places))
