"""A push in buckets: no process holds more of what is gathered or merged than one of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from align.sync.manifest import Named


class Buckets:
    """The tensors of a push, some at a time.

    Usage: ``for pair in buckets.take()``, to its end, until ``buckets.last``.
    Invariant: where a bucket ends depends on shapes and types alone: ranks that gather together end theirs
    at the same tensor.
    """

    def __init__(self, pairs: Iterable[Named], nbytes: int | None) -> None:
        """
        Args:
            pairs: (checkpoint name, tensor).
            nbytes: of a bucket, at which it ends: one tensor may go beyond. Default: all are one bucket.
        """
        self._pairs = iter(pairs)
        self._nbytes = nbytes
        self._next = next(self._pairs, None)

    def take(self) -> Iterator[Named]:
        """The pairs of one bucket; each is computed when the one before was used."""
        taken = 0
        while self._next is not None and (self._nbytes is None or taken < self._nbytes):
            pair, self._next = self._next, None
            taken += pair[1].nbytes
            yield pair
            del pair  # before the next is gathered
            self._next = next(self._pairs, None)

    @property
    def last(self) -> bool:
        """Nothing is left."""
        return self._next is None
