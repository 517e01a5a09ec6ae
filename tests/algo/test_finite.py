from __future__ import annotations

import pytest

from align.algo.finite import check_advantages
from align.errors import NonFiniteError
from align.types import Completion, Group, Outcome, Prompt, SampleScore


def group(name: str, rewards: list[float]) -> tuple[Group, list[SampleScore]]:
    completions = [Completion(name, i, [1, 2], [0.0, 0.0], "", "stop", 0, 0) for i in range(len(rewards))]
    scores = [
        SampleScore(name, i, reward, {"right": Outcome("ok", 0.5), "length": Outcome("ok", reward)})
        for i, reward in enumerate(rewards)
    ]
    return Group(Prompt(name, (), [1]), completions), scores


@pytest.mark.parametrize("bad", [1e39, -1e39, float("inf"), float("nan"), [0.0, 1e39]])
def test_the_sample_and_its_largest_term_are_named(bad: float | list[float]) -> None:
    (first, some), (second, others) = group("a/1", [0.0, 1.0]), group("a/2", [1e39, 0.0])
    with pytest.raises(
        NonFiniteError, match=r"step 3: .* sample 0 of prompt a/2 .* 1e\+39, of 'length'"
    ) as caught:
        check_advantages([first, second], some + others, [0.0, None, bad, -1.0], 3)
    assert caught.value.key == "rewards.terms.length"


def test_what_fp32_holds_passes() -> None:
    found, scores = group("a/1", [0.0, 1.0, 2.0])
    check_advantages([found], scores, [3.4e38, None, [0.0, -1.0]], 1)
