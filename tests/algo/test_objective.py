"""The objective against DeepSeekMath eq. 3 written out as loops."""

import math

import pytest
import torch

from align.algo.objective import MicroBatch, grpo_objective, mean_metrics
from align.algo.reduce import token_weights
from align.config.grpo import GrpoConfig, ImportanceConfig

LENGTHS = [3, 5, 1, 4]


def random_batch(seed: int, *, old: bool = True, ref: bool = True) -> MicroBatch:
    generator = torch.Generator().manual_seed(seed)
    shape = (len(LENGTHS), max(LENGTHS))

    def logprobs() -> torch.Tensor:
        return -torch.rand(shape, generator=generator)

    mask = torch.arange(shape[1])[None] < torch.tensor(LENGTHS)[:, None]
    return MicroBatch(
        logprobs_BT=(logprobs() * mask).requires_grad_(),
        entropy_BT=torch.ones(shape) * mask,
        mask_BT=mask,
        rollout_logprobs_BT=logprobs() * mask,
        old_logprobs_BT=logprobs() * mask if old else None,
        ref_logprobs_BT=logprobs() * mask if ref else None,
        advantages_B=torch.randn(shape[0], generator=generator),
        token_weights_B=torch.tensor(token_weights(LENGTHS, "sequence_mean", 8)),
    )


def by_loops(batch: MicroBatch, config: GrpoConfig) -> float:
    total = 0.0
    for i, length in enumerate(LENGTHS):
        inner = 0.0
        for t in range(length):
            new, roll = batch.logprobs_BT[i, t].item(), batch.rollout_logprobs_BT[i, t].item()
            old = new if batch.old_logprobs_BT is None else batch.old_logprobs_BT[i, t].item()
            ratio, advantage = math.exp(new - old), batch.advantages_B[i].item()
            bounded = min(max(ratio, 1 - config.clip_low), 1 + config.clip_high)
            weight = 1.0
            if config.importance.level == "token":
                weight = min(math.exp(old - roll), config.importance.cap)
            inner += weight * min(ratio * advantage, bounded * advantage)
            if batch.ref_logprobs_BT is not None:
                d = batch.ref_logprobs_BT[i, t].item() - new
                inner -= config.beta * (math.exp(d) - d - 1)
        total += inner / length
    return -total / len(LENGTHS)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("level", ["token", "off"])
def test_equals_the_equation(seed, old, level):
    config = GrpoConfig(importance=ImportanceConfig(level=level, cap=1.2))
    batch = random_batch(seed, old=old)
    loss, _ = grpo_objective(batch, config)
    assert loss.item() == pytest.approx(by_loops(batch, config), rel=1e-5)


def test_splitting_the_batch_changes_neither_loss_nor_gradient():
    config = GrpoConfig()
    whole = random_batch(1)
    grpo_objective(whole, config)[0].backward()
    expected = whole.logprobs_BT.grad
    parts = random_batch(1)
    total = 0.0
    for rows in ([0, 2], [3], [1]):
        part = MicroBatch(*[column[rows] if column is not None else None for column in parts])
        loss, _ = grpo_objective(part, config)
        loss.backward()
        total += loss.item()
    assert total == pytest.approx(grpo_objective(whole, config)[0].item(), rel=1e-6)
    torch.testing.assert_close(parts.logprobs_BT.grad, expected)


def test_on_policy_gradient_coefficient_is_that_of_the_paper():
    # DeepSeekMath: with one update per batch the coefficient is A + beta * (pi_ref / pi - 1)
    config = GrpoConfig(importance=ImportanceConfig(level="off"))
    batch = random_batch(2, old=False)
    grpo_objective(batch, config)[0].backward()
    assert batch.logprobs_BT.grad is not None
    assert batch.ref_logprobs_BT is not None
    ratio = (batch.ref_logprobs_BT - batch.logprobs_BT.detach()).exp()
    coefficient = batch.advantages_B[:, None] + config.beta * (ratio - 1)
    expected = -coefficient * batch.token_weights_B[:, None] * batch.mask_BT
    torch.testing.assert_close(batch.logprobs_BT.grad, expected)


def test_sequence_form_as_printed():
    config = GrpoConfig(level="sequence", importance=ImportanceConfig(level="off"))
    batch = random_batch(3)
    loss, _ = grpo_objective(batch, config)
    expected = 0.0
    assert batch.old_logprobs_BT is not None
    assert batch.ref_logprobs_BT is not None
    for i, length in enumerate(LENGTHS):
        new, old, ref = (
            column[i, :length].sum().item()
            for column in (batch.logprobs_BT, batch.old_logprobs_BT, batch.ref_logprobs_BT)
        )
        ratio, advantage = math.exp(new - old), batch.advantages_B[i].item()
        kl = math.exp(ref - new) - (ref - new) - 1
        expected -= min(ratio * advantage, min(max(ratio, 0.8), 1.2) * advantage) - config.beta * kl
    assert loss.item() == pytest.approx(expected / len(LENGTHS), rel=1e-5)


def test_metrics_are_token_means():
    batch = random_batch(4)
    _, stats = grpo_objective(batch, GrpoConfig())
    metrics = mean_metrics([stats])
    assert batch.old_logprobs_BT is not None
    gap = (batch.old_logprobs_BT - batch.rollout_logprobs_BT).abs()
    assert metrics["train/entropy"] == pytest.approx(1.0)
    assert metrics["mismatch/logprob_mean"] == pytest.approx(gap.sum().item() / sum(LENGTHS), rel=1e-5)
    assert metrics["mismatch/logprob_max"] == pytest.approx(gap.max().item(), rel=1e-5)


def test_metrics_do_not_depend_on_the_split():
    config = GrpoConfig(importance=ImportanceConfig(level="sequence", cap=1.1, reject_above=1.5))
    batch = random_batch(5)
    whole = mean_metrics([grpo_objective(batch, config)[1]])
    stats = []
    for rows in ([3, 0], [1], [2]):
        part = MicroBatch(*[column[rows] if column is not None else None for column in batch])
        stats.append(grpo_objective(part, config)[1])
    assert mean_metrics(stats) == pytest.approx(whole, rel=1e-5)


def test_rejected_tokens_leave_the_loss_and_are_counted():
    batch = random_batch(6)
    assert batch.old_logprobs_BT is not None
    ratio = (batch.old_logprobs_BT - batch.rollout_logprobs_BT).exp()
    bound = float(ratio[batch.mask_BT].sort().values[-3])  # two of the 13 tokens lie above
    config = GrpoConfig(importance=ImportanceConfig(cap=bound, reject_above=bound))
    loss, stats = grpo_objective(batch, config)
    loss.backward()
    rejected = (ratio > bound) & batch.mask_BT
    assert batch.logprobs_BT.grad is not None
    assert (batch.logprobs_BT.grad[rejected] == 0).all()
    metrics = mean_metrics([stats])
    assert metrics["mismatch/rejected"] == 2
    assert metrics["mismatch/rejected_share"] == pytest.approx(2 / 13)
    # the others are weighed as before: denominators stand before any rejection
    plain = random_batch(6)
    grpo_objective(plain, GrpoConfig(importance=ImportanceConfig(cap=bound)))[0].backward()
    assert plain.logprobs_BT.grad is not None
    assert torch.equal(batch.logprobs_BT.grad[~rejected], plain.logprobs_BT.grad[~rejected])
