"""Hand-worked sums; docs/rewards.md has more of them (test_docs_rewards.py)."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
import torch

from align.config.rewards import ConstraintConfig
from align.errors import CheckpointError
from align.reward.bank.combine import Combination, Outcomes, clipped
from align.reward.bank.terms import Term
from align.reward.functions.registry import resolve
from align.types import Outcome

ANY = resolve("exact_answer")


def terms(**settings: dict[str, Any]) -> list[Term]:
    return [Term(name, ANY, **values) for name, values in settings.items()]


def ok(value: float) -> Outcome:
    return Outcome("ok", value)


def one(terms: list[Term], outcomes: Outcomes) -> float | None:
    """The weighted sum of one sample."""
    [[reward]] = Combination(terms).rewards([[outcomes]])
    return reward


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
    assert one(THREE, outcomes) == (None if reward is None else pytest.approx(reward, abs=1e-12))


def test_zero_weight_only_logs() -> None:
    watched = terms(main={}, watch={"weight": 0.0})
    assert one(watched, {"main": ok(0.5), "watch": ok(100)}) == 0.5


def test_clipped() -> None:
    assert [clipped(value, (-1, 2)) for value in (-5, -1, 0, 2, 9)] == [-1, -1, 0, 2, 2]
    assert clipped(9, None) == 9


# Group normalisation


def as_trl(scores: list[list[list[float | None]]], weights: list[float]) -> list[float]:
    """TRL's ``normalize_then_sum`` (GDPO), [groups][samples][terms] → advantages, with population spread."""
    table = torch.tensor(
        [[[math.nan if x is None else x for x in sample] for sample in group] for group in scores]
    )
    mean = table.nanmean(dim=1, keepdim=True)
    spread = ((table - mean) ** 2).nanmean(dim=1, keepdim=True).sqrt()
    normed = (table - mean) / (spread + 1e-4) * torch.tensor(weights)
    return normed.nansum(dim=2).flatten().tolist()


def test_group_norm_equals_the_published_formula_before_its_batch_scaling() -> None:
    random.seed(3)
    names, weights = ["a", "b", "c"], [1.0, 0.5, -2.0]
    scores: list[list[list[float | None]]] = [
        [
            [random.gauss(4, 9), random.random(), None if sample == 2 else float(sample % 2)]
            for sample in range(6)
        ]
        for _ in range(4)
    ]
    bank = Combination(
        terms(**{name: {"weight": weight} for name, weight in zip(names, weights, strict=True)}), "group_norm"
    )
    outcomes = [
        [
            {name: Outcome("abstain") if x is None else ok(x) for name, x in zip(names, sample, strict=True)}
            for sample in group
        ]
        for group in scores
    ]
    rewards = [reward for group in bank.rewards(outcomes) for reward in group]
    assert rewards == pytest.approx(as_trl(scores, weights), abs=1e-5)


def test_group_norm_makes_units_irrelevant_and_a_flat_term_silent() -> None:
    def run(factor: float) -> list[float | None]:
        bank = Combination(terms(a={}, big={}, flat={"weight": 100.0}), "group_norm")
        group = [{"a": ok(a), "big": ok(factor * b), "flat": ok(0.1)} for a, b in [(0, 2), (1, 1), (1, 9)]]
        return bank.rewards([group])[0]

    assert run(1000.0) == pytest.approx(run(10.0), abs=1e-3)


def test_a_failed_sample_moves_no_ones_group_norm() -> None:
    bank = Combination(terms(a={}, b={}), "group_norm")
    clean: list[Outcomes] = [{"a": ok(1), "b": ok(5)}, {"a": ok(0), "b": ok(7)}]
    failed: Outcomes = {"a": ok(1000), "b": Outcome("timeout")}
    assert bank.rewards([[*clean, failed]])[0] == [*bank.rewards([clean])[0], None]


def test_group_norm_of_all_equal_groups_is_zero_and_the_plain_mean_is_logged() -> None:
    bank = Combination(terms(a={"weight": 3.0}, b={}), "group_norm")
    assert bank.rewards([[{"a": ok(0.1), "b": ok(0.3)}] * 3]) == [[0.0] * 3]
    assert bank.end_step() == {"reward/weighted_mean": pytest.approx(0.6)}


# Constraints


def bound(**settings: Any) -> list[Term]:
    return terms(helpful={}, safety={"constraint": ConstraintConfig(**settings)})


