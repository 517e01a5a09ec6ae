"""Micro-batches by token budget."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

CALLS = 128
"""What one more rectangle of attention costs, in places of a rectangle: forward and backward on two cores."""


def micro_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Rows grouped so that rows × longest row stays within ``budget`` padded tokens.

    Rows are sorted by length first, which makes padding nearly vanish. A single row longer than
    the budget gets a micro-batch of its own. Longest first, so that a lack of memory shows in
    the first forward pass.

    Args:
        lengths: tokens of each row.
        budget: most padded tokens in one micro-batch.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    batches: list[list[int]] = []
    for row in order:
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def packed_batches(
    prompt_ids: Sequence[str], prompt_lengths: Sequence[int], lengths: Sequence[int], budget: int
) -> list[list[int]]:
    """Micro-batches of whole groups, as full as the budget allows (first fit, largest first).

    The rows of a group stand together, so that ``align.model.attention.shared_prefix.pack`` computes their
    prompt once. A group over the budget is split, and its prompt computed once per piece; a single
    row over the budget gets a micro-batch of its own.

    Args:
        prompt_ids: which group each row belongs to.
        prompt_lengths: P of each row.
        lengths: T of each row; T - 1 tokens of it are fed.
        budget: most tokens in one forward pass.
    """
    groups: dict[str, list[int]] = {}
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        groups.setdefault(prompt_ids[row], []).append(row)
    pieces: list[tuple[int, list[int]]] = []
    for rows in groups.values():
        piece: list[int] = []
        size = prompt_lengths[rows[0]]
        for row in rows:
            if piece and size + lengths[row] - 1 > budget:
                pieces.append((size, piece))
                piece, size = [], prompt_lengths[row]
            piece.append(row)
            size += lengths[row] - 1
        pieces.append((size, piece))
    bins: list[list[int]] = []
    room = _Room(len(pieces), budget)
    for size, rows in sorted(pieces, key=lambda piece: -piece[0]):
        place = room.first(size)
        if place == len(bins):
            bins.append([])
        bins[place] += rows
    return bins


class _Room:
    """Room left in each of a row of bins. Finding the first that fits costs the logarithm of their number:
    a tree whose every node has the most room below it, the root at 1."""

    def __init__(self, bins: int, budget: int) -> None:
        self._leaves = 1 << (bins - 1).bit_length() if bins else 1
        self._budget = budget
        self._most = [budget] * (2 * self._leaves)

    def first(self, size: int) -> int:
        """Put so much into the first bin that takes it; its number. What fits nowhere has an empty bin of
        its own."""
        most, at = self._most, 1
        wanted = min(size, self._budget)
        while at < self._leaves:
            at = 2 * at if most[2 * at] >= wanted else 2 * at + 1
        place = at - self._leaves
        most[at] -= size
        while at := at // 2:
            most[at] = max(most[2 * at], most[2 * at + 1])
        return place


def rectangles(lengths: Sequence[int]) -> list[range]:
    """Neighbouring rows cut into rectangles, each as wide as its longest row, so that least is computed.

    Few wide ones compute padding, many narrow ones take calls; :data:`CALLS` weighs one against the other.

    Args:
        lengths: tokens of each row.
    """
    cheapest, begins = [0], [0]
    for stop in range(1, len(lengths) + 1):
        width, found = 0, []
        for start in range(stop - 1, -1, -1):
            width = max(width, lengths[start])
            found.append((cheapest[start] + (stop - start) * width + CALLS, start))
        cost, begin = min(found)
        cheapest.append(cost)
        begins.append(begin)
    cuts = [len(lengths)]
    while cuts[-1]:
        cuts.append(begins[cuts[-1]])
    return [range(begin, end) for end, begin in pairwise(cuts)][::-1]


class PackedSize(NamedTuple):
    """What one pass over packed micro-batches computes."""

    fed: int
    """Tokens through the layers: each prompt once for neighbouring rows that share it, and of a completion
    all tokens but the last."""
    padding: float
    """Share of padding in the rectangles of the completions' attention, the only padding there is; 0 where
    no completion is fed."""
    prompt_passes: float
    """How often the prompt of a group is computed, on average: 1 where no group is cut."""


def packed_size(
    prompt_tokens: Sequence[Sequence[int]], lengths: Sequence[int], batches: Sequence[Sequence[int]]
) -> PackedSize:
    """What one pass over packed micro-batches computes.

    Args:
        prompt_tokens: prompt of each row.
        lengths: T of each row.
        batches: rows of each micro-batch, as :func:`packed_batches` gives them.
    """
    fed = own = places = copies = 0
    prompts = {tuple(prompt) for prompt in prompt_tokens}
    for batch in batches:
        for prompt, rows in groupby(batch, key=lambda row: list(prompt_tokens[row])):
            sizes = [lengths[row] - 1 for row in rows]
            fed += len(prompt) + sum(sizes)
            copies += 1
            own += sum(sizes)
            places += sum(len(run) * max(sizes[row] for row in run) for run in rectangles(sizes))
    return PackedSize(fed, 1 - own / places if places else 0.0, copies / max(1, len(prompts)))
