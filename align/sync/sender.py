"""The trainer's end of a transport, whichever it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence, Set

import torch
from torch import Tensor

from align.sync.manifest import Carrier, Catalogue, Manifest, Named, TensorSpec, digests


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
