import math

import pytest
import torch

from align.algo.agreement import Agreement, agreement_metrics, quantile, step_agreement
from align.config.grpo import ImportanceConfig
from align.types import TrainBatch


def part(gaps: torch.Tensor, ratios: torch.Tensor) -> Agreement:
    """Weights cut off at 1.5, and rejected above it."""
    above = float((ratios > 1.5).sum())
    return Agreement(gaps, ratios, float(ratios.clamp(max=1.5).sum()), above, above)


def test_quantiles_by_hand():
    values = torch.tensor([4.0, 1.0, 3.0, 2.0])
    # ranks ceil(0.25 * 4) = 1, ceil(0.26 * 4) = 2, ceil(0.5 * 4) = 2, ceil(0.99 * 4) = 4
    assert [quantile(values, share) for share in (0.01, 0.25, 0.26, 0.5, 0.99, 1.0)] == [1, 1, 2, 2, 4, 4]


def test_quantiles_of_a_hundred():
    values = torch.randperm(100, generator=torch.Generator().manual_seed(0)).float() + 1
    assert [quantile(values, share) for share in (0.01, 0.5, 0.99)] == [1, 50, 99]


def test_no_values_is_an_error():
    with pytest.raises(ValueError, match="no values"):
        quantile(torch.tensor([]), 0.5)


def test_metrics_by_hand():
    gaps = torch.tensor([math.log(2), -math.log(2), 0.0, 0.0])
    found = agreement_metrics([part(gaps, gaps.exp())])
    # k3: (2 - 1 - ln 2) + (1/2 - 1 + ln 2) = 1/2, over four tokens
    assert found == pytest.approx(
        {
            "mismatch/logprob_mean": math.log(2) / 2,
            "mismatch/logprob_p99": math.log(2),
            "mismatch/logprob_max": math.log(2),
            "mismatch/kl": 1 / 8,
            "mismatch/weight_p01": 0.5,
            "mismatch/weight_p50": 1.0,
            "mismatch/weight_p99": 2.0,
            "mismatch/weight_mean": (1.5 + 0.5 + 1 + 1) / 4,
            "mismatch/capped_share": 1 / 4,
            "mismatch/rejected": 1,
            "mismatch/rejected_share": 1 / 4,
        }
    )


def test_splitting_changes_nothing():
    generator = torch.Generator().manual_seed(1)
    gaps = torch.randn(500, generator=generator) * 0.1
    ratios = torch.randn(40, generator=generator).exp()
    parts = [
        part(gap, ratio)
        for gap, ratio in zip(gaps.split([3, 197, 300]), ratios.split([1, 9, 30]), strict=True)
    ]
    assert agreement_metrics(parts) == pytest.approx(agreement_metrics([part(gaps, ratios)]))


def test_the_kl_estimate_is_the_kl():
    # tokens drawn from the engine's distribution, counted exactly
    generator = torch.Generator().manual_seed(2)
    rollout = torch.randint(1, 9, (6,), generator=generator)  # counts: its distribution is exact
    trainer = torch.randn(6, generator=generator).log_softmax(0)
    engine = (rollout / rollout.sum()).log()
    gaps = (trainer - engine).repeat_interleave(rollout)
    exact = (engine.exp() * (engine - trainer)).sum()
    assert agreement_metrics([part(gaps, gaps.exp())])["mismatch/kl"] == pytest.approx(exact.item(), rel=1e-5)


def test_a_small_kl_is_not_lost_to_rounding():
    gaps = torch.full((10,), 1e-4)
    found = agreement_metrics([part(gaps, gaps.exp())])["mismatch/kl"]
    assert found == pytest.approx(0.5e-8, rel=1e-2)


def minibatch(old: list[list[float]] | None, rollout: list[list[float]]) -> TrainBatch:
    names, ones = ["p"] * len(rollout), [1.0] * len(rollout)
    return TrainBatch(names, [[1]] * len(rollout), [[1]] * len(rollout), rollout, ones, ones, old)


def test_of_a_step_with_two_minibatches_by_hand():
    # differences 0, ln 4, -ln 2 | 0, 0, 0, 0, ln 3: of eight tokens, not the mean of two minibatches
    first = minibatch([[-1.0, -1.0], [-2.0]], [[-1.0, -1.0 - math.log(4)], [-2.0 + math.log(2)]])
    second = minibatch([[-1.0] * 5], [[-1.0] * 4 + [-1.0 - math.log(3)]])
    found = step_agreement([first, second], ImportanceConfig(cap=2, reject_above=3.5))
    expected = {
        "mismatch/logprob_mean": math.log(4 * 2 * 3) / 8,
        "mismatch/logprob_p99": math.log(4),
        "mismatch/logprob_max": math.log(4),
        "mismatch/kl": ((3 - math.log(4)) + (-0.5 + math.log(2)) + (2 - math.log(3))) / 8,
        "mismatch/weight_p01": 0.5,
        "mismatch/weight_p50": 1.0,
        "mismatch/weight_p99": 4.0,
        "mismatch/weight_mean": (5 * 1 + 0.5 + 2 + 2) / 8,
        "mismatch/capped_share": 2 / 8,
        "mismatch/rejected": 1,
        "mismatch/rejected_share": 1 / 8,
    }
    assert found == pytest.approx(expected, rel=1e-5)


def test_of_a_step_at_sequence_level():
    batches = [minibatch([[0.0, 0.0]], [[-0.5, -0.5]]), minibatch([[0.0]], [[0.0]])]
    found = step_agreement(batches, ImportanceConfig(level="sequence", cap=2))
    assert found["mismatch/weight_p99"] == pytest.approx(math.e)
    assert found["mismatch/weight_mean"] == pytest.approx((2 + 2 + 1) / 3)


def test_a_step_needs_the_old_policy_and_a_token():
    with pytest.raises(ValueError, match="not known"):
        step_agreement([minibatch(None, [[-1.0]])], ImportanceConfig())
    with pytest.raises(ValueError, match="no tokens"):
        step_agreement([], ImportanceConfig())
