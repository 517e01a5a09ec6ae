"""From what the rewards said of a completion's steps to the advantages of its tokens."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

from align.algo.process import Step, process_advantages
from align.config.grpo import AdvantageConfig
from align.types import Group, SampleScore

Decode = Callable[[Sequence[int]], str]
"""Tokens to text without special tokens, as ``Completion.text`` was made."""


def token_advantages(
    groups: Sequence[Group],
    scores: Sequence[SampleScore],
    weights: Mapping[str, float],
    config: AdvantageConfig,
    decode: Decode,
) -> list[list[float] | None]:
    """Advantages of every token, per completion in (prompt, sample) order; None for a sample left out.

    Scores are matched by (prompt id, sample index), never by position.

    Args:
        groups: the step's groups.
        scores: of all their completions.
        weights: of the reward terms, by name.
        config: ``grpo.advantage``.
        decode: see :data:`Decode`.

    Raises:
        KeyError: a completion has no score.
    """
    known = {(score.prompt_id, score.sample_index): score for score in scores}
    found: list[list[float] | None] = []
    for group in groups:
        steps = [
            completion_steps(known[each.prompt_id, each.sample_index], each.token_ids, weights, decode)
            for each in group.completions
        ]
        found += process_advantages(steps, [len(each.token_ids) for each in group.completions], config)
    return found


def mean_advantages(advantages: Sequence[float | list[float] | None]) -> list[float | None]:
    """One figure per completion, for reports: the mean over its tokens where each has its own."""
    return [math.fsum(each) / len(each) if isinstance(each, list) else each for each in advantages]


def completion_steps(
    score: SampleScore, token_ids: Sequence[int], weights: Mapping[str, float], decode: Decode
) -> list[Step] | None:
    """The steps of one completion from all terms, each reward times its term's weight.

    What the terms without steps add to the combined reward counts as one more step, which ends
    with the completion. None for a sample without a reward or without tokens.
    """
    if score.reward is None or not token_ids:
        return None
    steps: list[Step] = []
    rest, others = score.reward, False
    for name, outcome in score.terms.items():
        if outcome.value is None:
            continue
        if not outcome.steps:
            others = True
            continue
        ends = token_ends(token_ids, [end for end, _ in outcome.steps], decode)
        steps += [(end, weights[name] * reward) for end, (_, reward) in zip(ends, outcome.steps, strict=True)]
        rest -= weights[name] * outcome.value
    return [*steps, (len(token_ids), rest)] if others else steps


def token_ends(token_ids: Sequence[int], ends: Sequence[int], decode: Decode) -> list[int]:
    """Ends of steps counted in characters, as counts of tokens: the first tokens that spell so much.

    A step that ends with the text ends with the last token, so that the end-of-sequence token,
    which spells nothing, belongs to it.

    Args:
        token_ids: [T] ints, at least one.
        ends: characters of the decoded completion up to each step's end.
        decode: called O(log T) times a step.
    """
    whole = len(decode(token_ids))

    def spelled(count: int) -> int:
        # A character of several tokens decodes to the replacement character until it is whole.
        return len(decode(token_ids[:count]).rstrip("\ufffd"))

    counts = range(1, len(token_ids))
    return [len(token_ids) if end >= whole else bisect_left(counts, end, key=spelled) + 1 for end in ends]
