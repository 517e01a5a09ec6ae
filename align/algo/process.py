"""Process supervision (DeepSeekMath §4.1.3): rewards of steps to advantages of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from align.algo.advantage import group_advantages
from align.config.grpo import AdvantageConfig

Step = tuple[int, float]
"""(end, reward): how many tokens there are up to and including the step's last; its reward."""


def process_advantages(
    steps: Sequence[Sequence[Step] | None], lengths: Sequence[int], config: AdvantageConfig
) -> list[list[float] | None]:
    """A_it = Σ of the normalised rewards of the steps that end at or after token t.

    Rewards are normalised over all steps of all completions of the group, so that a completion
    with more steps counts more in mean and deviation. Tokens after the last step's end get 0.

    Args:
        steps: one list per completion, in any order; None where scoring failed, which leaves the
            completion out. An empty list gives a completion of zeros.
        lengths: T_i, tokens of each completion.
        config: scale, degrees of freedom and ε.

    Returns:
        T_i floats per completion; None where the steps were None.

    Raises:
        ValueError: a step ends outside its completion.
    """
    rewards = [reward for each in steps if each is not None for _, reward in each]
    normalised = iter(group_advantages(rewards, config))
    found: list[list[float] | None] = []
    for each, length in zip(steps, lengths, strict=True):
        if each is None:
            found.append(None)
            continue
        at_end = [0.0] * length
        for end, _ in each:
            if not 1 <= end <= length:
                raise ValueError(f"a step ends after {end} tokens of a completion of {length}")
            at_end[end - 1] += next(normalised) or 0.0
        found.append(list(accumulate(reversed(at_end)))[::-1])
    return found
