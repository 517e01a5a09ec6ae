import math

import pytest

from align.algo.advantage import group_advantages
from align.config.grpo import AdvantageConfig


def test_population_std_by_hand():
    # mean 2, deviations -2 0 0 2, population variance 8/4 = 2
    found = group_advantages([0.0, 2.0, 2.0, 4.0], AdvantageConfig(eps=0.0))
    assert found == pytest.approx([-math.sqrt(2), 0, 0, math.sqrt(2)])


def test_sample_std_by_hand():
    # sample variance 8/3
    found = group_advantages([0.0, 2.0, 2.0, 4.0], AdvantageConfig(eps=0.0, ddof=1))
    assert found == pytest.approx([-2 / math.sqrt(8 / 3), 0, 0, 2 / math.sqrt(8 / 3)])


def test_eps_is_added_to_the_standard_deviation():
    found = group_advantages([0.0, 1.0], AdvantageConfig(eps=0.5))
    assert found == pytest.approx([-0.5, 0.5])  # std 0.5 + eps 0.5


def test_no_scale_is_dr_grpo():
    assert group_advantages([0.0, 1.0, 2.0], AdvantageConfig(scale="none")) == pytest.approx([-1, 0, 1])


def test_leave_one_out_by_hand():
    # baseline of the first is (3 + 6) / 2 = 4.5, and so on
    found = group_advantages([0.0, 3.0, 6.0], AdvantageConfig(baseline="leave_one_out", scale="none"))
    assert found == pytest.approx([-4.5, 0.0, 4.5])


def test_a_failed_sample_is_left_out_of_the_baseline():
    with_failure = group_advantages([0.0, None, 1.0, 1.0], AdvantageConfig())
    without = group_advantages([0.0, 1.0, 1.0], AdvantageConfig())
    assert with_failure[1] is None
    assert [each for each in with_failure if each is not None] == without


def test_a_lone_reward_carries_no_signal():
    assert group_advantages([None, 0.7, None], AdvantageConfig()) == [None, 0.0, None]
    assert group_advantages([None, None], AdvantageConfig()) == [None, None]


def test_equal_rewards_give_exactly_zero():
    # 0.1 + 0.1 + 0.1 is not 0.3, and 1e-17 / eps must not become an advantage
    assert group_advantages([0.1, 0.1, 0.1], AdvantageConfig(eps=0.0)) == [0.0, 0.0, 0.0]


def test_leave_one_out_is_the_group_mean_stretched():
    # RLOO: r - mean of the others = G / (G - 1) * (r - mean of all)
    rewards = [0.3, 1.7, -2.0, 0.9, 0.4]
    own = group_advantages(rewards, AdvantageConfig(baseline="leave_one_out", scale="none"))
    mean = group_advantages(rewards, AdvantageConfig(scale="none"))
    others = [(sum(rewards) - reward) / 4 for reward in rewards]
    assert own == pytest.approx([reward - other for reward, other in zip(rewards, others, strict=True)])
    assert own == pytest.approx([value * 5 / 4 for value in mean if value is not None])
