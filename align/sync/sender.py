"""The trainer's end of a transport, whichever it is.

A push goes in buckets, one after the other, so that weights that must be gathered, merged or copied are never
held all together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence, Set

import torch
from torch import Tensor

from align.sync.manifest import Carrier, Catalogue, Manifest, Named, TensorSpec, digests


class Sender(ABC):
    """The trainer's end.

    Usage: ``manifest = sender.publish(hf_stream(model), version)``; or, for each bucket, ``begin``, ``add``
    for each tensor, and ``finish``. ``release`` once the engines have loaded it. The policy must not change
    before the last release.
    Invariant: names, shapes and types are those of the first push, which is a whole one.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        """Floating tensors are cast to ``dtype``, the type the engine holds."""
        self.catalogue = Catalogue(dtype)
        self._specs: list[TensorSpec] = []
        self._sent: list[Tensor] = []
        self._first = True
        self._names: list[str] = []
        """Of the push so far."""

    def publish(
        self,
        pairs: Iterable[Named],
        version: int,
        *,
        whole: bool = True,
        required: Set[str] = frozenset(),
    ) -> Manifest:
        """Make tensors readable and describe them, in one bucket.

        Args:
            pairs: (checkpoint name, tensor).
            version: of the policy.
            whole: ``pairs`` are all of the policy's tensors.
            required: names that ``pairs`` must have when they are not all.

        Raises:
            SyncError: a tensor is missing, or names or shapes changed since the first call.
        """
        self.begin()
        for name, tensor in pairs:  # one at a time: a merged adapter is gone before the next comes
            self.add(name, tensor)
        return self.finish(version, whole=whole, required=required)

    def add(self, name: str, tensor: Tensor) -> None:
        """Make one tensor readable.

        Raises:
            SyncError: its name is new, or its shape.
        """
        spec = self.catalogue.admit(name, tensor)
        self._specs.append(spec)
        self._sent.append(self._place(tensor, spec))

    def finish(
        self, version: int, *, whole: bool = True, last: bool = True, required: Set[str] = frozenset()
    ) -> Manifest:
        """Describe what was added since :meth:`begin`; with the last bucket all of the push is checked, as
        :meth:`publish` does."""
        specs, sent = self._specs, self._sent
        self._specs, self._sent = [], []
        self._names += [spec.name for spec in specs]
        if last:
            self.catalogue.close(self._names, whole=whole, required=required)
        carrier = self._carrier(sent, specs)
        return Manifest(version, whole, tuple(specs), digests(sent), carrier, self._first, last)

    def begin(self, *, first: bool = True) -> None:
        """Start a bucket.

        Args:
            first: of a push; what was added to one that failed is forgotten.
        """
        self._specs, self._sent = [], []
        self._first = first
        if first:
            self._names = []

    @abstractmethod
    def release(self) -> None:
        """Let go of the last bucket, now that the engines have loaded it."""

    @abstractmethod
    def _place(self, tensor: Tensor, spec: TensorSpec) -> Tensor:
        """The tensor in the type of ``spec``, contiguous, where it can be read from."""

    @abstractmethod
    def _carrier(self, sent: Sequence[Tensor], specs: Sequence[TensorSpec]) -> Carrier:
        """How to get at what was placed."""