def test_multiplier_rises_while_violated_and_falls_to_zero_while_slack() -> None:
    bank = Combination(bound(at_least=0.5, lr=1.0), "constrained")
    seen = []
    for mean in (0.0, 0.25, 0.5, 1.0, 1.0):
        bank.rewards([[{"helpful": ok(1), "safety": ok(mean - 0.1)}, {"safety": ok(mean + 0.1)}]])
        metrics = bank.end_step()
        seen.append(metrics["reward/safety/multiplier"])
    assert seen == pytest.approx([0.0, 0.5, 0.75, 0.75, 0.25])
    assert bank.multipliers["safety"].value == 0.0  # max(0, 0.25 − 0.5)
    assert metrics["reward/safety/slack"] == pytest.approx(0.5)


def test_the_multiplier_finds_the_price_of_safety() -> None:
    """Climbing the bank's own reward finds the maximum of f(p) = −p − (p − ½)² subject to p ≥ 0.7."""

    def sample(p: float) -> Outcomes:
        return {"helpful": ok(-p - (p - 0.5) ** 2), "safety": ok(p)}

    bank = Combination(bound(at_least=0.7, lr=0.05), "constrained")
    p, step = 0.5, 1e-4
    for _ in range(4000):
        [[here, there]] = bank.rewards([[sample(p), sample(p + step)]])
        bank.end_step()
        assert here is not None
        assert there is not None
        p += 0.01 * (there - here) / step
    assert p == pytest.approx(0.7, abs=1e-3)
    assert bank.multipliers["safety"].value == pytest.approx(1.4, abs=1e-2)  # λ = −f'(0.7) = 1 + 2·0.2


def test_a_step_without_the_constrained_term_leaves_its_multiplier() -> None:
    bank = Combination(bound(at_least=0.5, initial=0.3), "constrained")
    assert bank.rewards([[{"helpful": ok(2)}], [{"helpful": ok(1), "safety": Outcome("error")}]]) == [
        [2.0],
        [None],
    ]
    assert "reward/safety/slack" not in bank.end_step()
    assert bank.multipliers["safety"].value == 0.3


def test_all_rounds_of_a_step_are_judged_alike_and_the_step_learns_from_all_of_them() -> None:
    settings = {
        "helpful": {"calibration": "running"},
        "safety": {"constraint": ConstraintConfig(at_least=1.0, lr=1.0)},
    }
    bank, whole = (Combination(terms(**settings), "constrained") for _ in range(2))
    for each in (bank, whole):  # a step before
        each.rewards([[{"helpful": ok(1), "safety": ok(0.5)}, {"helpful": ok(3), "safety": ok(0.5)}]])
        each.end_step()
    first: list[Outcomes] = [{"helpful": ok(5), "safety": ok(0)}, {"helpful": ok(7), "safety": ok(0)}]
    second: list[Outcomes] = [{"helpful": ok(100), "safety": ok(1)}, {"helpful": ok(5), "safety": ok(0)}]
    [[five, _]], [[_, again]] = bank.rewards([first]), bank.rewards([second])
    assert five == again  # 1, 3, 5, 7: (5 − 4)/√5 + 0.5·(0 − 1)
    assert five == pytest.approx(1 / math.sqrt(5) - 0.5)
    assert bank.end_step()["reward/safety/slack"] == pytest.approx(0.25 - 1)
    whole.rewards([[*first, *second]])
    whole.end_step()
    assert bank.multipliers["safety"].value == pytest.approx(whole.multipliers["safety"].value)
    assert bank.running["helpful"].mean == pytest.approx(whole.running["helpful"].mean)
    assert bank.running["helpful"].std == pytest.approx(whole.running["helpful"].std)


# State


def test_state_goes_through_json_and_continues() -> None:
    settings = {
        "helpful": {"calibration": "running"},
        "safety": {"constraint": ConstraintConfig(at_least=1.0)},
    }
    first, second, fresh = (Combination(terms(**settings), "constrained") for _ in range(3))
    steps = [
        [[{"helpful": ok(h), "safety": ok(s)} for h, s in pairs]] for pairs in ([(1, 0), (4, 1)], [(9, 0)])
    ]
    first.rewards(steps[0])
    first.end_step()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.rewards(steps[1]) == first.rewards(steps[1])
    assert second.end_step() == first.end_step()
    assert second.state_dict() == first.state_dict()
    assert fresh.rewards(steps[1]) != first.rewards(steps[1])
    with pytest.raises(CheckpointError, match="other terms"):
        Combination(THREE).load_state_dict(first.state_dict())
