"""From the outcomes of the terms to one reward: r = Σ c_i · clip(r_i), the weighted sum of the paper.

DeepSeek-V2 §4.2: r = c1·RM_helpful(o) + c2·RM_safety(o) + c3·RM_rule(o); c1…c3 are not given there.
A term that abstains, or whose ``where`` leaves the row out, adds nothing. A term that failed leaves no
reward at all: a failure must not look like a zero, so the sample drops out of its group.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from align.reward.terms import Term
from align.types import Outcome, SampleScore


def combine(
    terms: Sequence[Term], outcomes: Mapping[str, Outcome], *, prompt_id: str, sample_index: int
) -> SampleScore:
    """The combined score of one sample.

    Args:
        terms: all terms of the run.
        outcomes: by name, one outcome for every term that covers the row.
    """
    ordered = {term.name: outcomes[term.name] for term in terms if term.name in outcomes}
    kinds = {outcome.kind for outcome in ordered.values()}
    total: float | None = None
    if "ok" in kinds and not kinds & {"error", "timeout"}:
        total = math.fsum(
            term.weight * clipped(value, term.clip)
            for term in terms
            if term.name in ordered and (value := ordered[term.name].value) is not None
        )
    return SampleScore(prompt_id=prompt_id, sample_index=sample_index, reward=total, terms=ordered)


def clipped(value: float, limits: tuple[float, float] | None) -> float:
    """``value`` clamped to [low, high]."""
    return value if limits is None else min(max(value, limits[0]), limits[1])
