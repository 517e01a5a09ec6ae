from __future__ import annotations

import math
from itertools import product

import pytest
import torch

from align.algo.preference import (
    area_under_curve,
    concordance,
    correlation,
    distribution,
    length_bias,
    pair_reliability,
    pointwise_loss,
    reliability,
    share,
    wilson,
    wins,
)


def T(*values: float) -> torch.Tensor:
    return torch.tensor(values)


def test_pointwise_losses_by_hand():
    scores, targets = T(1.0, -2.0), T(0.0, 1.0)
    assert pointwise_loss(scores, targets, "regression").item() == pytest.approx((1 + 9) / 2)
    expected = (math.log1p(math.exp(1)) + math.log1p(math.exp(2))) / 2
    assert pointwise_loss(scores, targets, "binary").item() == pytest.approx(expected)


def test_wilson_interval_of_a_published_example():
    # 81 of 263 (Newcombe 1998, table I, method 3): 0.2553 to 0.3662
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0.0, 20)[0] == 0.0
    assert wilson(1.0, 20)[1] == 1.0


def test_rows_of_prompts_of_their_own_are_independent():
    hits = T(*[1.0] * 81, *[0.0] * 182)
    found = share(hits, torch.arange(263))
    assert found == pytest.approx((81 / 263, *wilson(81 / 263, 263), 263))


def test_repeated_rows_of_a_prompt_do_not_narrow_the_interval():
    """Ten copies of each row say as much as one."""
    hits, groups = T(1, 0, 1, 1, 0, 1), torch.arange(6)
    once, ten = share(hits, groups), share(hits.repeat(10), groups.repeat(10))
    assert ten[:3] == pytest.approx(once[:3])
    assert share(hits.repeat(10), torch.arange(60)).high < ten.high


def test_a_share_without_variance_counts_prompts():
    assert share(torch.ones(50), torch.arange(50) % 5)[1:3] == pytest.approx(wilson(1.0, 5))
    with pytest.raises(ValueError, match="no rows"):
        share(torch.zeros(0), torch.zeros(0))


def test_a_tie_is_half_a_win():
    assert wins(T(2, 1, 0), T(1, 1, 1)).tolist() == [1.0, 0.5, 0.0]


def test_reliability_by_hand():
    predicted, hits = T(0.05, 0.08, 0.95, 1.0), T(0, 1, 1, 1)
    found = reliability(predicted, hits)
    first, last = found.bins
    assert (first.low, first.high, first.rows) == pytest.approx((0.0, 0.1, 2))
    assert (first.predicted, first.observed) == pytest.approx((0.065, 0.5))
    assert (last.rows, last.predicted, last.observed) == pytest.approx((2, 0.975, 1.0))
    assert found.ece == pytest.approx((2 * 0.435 + 2 * 0.025) / 4)


def test_a_calibrated_model_has_little_error_and_a_bold_one_much():
    generator = torch.Generator().manual_seed(0)
    difference = torch.randn(20_000, generator=generator)
    right = torch.rand(20_000, generator=generator) < difference.sigmoid()
    chosen = torch.where(right, difference, -difference)
    assert pair_reliability(chosen, torch.zeros(20_000)).ece < 0.01
    assert pair_reliability(5 * chosen, torch.zeros(20_000)).ece > 0.2


def test_pairs_are_sorted_by_the_likelier_side():
    found = pair_reliability(T(0.0, -3.0), T(0.0, 0.0))
    assert [each.low for each in found.bins] == [0.5, pytest.approx(0.95)]
    assert [each.observed for each in found.bins] == [0.5, 0.0]


def test_correlation():
    a, b = T(1, 2, 3, 5), T(2, 1, 4, 4)
    expected = torch.corrcoef(torch.stack([a, b]))[0, 1].item()
    assert correlation(a, b) == pytest.approx(expected)
    assert correlation(a, torch.ones(4)) == 0.0


def test_length_bias_by_hand():
    chosen, rejected = T(2.0, 0.0, 1.0, 1.0), T(1.0, 1.0, 0.0, 0.5)
    lengths = torch.tensor([[30.0, 10], [10, 20], [5, 15], [100, 95]])
    found = length_bias(chosen, rejected, lengths, torch.arange(4))
    assert found.longer_chosen == 0.5
    assert found.longer_preferred == 0.75  # all but the third
    assert found.equal_length is not None
    assert found.equal_length[::3] == (1.0, 1)
    scores, sizes = torch.cat([chosen, rejected]), torch.cat([lengths[:, 0], lengths[:, 1]])
    assert found.correlation == pytest.approx(correlation(scores, sizes))
    assert found.difference_correlation == pytest.approx(correlation(T(1, -1, 1, 0.5), T(20, -10, -10, 5)))


def test_length_bias_of_a_model_that_counts_tokens():
    lengths = torch.tensor([[10.0, 20], [30, 10], [7, 9], [40, 20], [11, 3]])
    found = length_bias(lengths[:, 0], lengths[:, 1], lengths, torch.arange(5))
    assert (found.correlation, found.difference_correlation) == pytest.approx((1.0, 1.0))
    assert found.longer_preferred == 1.0
    assert found.longer_chosen == pytest.approx(0.6)
    assert found.equal_length is None


def test_concordance_stays_inside_prompts():
    scores, targets, groups = T(1, 2, 5, 4, 9), T(0, 1, 1, 3, 7), torch.tensor([0, 0, 1, 1, 2])
    found = concordance(scores, targets, groups)
    assert found is not None
    assert (found.value, found.rows) == (0.5, 2)
    assert concordance(scores, targets, torch.arange(5)) is None


def test_area_under_curve_is_the_share_of_pairs_in_order():
    generator = torch.Generator().manual_seed(1)
    scores = torch.randint(0, 6, (40,), generator=generator).float()
    targets = torch.randint(0, 2, (40,), generator=generator).float()
    positive, negative = scores[targets == 1].tolist(), scores[targets == 0].tolist()
    hits = [(a > b) + (a == b) / 2 for a, b in product(positive, negative)]
    assert area_under_curve(scores, targets) == pytest.approx(sum(hits) / len(hits))
    assert area_under_curve(scores, torch.ones(40)) == 0.5


def test_distribution():
    found = distribution([float(value) for value in range(101)])
    assert found["count"] == 101
    assert found["mean"] == 50
    assert found["std"] == pytest.approx(math.sqrt((101**2 - 1) / 12))
    expected = {"0.01": 1, "0.05": 5, "0.25": 25, "0.5": 50, "0.75": 75, "0.95": 95, "0.99": 99}
    assert found["quantiles"] == pytest.approx(expected)
