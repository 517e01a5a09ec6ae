"""A completion put together from what earlier steps began and what the engine added."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from align.rollout.job import Job, joined
from align.types import Completion, Prompt

PROMPT = Prompt("a/0", (), [1, 2])


def output(tokens: list[int], reason: str) -> Any:
    rows = [
        {token: SimpleNamespace(logprob=-token / 4), 99: SimpleNamespace(logprob=0.0)} for token in tokens
    ]
    return SimpleNamespace(token_ids=tuple(tokens), logprobs=rows, finish_reason=reason)


def experts(values: list[int]) -> Any:
    return np.array(values, np.uint8)[:, None, None]


def asked(begun: Completion | None = None, seed: int = 7, limit: int = 6) -> Job:
    return Job(PROMPT, 1, SimpleNamespace(seed=seed), begun, limit)


def test_begun_and_continued() -> None:
    job = asked()
    assert job.fed == [1, 2]
    begun = job.completion(output([3, 4], "length"), 5, str, experts([10, 20, 30]))
    assert begun == Completion("a/0", 1, [3, 4], [-0.75, -1.0], "[3, 4]", "cut", 5, 7)
    assert begun.versions == ((5, 2),)

    job = asked(begun, seed=8)
    assert job.fed == [1, 2, 3, 4]
    # Fed anew: 1 2 3 (now by other experts), 4, 8. The first three keep what they were sampled with.
    whole = job.completion(output([8, 9], "stop"), 6, str, experts([11, 21, 31, 40, 50]))
    assert whole.token_ids == [3, 4, 8, 9]
    assert whole.logprobs == [-0.75, -1.0, -2.0, -2.25]
    assert (whole.text, whole.finish_reason) == ("[3, 4, 8, 9]", "stop")
    assert (whole.weight_version, whole.versions, whole.seed) == (5, ((5, 2), (6, 2)), 7)
    assert whole.routed_experts is not None
    assert whole.routed_experts[:, 0, 0].tolist() == [10, 20, 30, 40, 50]


def test_the_longest_completion_is_not_cut() -> None:
    begun = asked().completion(output([3, 4], "length"), 5, str, None)
    assert asked(begun, limit=3).completion(output([8], "length"), 6, str, None).finish_reason == "length"
    assert asked(begun, limit=4).completion(output([8], "length"), 6, str, None).finish_reason == "cut"


def test_without_a_limit_nothing_is_cut() -> None:
    assert asked(limit=0).completion(output([3], "length"), 5, str, None).finish_reason == "length"


@pytest.mark.parametrize(
    ("spans", "expected"), [(((5, 2),), ((5, 2), (6, 3))), (((5, 2), (6, 1)), ((5, 2), (6, 4)))]
)
def test_a_version_that_goes_on_makes_its_span_longer(spans: Any, expected: Any) -> None:
    assert joined(spans, 6, 3) == expected
