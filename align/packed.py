"""Rows of numbers on their way between processes.

Pickling a list of a million numbers makes a million objects on both sides. Here the numbers travel as
arrays, all rows of a column in one, and are read where they lie: what a driver only hands on costs it
nothing, however many tokens it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

if TYPE_CHECKING:  # what only describes values stays light
    from numpy.typing import NDArray

C = TypeVar("C", bound=type)
N = TypeVar("N", int, float)
Kind = Literal["int32", "float64"]
"""Of tokens, and of numbers that must come back exactly."""


class Packed(Sequence[N]):
    """A row that came from another process. It reads, compares and adds like a list of Python numbers."""

    __slots__ = ("array",)

    def __init__(self, array: NDArray[Any]) -> None:
        """``array``: one dimension; it may be read-only."""
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, index: int) -> N: ...
    @overload
    def __getitem__(self, index: slice) -> Packed[N]: ...
    def __getitem__(self, index: int | slice) -> N | Packed[N]:
        found = self.array[index]
        return Packed(found) if isinstance(index, slice) else found.item()

    def __iter__(self) -> Iterator[N]:
        return iter(self.array.tolist())

    def __eq__(self, other: object) -> bool:
        other = other.array.tolist() if isinstance(other, Packed) else other
        return self.array.tolist() == other if isinstance(other, list) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as a list

    def __add__(self, other: Sequence[N]) -> list[N]:
        return list(self) + list(other)

    def __radd__(self, other: Sequence[N]) -> list[N]:
        return list(other) + list(self)

    def __array__(self, *args: Any, **kwargs: Any) -> NDArray[Any]:
        return self.array.__array__(*args, **kwargs)

    def __repr__(self) -> str:
        return repr(self.array.tolist())

    def __reduce__(self) -> tuple[Any, ...]:
        return Packed, (self.array,)


class Rows:
    """Rows to be sent: in the other process they are a list of :class:`Packed`.

    Usage: in place of the rows themselves in what ``__reduce__`` gives, or as what a call returns.
    """

    def __init__(self, rows: Iterable[Sequence[float]], kind: Kind) -> None:
        self._arrays = [_array(row, kind) for row in rows]

    def __reduce__(self) -> tuple[Any, ...]:
        import numpy as np

        flat = np.concatenate(self._arrays) if self._arrays else np.zeros(0)
        return _rows, (flat, [len(each) for each in self._arrays])


class Listed:
    """A row to be sent that is a list of Python numbers again in the other process."""

    def __init__(self, row: Sequence[int]) -> None:
        self._array = _array(row, "int32")

    def __reduce__(self) -> tuple[Any, ...]:
        return _listed, (self._array.tobytes(),)


def token_rows(rows: Iterable[Sequence[int]] | None) -> Rows | None:
    """Token ids to be sent; None for None."""
    return None if rows is None else Rows(rows, "int32")


def number_rows(rows: Iterable[Sequence[float]] | None) -> Rows | None:
    """Log-probabilities and the like to be sent; None for None."""
    return None if rows is None else Rows(rows, "float64")


def mean(row: Sequence[float]) -> float | None:
    """Mean of a row; None of none."""
    return float(_array(row, "float64").mean()) if len(row) else None


def sent_by_fields(cls: C) -> C:
    """Decorator of a dataclass: pickled as a call with its fields, several times faster than its state."""
    names = tuple(cls.__dataclass_fields__)  # type: ignore[attr-defined]
    fields = attrgetter(*names)

    def __reduce__(self: Any) -> tuple[Any, ...]:
        return type(self), fields(self)

    cls.__reduce__ = __reduce__  # type: ignore[method-assign, assignment]
    return cls


def _array(row: Sequence[float], kind: Kind) -> NDArray[Any]:
    import numpy as np

    return np.asarray(row.array if isinstance(row, Packed) else row, kind)


def _rows(flat: NDArray[Any], lengths: Sequence[int]) -> list[Packed[Any]]:
    ends = list(accumulate(lengths, initial=0))
    return [Packed(flat[start:end]) for start, end in pairwise(ends)]


def _listed(data: bytes) -> list[int]:
    import numpy as np

    return list(np.frombuffer(data, np.int32).tolist())
