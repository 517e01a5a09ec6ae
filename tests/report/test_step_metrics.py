import math

import pytest

from align.report.metrics import step_metrics
from align.types import StepStats


def test_every_metric_by_hand(make_step):
    expected = {
        "train/loss": 0.25,
        "train/kl": 0.01,
        "reward/mean": 1.0,  # (1 + 0 + 2) / 3, the failed sample left out
        "reward/std": math.sqrt(2 / 3),  # population: (0 + 1 + 1) / 3
        "reward/exact/mean": 1.0,
        "reward/exact/std": math.sqrt(2 / 3),
        "reward/form/mean": 0.5,  # (0.5 + 0 + 1) / 3
        "reward/form/std": math.sqrt(1 / 6),  # (0 + 1/4 + 1/4) / 3
        "reward/form.open/mean": 2 / 3,
        "reward/form.open/std": math.sqrt(2) / 3,
        "reward/left_out_share": 0.25,
        "group/zero_spread_share": 0.5,  # group b: one reward left, nothing to compare it with
        "outcome/abstain_share": 1 / 8,
        "outcome/error_share": 0.0,
        "outcome/timeout_share": 1 / 8,
        "completion/tokens_mean": 5.0,  # (2 + 4 + 6 + 8) / 4
        "completion/tokens_max": 8.0,
        "completion/truncated_share": 0.25,
        "tokens/completion": 20.0,
        "tokens/prompt": 16.0,  # 2 × 5 + 2 × 3
        "tokens/per_second": 4.0,  # 20 / (4 + 1)
        "tokens/rollout_per_second": 5.0,
        "time/rollout": 4.0,
        "time/update": 1.0,
        "time/step": 5.0,
    }
    assert step_metrics(make_step()) == pytest.approx(expected)


def test_equal_rewards_have_no_spread_and_a_difference_has(make_step):
    stats = make_step()
    stats.scores = [
        type(score)(score.prompt_id, score.sample_index, reward, {})
        for score, reward in zip(stats.scores, [0.5, 0.5, 0.5, 0.6], strict=True)
    ]
    assert step_metrics(stats)["group/zero_spread_share"] == 0.5


def test_a_step_where_everything_failed_has_no_reward(make_step):
    stats = make_step()
    stats.scores = [type(score)(score.prompt_id, score.sample_index, None, {}) for score in stats.scores]
    metrics = step_metrics(stats)
    assert "reward/mean" not in metrics
    assert metrics["reward/left_out_share"] == 1.0
    assert metrics["group/zero_spread_share"] == 1.0


def test_supervised_steps_have_their_own_metrics_and_times_only():
    stats = StepStats(3, {"train/loss": 2.0}, {"update": 0.5}, [], [], [])
    assert step_metrics(stats) == {"train/loss": 2.0, "time/update": 0.5, "time/step": 0.5}
