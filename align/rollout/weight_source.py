"""What an engine takes weights from, whatever the transport."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor

Named = tuple[str, Tensor]


class WeightSource(Protocol):
    """Weights on their way to an engine; picklable, so that it reaches any worker."""

    @property
    def whole(self) -> bool:
        """It, or the push that it is a bucket of, has every tensor of the model."""
        ...

    @property
    def first(self) -> bool:
        """A push begins with it."""
        ...

    @property
    def last(self) -> bool:
        """A push ends with it."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Checkpoint names of what it has."""
        ...

    def open(self, rank: int) -> Iterator[Named]:
        """One pass over its (checkpoint name, tensor) pairs, for the worker of that rank."""
        ...
