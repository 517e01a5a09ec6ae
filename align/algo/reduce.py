"""Token weights: how per-token losses of a batch add up to one number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal


def token_weights(
    lengths: Sequence[int],
    reduction: Literal["sequence_mean", "token_mean", "max_length"],
    max_length: int,
) -> list[float]:
    """The weight of each token of sequence i; the loss is Σ_i Σ_t weight_i · loss_it.

    Known before any backward pass, so that splitting a batch cannot change the objective.

    - ``sequence_mean``: 1 / (N·T_i), DeepSeekMath eq. 3 averaged over prompts.
    - ``token_mean``: 1 / Σ T_j, DAPO's token-level loss.
    - ``max_length``: 1 / (N·max_length), Dr. GRPO: no bias towards short right answers.

    Args:
        lengths: T_i, completion tokens of each of the N sequences, all positive.
        reduction: which of the above.
        max_length: longest completion the sampler allows.
    """
    count, total = len(lengths), sum(lengths)
    if reduction == "token_mean":
        return [1 / total] * count
    if reduction == "max_length":
        return [1 / (count * max_length)] * count
    return [1 / (count * length) for length in lengths]
