"""The mixture of parts: which rows one epoch has, in which order, and a table of it.

**What one epoch is.** It has as many rows as the parts have together. With weights, part p gets the
share w_p / Σw of them, exact to one row (largest remainder); without weights, every row occurs
once. A part with more rows than its share shows a different slice of them in each epoch; one with
fewer is repeated. Either way its rows are used evenly: over any number of epochs no row of a part
is seen twice more often than another, because each part is read through seeded permutations of
its rows, one after the other. The rows of an epoch are then shuffled together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from align.dataset.rows.parts import Part
from align.seed import derive_seed


def shares(sizes: Mapping[str, int], weights: Mapping[str, float | None]) -> dict[str, float]:
    """Each part's share of the mixture; without weights, its share of all rows. They sum to 1."""
    raw = {name: float(sizes[name]) if weights[name] is None else float(weights[name] or 0) for name in sizes}
    total = sum(raw.values())
    return {name: value / total for name, value in raw.items()}


def epoch_counts(sizes: Mapping[str, int], weights: Mapping[str, float | None]) -> dict[str, int]:
    """Rows of each part in one epoch; they sum to the rows of all parts together."""
    total = sum(sizes.values())
    exact = {name: share * total for name, share in shares(sizes, weights).items()}
    counts = {name: int(value + 1e-9) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def epoch_rows(
    sizes: Mapping[str, int], weights: Mapping[str, float | None], *, seed: int, epoch: int = 0
) -> list[tuple[str, int]]:
    """The rows of one epoch in the order of training, as (part, place among the part's rows)."""
    rows: list[tuple[str, int]] = []
    for name, count in epoch_counts(sizes, weights).items():
        rows += [(name, place) for place in _read(name, sizes[name], epoch * count, count, seed)]
    Random(derive_seed(seed, "mixture", epoch)).shuffle(rows)
    return rows


def _read(name: str, size: int, start: int, count: int, seed: int) -> list[int]:
    """``count`` places from ``start`` on in the part's endless row of permutations."""
    places: list[int] = []
    position = start
    while len(places) < count:
        order = permutation(name, size, position // size, seed)
        places += order[position % size :][: count - len(places)]
        position = start + len(places)
    return places


def permutation(name: str, size: int, cycle: int, seed: int) -> list[int]:
    """The order in which pass number ``cycle`` goes through a part's rows."""
    order = list(range(size))
    Random(derive_seed(seed, "part", name, cycle)).shuffle(order)
    return order


@dataclass(frozen=True, slots=True)
class PartSummary:
    """One line of the mixture's table."""

    name: str
    source: str
    found: int
    """Rows of the source."""
    excluded: int
    """Left out by ``where``."""
    dropped: int
    """Too long, or empty after truncation."""
    truncated: int
    """Cut at the length limit."""
    rows: int
    """Left to draw from."""
    epoch: int
    """Rows of this part in one epoch; above ``rows``, some occur several times."""
    row_share: float
    """Of the epoch's rows."""
    token_share: float
    """Of the epoch's tokens, on average."""

    @property
    def repeated(self) -> int:
        """Rows of an epoch that are second or later occurrences."""
        return max(0, self.epoch - self.rows)


def summarise(
    parts: Sequence[Part],
    counts: Mapping[str, int],
    lengths: Mapping[str, Sequence[int]],
    *,
    dropped: Mapping[str, int],
    truncated: Mapping[str, int],
) -> list[PartSummary]:
    """The mixture's table: one line per part.

    Args:
        parts: as loaded.
        counts: rows per part in one epoch.
        lengths: tokens of each row that is left, per part.
        dropped, truncated: rows per part.
    """
    all_rows = sum(counts.values())
    tokens = {name: counts[name] * sum(many) / len(many) if many else 0.0 for name, many in lengths.items()}
    all_tokens = sum(tokens.values())
    return [
        PartSummary(
            name=part.name,
            source=part.source,
            found=part.found,
            excluded=part.excluded,
            dropped=dropped[part.name],
            truncated=truncated[part.name],
            rows=len(lengths[part.name]),
            epoch=counts[part.name],
            row_share=counts[part.name] / all_rows if all_rows else 0.0,
            token_share=tokens[part.name] / all_tokens if all_tokens else 0.0,
        )
        for part in parts
    ]
