"""Rewards of a group to advantages (DeepSeekMath §4.1.2, DeepSeek-V2 eq. 34)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from align.config.grpo import AdvantageConfig


def group_advantages(rewards: Sequence[float | None], config: AdvantageConfig) -> list[float | None]:
    """A_i = (r_i − baseline) / (std + ε) inside one group.

    A sample without a reward (a failed or abstaining term) is left out of baseline and spread and
    gets None. A group with fewer than two rewards carries no signal: its advantages are 0.

    Args:
        rewards: one per completion of the group, None where scoring failed.
        config: baseline, scale, degrees of freedom and ε.

    Returns:
        One advantage per completion; None where the reward was None.
    """
    known = [reward for reward in rewards if reward is not None]
    if len(known) < 2:
        return [None if reward is None else 0.0 for reward in rewards]
    mean = math.fsum(known) / len(known)
    scale = 1.0
    if config.scale == "std":
        variance = math.fsum((reward - mean) ** 2 for reward in known) / (len(known) - config.ddof)
        scale = math.sqrt(variance) + config.eps
    if min(known) == max(known):  # rounding of the mean must not become a signal
        return [None if reward is None else 0.0 for reward in rewards]

    def baseline(reward: float) -> float:
        if config.baseline == "leave_one_out":
            return (mean * len(known) - reward) / (len(known) - 1)
        return mean

    return [None if reward is None else (reward - baseline(reward)) / scale for reward in rewards]
