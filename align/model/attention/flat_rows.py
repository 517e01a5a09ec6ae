"""Sequences one after another in one row, so that nothing is padded.

Everything but attention works token by token and sees one long row. Attention takes sequences of similar
length together and pads among those alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from align.errors import ModelError
from align.model.attention.cpu import attend, other_attention

NAME = "flat_rows"
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


def use_flat_rows(model: Any) -> bool:
    """Let a transformers model on a CPU compute flat rows, and them alone: ``model(…, blocks=blocks(…))``.

    Returns:
        Whether it can: every layer attends to all that came before, and none carries a state along the row.
    """
    dropout = getattr(model.config.get_text_config(), "attention_dropout", 0.0)
    if model.config._attn_implementation != "sdpa" or other_attention(model) or dropout:
        return False
    model.set_attn_implementation(NAME)
    return bool(model.config._attn_implementation == NAME)  # some attention cannot be replaced


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    blocks: Blocks | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Each sequence of a flat row alone: query [1, H, S, D], key and value with H or fewer heads."""
    if blocks is None:
        raise ModelError(
            f"{type(module).__name__} does not pass on what its attention must know",
            key="policy.path",
            remedy="use an architecture whose layers hand their keyword arguments to the attention",
        )
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    query, key, value = (each[0].transpose(0, 1) for each in (query, key, value))  # [S, heads, D]
    parts = []
    for pick in blocks.picks:
        query_bt, key_bt, value_bt = (
            each.index_select(0, pick.flatten()).unflatten(0, pick.shape) for each in (query, key, value)
        )
        parts.append(attend(query_bt, key_bt, value_bt, scaling).flatten(0, 1))
    return torch.cat(parts).index_select(0, blocks.back_S)[None], None


ALL_ATTENTION_FUNCTIONS.register(NAME, torch.compiler.disable(_attention))
