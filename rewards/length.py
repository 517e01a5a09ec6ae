"""Soft punishment of overlong answers (DAPO, arXiv 2503.14476, eq. 13)."""

from __future__ import annotations

from align.reward import Sample, reward


@reward
def length(sample: Sample, max_length: int = 0, buffer: int = 0) -> float:
    """0 up to ``max_length - buffer`` tokens, falling to -1 at ``max_length``; -1 for a cut-off answer.

    Args:
        max_length: tokens; 0 takes the sampling limit ``max_new_tokens``.
        buffer: tokens over which the punishment grows; 0 punishes only what is beyond ``max_length``.
    """
    limit = max_length or sample.max_new_tokens
    if not limit or not 0 <= buffer <= limit:
        raise ValueError(
            f"needs a limit and 0 <= buffer <= limit, got max_length={limit} and buffer={buffer}"
        )
    tokens = len(sample.token_ids)
    if sample.truncated or tokens > limit:
        return -1.0
    return min(0.0, (limit - buffer - tokens) / buffer) if buffer else 0.0
