"""Sequences one after another in one row, so that nothing is padded.

Everything but attention works token by token and sees one long row. Attention takes sequences of similar
length together and pads among those alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

FILLED = 0.75
"""The shortest sequence of a block, as a share of its longest."""


class Blocks:
    """How a flat row of S tokens becomes rectangles, and back.

    A plain class, closed to the compiler, which would compile anew for every number of rectangles.
    """

    def __init__(self, picks: Sequence[Tensor], back_S: Tensor) -> None:
        self.picks = tuple(picks)
        """int64 [b, t] each: the row's token at each place of b sequences, on the left; padding repeats
        the sequence's last token, which nothing before it sees."""
        self.back_S = back_S
        """int64: where the row's token stands in the flattened rectangles, one after the other."""


def blocks(lengths: Sequence[int]) -> Blocks:
    """Rectangles for sequences of these lengths, each at least 1."""
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    picks: list[Tensor] = []
    back_S = torch.empty(starts[-1], dtype=torch.int64)
    filled = 0
    for members in _alike(lengths):
        width = lengths[members[0]]
        begin_B = torch.tensor([starts[member] for member in members])
        last_B = torch.tensor([lengths[member] - 1 for member in members])
        steps_BT = torch.arange(width).expand(len(members), -1)
        picks.append(begin_B[:, None] + torch.minimum(steps_BT, last_B[:, None]))
        for row, member in enumerate(members):
            place = filled + row * width
            back_S[starts[member] : starts[member + 1]] = torch.arange(place, place + lengths[member])
        filled += len(members) * width
    return Blocks(picks, back_S)


def _alike(lengths: Sequence[int]) -> list[list[int]]:
    """Sequences in groups of similar length, the longest of each first."""
    groups: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        if not groups or lengths[number] < FILLED * lengths[groups[-1][0]]:
            groups.append([])
        groups[-1].append(number)
    return groups
