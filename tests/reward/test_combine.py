"""Hand-worked sums."""

from __future__ import annotations

from typing import Any

import pytest

from align.reward.combine import clipped, combine
from align.reward.registry import resolve
from align.reward.terms import Term
from align.types import Outcome

ANY = resolve("exact_answer")


def terms(**settings: dict[str, Any]) -> list[Term]:
    return [Term(name, ANY, **values) for name, values in settings.items()]


def ok(value: float) -> Outcome:
    return Outcome("ok", value)


THREE = terms(helpful={"weight": 0.5}, safety={"weight": 2.0, "clip": (-1.0, 1.0)}, rule={"weight": -0.1})


@pytest.mark.parametrize(
    ("outcomes", "reward"),
    [
        # 0.5·4 + 2·0.25 − 0.1·3
        ({"helpful": ok(4), "safety": ok(0.25), "rule": ok(3)}, 2.2),
        # clip: 2·1, 2·(−1)
        ({"helpful": ok(4), "safety": ok(7), "rule": ok(0)}, 4.0),
        ({"helpful": ok(4), "safety": ok(-7), "rule": ok(0)}, 0.0),
        # an abstention adds nothing, nor does a term that does not cover the row
        ({"helpful": ok(4), "safety": Outcome("abstain"), "rule": ok(3)}, 1.7),
        ({"helpful": ok(4)}, 2.0),
        # no score at all
        ({name: Outcome("abstain") for name in ("helpful", "safety", "rule")}, None),
        ({}, None),
        # a failure is no number, whatever the others say
        ({"helpful": ok(4), "safety": ok(0.25), "rule": Outcome("error", detail="x")}, None),
        ({"helpful": ok(4), "safety": Outcome("timeout"), "rule": ok(3)}, None),
        # a score of zero is a score
        ({"helpful": ok(0), "safety": Outcome("abstain")}, 0.0),
    ],
)
def test_weighted_sum(outcomes: dict[str, Outcome], reward: float | None) -> None:
    score = combine(THREE, outcomes, prompt_id="p/1", sample_index=3)
    assert score.reward == (None if reward is None else pytest.approx(reward, abs=1e-12))
    assert (score.prompt_id, score.sample_index) == ("p/1", 3)
    assert score.terms == outcomes


def test_raw_scores_stay_unclipped_and_in_the_order_of_the_recipe() -> None:
    score = combine(THREE, {"rule": ok(1), "safety": ok(9), "helpful": ok(2)}, prompt_id="p", sample_index=0)
    assert list(score.terms) == ["helpful", "safety", "rule"]
    assert score.terms["safety"].value == 9


def test_zero_weight_only_logs() -> None:
    watched = terms(main={}, watch={"weight": 0.0})
    score = combine(watched, {"main": ok(0.5), "watch": ok(100)}, prompt_id="p", sample_index=0)
    assert score.reward == 0.5
    assert score.terms["watch"].value == 100


def test_clipped() -> None:
    assert [clipped(value, (-1, 2)) for value in (-5, -1, 0, 2, 9)] == [-1, -1, 0, 2, 2]
    assert clipped(9, None) == 9
