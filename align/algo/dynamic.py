"""Dynamic sampling (DAPO, arXiv 2503.14476 §3.2): groups that teach nothing are replaced.

Usage, with ``wanted`` groups per step:

    while count := refill(wanted, kept, seen, rounds, config):
        …sample and score ``count`` further prompts, find their advantages…
    first ``wanted`` groups with a signal, in the order in which their prompts were drawn
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from align.config.grpo import DynamicSamplingConfig


def has_signal(advantages: Sequence[float | list[float] | None]) -> bool:
    """Whether a group's advantages move the policy: some are not zero.

    Args:
        advantages: of the group's completions, or lists of their tokens'; None for a sample left out.
    """
    return any(any(each) if isinstance(each, list) else bool(each) for each in advantages)


def refill(wanted: int, kept: int, seen: int, rounds: int, config: DynamicSamplingConfig | None) -> int:
    """How many more prompts to draw; 0 when the step is full or its rounds are used up.

    The missing groups are divided by the share of groups that had a signal so far in this step,
    with one success and one failure added to either count (Laplace), so that one round usually
    suffices. No round draws more than ``wanted`` prompts.

    Args:
        wanted: groups that the step shall train on.
        kept: groups with a signal so far.
        seen: groups sampled so far.
        rounds: rollout rounds done; 0 before the first, which draws ``wanted`` prompts.
        config: the limit on rounds; None draws once.
    """
    if rounds == 0:
        return wanted
    missing = wanted - kept
    if config is None or rounds >= config.max_rounds or missing <= 0:
        return 0
    share = (kept + 1) / (seen + 2)
    return min(wanted, math.ceil(missing / share))
