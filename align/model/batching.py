"""Micro-batches by token budget."""

from __future__ import annotations

from collections.abc import Sequence


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
