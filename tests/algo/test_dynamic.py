import random

import pytest

from align.algo.advantage import group_advantages
from align.algo.dynamic import has_signal, refill
from align.config.grpo import AdvantageConfig, DynamicSamplingConfig

CONFIG = DynamicSamplingConfig(max_rounds=4)


@pytest.mark.parametrize(
    ("rewards", "signal"),
    [
        ([1.0, 1.0, 1.0], False),  # all right
        ([0.0, 0.0, 0.0], False),  # all wrong
        ([0.1, 0.1, 0.1], False),
        ([0.0, 1.0, 0.0], True),
        ([None, 1.0, 1.0], False),
        ([None, 1.0, 0.0], True),
        ([None, None, 1.0], False),  # nothing to compare with
        ([None, None, None], False),
    ],
)
@pytest.mark.parametrize("scale", ["std", "none"])
def test_groups_with_a_signal(rewards, signal, scale):
    assert has_signal(group_advantages(rewards, AdvantageConfig(scale=scale))) is signal


def test_tokens_with_a_signal():
    assert has_signal([[0.0, 0.5], None])
    assert not has_signal([[0.0, 0.0], None, []])


def test_the_first_round_draws_a_full_step():
    assert refill(8, 0, 0, 0, CONFIG) == 8
    assert refill(8, 0, 0, 0, None) == 8


def test_refill_by_hand():
    # 6 of 8 kept: share (6 + 1) / (8 + 2) = 0.7, and 2 / 0.7 = 2.9
    assert refill(8, 6, 8, 1, CONFIG) == 3
    # 6 of 16 kept: share 7 / 18, and 2 * 18 / 7 = 5.1
    assert refill(8, 6, 16, 2, CONFIG) == 6
    # 2 of 16 kept: share 3 / 18, and 6 / (1/6) = 36, but no round is larger than the step
    assert refill(8, 2, 16, 2, CONFIG) == 8
    assert refill(8, 0, 8, 1, CONFIG) == 8


def test_it_ends():
    assert refill(8, 8, 8, 1, CONFIG) == 0
    assert refill(8, 9, 12, 2, CONFIG) == 0
    assert refill(8, 5, 32, 4, CONFIG) == 0
    assert refill(8, 0, 8, 1, None) == 0


@pytest.mark.parametrize("share", [0.9, 0.5, 0.3])
def test_two_more_rounds_usually_fill_a_step(share):
    choice, full = random.Random(0), 0
    for _ in range(500):
        kept = seen = rounds = 0
        while count := refill(32, kept, seen, rounds, DynamicSamplingConfig(max_rounds=8)):
            kept += sum(choice.random() < share for _ in range(count))
            seen, rounds = seen + count, rounds + 1
        full += kept >= 32 and rounds <= 1 + 2 / share
        assert rounds <= 8
        assert seen <= 8 * 32
    assert full > 450
