import statistics

import pytest

from align.algo.process import process_advantages
from align.config.grpo import AdvantageConfig

PLAIN = AdvantageConfig(supervision="process", eps=0.0)


def test_by_hand():
    # rewards 0 2 | 1 | 1: mean 1, population deviation sqrt(1/2)
    unit = 2**0.5
    found = process_advantages([[(2, 0.0), (3, 2.0)], [(2, 1.0)], [(1, 1.0)]], [4, 2, 2], PLAIN)
    # the first two tokens see both steps, the third the second one, the fourth none
    assert found[0] == pytest.approx([0.0, 0.0, unit, 0.0])
    assert found[1] == pytest.approx([0.0, 0.0])
    assert found[2] == pytest.approx([0.0, 0.0])


def test_one_step_at_the_end_is_outcome_supervision():
    found = process_advantages([[(3, 0.0)], [(2, 1.0)]], [3, 2], PLAIN)
    assert found == [pytest.approx([-1.0] * 3), pytest.approx([1.0] * 2)]


def brute_force(steps, lengths, config):
    rewards = [reward for each in steps if each is not None for _, reward in each]
    mean = statistics.fmean(rewards)
    spread = statistics.pstdev(rewards) if config.ddof == 0 else statistics.stdev(rewards)
    scale = spread + config.eps if config.scale == "std" else 1.0
    return [
        None
        if each is None
        else [sum((r - mean) / scale for end, r in each if end >= t) for t in range(1, length + 1)]
        for each, length in zip(steps, lengths, strict=True)
    ]


@pytest.mark.parametrize(
    "config",
    [
        AdvantageConfig(supervision="process"),
        AdvantageConfig(supervision="process", ddof=1),
        AdvantageConfig(supervision="process", scale="none"),
    ],
)
def test_equals_the_formula(config):
    steps = [[(2, 0.3), (7, 0.9), (4, -1.0)], None, [], [(1, 0.5), (1, 0.25)], [(9, 2.0)]]
    lengths = [8, 5, 3, 4, 9]
    found, expected = process_advantages(steps, lengths, config), brute_force(steps, lengths, config)
    assert [each is None for each in found] == [False, True, False, False, False]
    for one, other in zip(found, expected, strict=True):
        assert one == (None if other is None else pytest.approx(other, abs=1e-9))


def test_equal_rewards_and_a_lone_step_give_exactly_zero():
    assert process_advantages([[(1, 0.1), (2, 0.1)], [(1, 0.1)]], [2, 1], PLAIN) == [[0.0, 0.0], [0.0]]
    assert process_advantages([[(1, 5.0)], None], [2, 2], PLAIN) == [[0.0, 0.0], None]


@pytest.mark.parametrize("end", [0, 4])
def test_a_step_outside_its_completion_is_an_error(end):
    with pytest.raises(ValueError, match="ends after"):
        process_advantages([[(end, 1.0)], [(1, 0.0)]], [3, 3], PLAIN)
