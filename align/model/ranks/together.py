"""What ranks tell each other beside weights and gradients: small values, and that one of them failed.

With one rank nothing is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as distributed

from align.errors import NonFiniteError
from align.model.ranks.layout import Ranks

T = TypeVar("T")


def from_all(value: T, ranks: Ranks) -> list[T]:
    """The value of every rank, rank 0 first; small Python values."""
    if ranks.world == 1:
        return [value]
    found: list[Any] = [None] * ranks.world
    distributed.all_gather_object(found, value)
    return found


def barrier(ranks: Ranks) -> None:
    """Wait for all ranks."""
    if ranks.world > 1:
        distributed.barrier()


def sums(values: Sequence[float], ranks: Ranks) -> list[float]:
    """Each value, added up over ranks, in fp64."""
    return [sum(each) for each in zip(*from_all(list(values), ranks), strict=True)]


def raise_together(error: NonFiniteError | None, ranks: Ranks) -> None:
    """Raise on every rank what one of them found.

    Raises:
        NonFiniteError: this rank's, or that of the first rank that has one.
    """
    if ranks.world > 1:
        failed = torch.tensor(float(error is not None))
        distributed.all_reduce(failed)
        if failed:
            told = from_all((error.message, error.key, error.remedy) if error else None, ranks)
            message, key, remedy = next(each for each in told if each)
            raise NonFiniteError(message, key=key, remedy=remedy)
    if error is not None:
        raise error
