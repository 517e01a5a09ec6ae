"""Which micro-batches each rank computes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from align.model.attention.batching import packed_batches
from align.model.ranks.layout import Ranks
from align.types import TrainBatch

UNEVEN = 1.1
"""A pass may be so much larger than a rank's even share of the batch: groups seldom divide evenly."""


class Pass(NamedTuple):
    """One forward (and backward) pass of a rank."""

    rows: list[int]
    """Of the batch."""
    counts: bool
    """False: for show, since every rank makes equally many passes; it must weigh nothing."""


def passes_of(batch: TrainBatch, allowed: int, ranks: Ranks) -> list[Pass]:
    """The passes of this rank.

    Args:
        batch: of all ranks.
        allowed: tokens of a pass at most.
        ranks: of this process.
    """
    every = micro_batches_of(batch, allowed, ranks)
    return deal(every, [sum(len(batch.completion_tokens[row]) for row in each) for each in every], ranks)


def micro_batches_of(batch: TrainBatch, allowed: int, ranks: Ranks) -> list[list[int]]:
    """Rows of each micro-batch of all ranks: none so large that a rank would have nothing to do."""
    prompts = dict(zip(batch.prompt_ids, map(len, batch.prompt_tokens), strict=True))
    tokens = sum(prompts.values()) + sum(len(completion) - 1 for completion in batch.completion_tokens)
    share = math.ceil(tokens / ranks.world * UNEVEN)
    return packed_batches(
        batch.prompt_ids,
        [len(prompt) for prompt in batch.prompt_tokens],
        [len(completion) for completion in batch.completion_tokens],
        allowed if ranks.world == 1 else min(allowed, share),
    )


def deal(batches: Sequence[list[int]], sizes: Sequence[int], ranks: Ranks) -> list[Pass]:
    """The passes of this rank: largest first, so that ranks are at work on passes of like size.

    FSDP gathers weights in every pass, so a rank with fewer passes would leave the others waiting for ever.

    Args:
        batches: rows of each micro-batch of the whole batch.
        sizes: tokens of each.
        ranks: of this process.
    """
    if ranks.world == 1:
        return [Pass(rows, True) for rows in batches]
    order = sorted(range(len(batches)), key=lambda i: (-sizes[i], i))
    found = []
    for start in range(0, len(order), ranks.world):
        turn = order[start : start + ranks.world]
        if (start // ranks.world) % 2:  # the largest of a turn goes to another rank each time
            turn = [turn[i] if i < len(turn) else -1 for i in reversed(range(ranks.world))]
        place = turn[ranks.rank] if ranks.rank < len(turn) else -1
        found.append(Pass(batches[order[-1]][:1], False) if place < 0 else Pass(batches[place], True))
    return found
