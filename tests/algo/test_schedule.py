from __future__ import annotations

import math

import pytest

from align.algo.schedule import lr_factor
from align.config.optim import OptimConfig


def factors(total: int, **settings: object) -> list[float]:
    optim = OptimConfig.model_validate(settings)
    return [lr_factor(step, total, optim) for step in range(total)]


def test_constant_after_warmup():
    assert factors(6, schedule="constant", warmup_steps=4) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_constant_without_warmup():
    assert factors(3, schedule="constant") == [1.0, 1.0, 1.0]


def test_linear_falls_to_zero_at_the_end():
    assert factors(6, schedule="linear", warmup_steps=2) == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]


def test_linear_floor():
    assert factors(4, schedule="linear", min_lr_ratio=0.2) == pytest.approx([1.0, 0.8, 0.6, 0.4])


def test_cosine_by_hand():
    half = math.sqrt(0.5)
    expected = [1.0, (1 + half) / 2, 0.5, (1 - half) / 2]
    assert factors(4, schedule="cosine") == pytest.approx(expected)


def test_cosine_floor_is_reached_at_the_end():
    optim = OptimConfig(schedule="cosine", min_lr_ratio=0.1)
    assert lr_factor(5, 10, optim) == pytest.approx(0.55)
    assert lr_factor(10, 10, optim) == pytest.approx(0.1)
    assert lr_factor(99, 10, optim) == pytest.approx(0.1)


def test_step_decay_drops_at_60_and_90_percent():
    values = factors(10, schedule="step_decay", warmup_steps=2)
    assert values == pytest.approx([0.5, 1, 1, 1, 1, 1, 0.316, 0.316, 0.316, 0.316**2])


def test_step_decay_of_the_lite_model():
    values = factors(10, schedule="step_decay", decay_at=[0.8, 0.9])
    assert values == pytest.approx([1] * 8 + [0.316, 0.316**2])


def test_step_decay_hits_shares_that_are_not_exact_in_binary():
    optim = OptimConfig(schedule="step_decay", decay_at=[0.7])
    for total in (10, 30, 70, 1000):
        assert lr_factor(total * 7 // 10, total, optim) == pytest.approx(0.316)
        assert lr_factor(total * 7 // 10 - 1, total, optim) == 1.0


def test_a_run_shorter_than_its_warmup_only_rises():
    assert factors(3, schedule="cosine", warmup_steps=6) == pytest.approx([1 / 6, 2 / 6, 3 / 6])


@pytest.mark.parametrize(("step", "total"), [(-1, 5), (0, 0)])
def test_nonsense_is_refused(step: int, total: int):
    with pytest.raises(ValueError, match="no schedule"):
        lr_factor(step, total, OptimConfig())
