"""Every variant against a plain implementation: loops over scalars, gradients by autograd, fp32."""

from __future__ import annotations

import itertools

import pytest
import torch

from align.algo.objective import MicroBatch, grpo_objective
from align.algo.reduce import token_weights
from align.config.grpo import GrpoConfig, ImportanceConfig

LENGTHS, LONGEST = [3, 5, 1, 4], 8
LOSSES = {
    "clip": {"clip_low": 0.2, "clip_high": 0.28},
    "sequence": {"level": "sequence"},
    "gspo": {"policy_loss": "gspo", "clip_low": 0.05, "clip_high": 0.08},
    "gspo_token": {"policy_loss": "gspo_token", "clip_low": 0.05, "clip_high": 0.08},
    "cispo": {"policy_loss": "cispo", "clip_low": 1.0, "clip_high": 0.3},
}
CORRECTIONS = [
    ImportanceConfig(level="off"),
    ImportanceConfig(level="token", cap=1.2),
    ImportanceConfig(level="token", cap=1.2, reject_above=1.4, reject_below=0.7),
    ImportanceConfig(level="sequence", cap=1.2),
    ImportanceConfig(level="sequence", cap=1.2, reject_above=1.3, reject_below=0.6),
]
ONE_RATIO = {"sequence", "gspo"}
"""Losses that weights of tokens do not correct."""


def correction(loss: str, rejecting: bool) -> ImportanceConfig:
    return CORRECTIONS[(4 if rejecting else 3) if loss in ONE_RATIO else (2 if rejecting else 1)]


def batch_of(seed: int, reduction: str, *, old: bool, per_token: bool) -> MicroBatch:
    generator = torch.Generator().manual_seed(seed)
    shape = (len(LENGTHS), max(LENGTHS))
    mask = torch.arange(shape[1])[None] < torch.tensor(LENGTHS)[:, None]

    def near(centre: torch.Tensor) -> torch.Tensor:
        return (centre + 0.3 * torch.randn(shape, generator=generator)) * mask

    centre = -torch.rand(shape, generator=generator) - 1
    return MicroBatch(
        logprobs_BT=near(centre).requires_grad_(),
        entropy_BT=torch.zeros(shape),
        mask_BT=mask,
        rollout_logprobs_BT=near(centre),
        old_logprobs_BT=near(centre) if old else None,
        ref_logprobs_BT=near(centre),
        advantages_B=torch.randn(shape[0], generator=generator),
        token_weights_B=torch.tensor(token_weights(LENGTHS, reduction, LONGEST)),
        token_advantages_BT=torch.randn(shape, generator=generator) * mask if per_token else None,
    )


def clamp(value, low, high):
    return torch.minimum(torch.maximum(value, torch.tensor(low)), torch.tensor(high))


def plain_loss(batch: MicroBatch, config: GrpoConfig) -> torch.Tensor:
    """The formulas of docs/algorithms.md, token by token."""
    total = torch.tensor(0.0)
    low, high = 1 - config.clip_low, 1 + config.clip_high
    for i, length in enumerate(LENGTHS):
        new = [batch.logprobs_BT[i, t] for t in range(length)]
        roll = [batch.rollout_logprobs_BT[i, t] for t in range(length)]
        ref = [batch.ref_logprobs_BT[i, t] for t in range(length)]
        old = [x.detach() for x in new]
        if batch.old_logprobs_BT is not None:
            old = [batch.old_logprobs_BT[i, t] for t in range(length)]
        weight = {
            "sequence_mean": 1 / (len(LENGTHS) * length),
            "token_mean": 1 / sum(LENGTHS),
            "max_length": 1 / (len(LENGTHS) * LONGEST),
        }[config.reduction]
        for t in range(length):
            advantage = batch.advantages_B[i]
            if batch.token_advantages_BT is not None:
                advantage = batch.token_advantages_BT[i, t]
            mean = sum(n - o for n, o in zip(new, old, strict=True)) / length
            if config.policy_loss == "cispo":
                gain = clamp(torch.exp(new[t] - old[t]), low, high).detach() * advantage * new[t]
            else:
                if config.level == "sequence":
                    ratio = torch.exp(mean * length)
                elif config.policy_loss == "gspo":
                    ratio = torch.exp(mean)
                elif config.policy_loss == "gspo_token":
                    ratio = torch.exp(mean).detach() * torch.exp(new[t] - new[t].detach())
                else:
                    ratio = torch.exp(new[t] - old[t])
                gain = torch.minimum(ratio * advantage, clamp(ratio, low, high) * advantage)
            trust = torch.tensor(1.0)
            if config.importance.level == "token":
                trust = torch.exp(old[t] - roll[t]).detach()
            if config.importance.level == "sequence":
                trust = torch.exp(sum(old) - sum(roll)).detach()
            above, below = config.importance.reject_above, config.importance.reject_below
            if (above is not None and trust > above) or (below is not None and trust < below):
                continue
            if config.importance.level != "off":
                trust = trust.clamp(max=config.importance.cap)
            d = sum(ref) - sum(new) if config.level == "sequence" else ref[t] - new[t]
            kl = {"k1": -d, "k2": d**2 / 2, "k3": torch.exp(d) - d - 1}[config.kl]
            total = total - weight * (trust * gain - config.beta * kl)
    return total


def check(config: GrpoConfig, seed: int, *, old: bool, per_token: bool) -> None:
    fast = batch_of(seed, config.reduction, old=old, per_token=per_token)
    slow = batch_of(seed, config.reduction, old=old, per_token=per_token)
    loss, _ = grpo_objective(fast, config)
    expected = plain_loss(slow, config)
    loss.backward()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)
    assert slow.logprobs_BT.grad is not None
    assert slow.logprobs_BT.grad.abs().sum() > 0
    torch.testing.assert_close(fast.logprobs_BT.grad, slow.logprobs_BT.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "importance"),
    [
        pytest.param(loss, each, id=f"{loss}-{each.level}-{each.reject_above}")
        for loss, each in itertools.product(LOSSES, CORRECTIONS)
        if loss not in ONE_RATIO or each.level != "token"
    ],
)
@pytest.mark.parametrize("old", [True, False], ids=["off-policy", "on-policy"])
def test_losses_and_corrections(loss, importance, old):
    for seed in range(3):
        check(GrpoConfig(**LOSSES[loss], importance=importance), seed, old=old, per_token=False)


@pytest.mark.parametrize("loss", ["clip", "gspo_token", "cispo"])
@pytest.mark.parametrize("reduction", ["sequence_mean", "token_mean", "max_length"])
@pytest.mark.parametrize("per_token", [True, False], ids=["process", "outcome"])
def test_reductions_and_supervision(loss, reduction, per_token):
    check(GrpoConfig(**LOSSES[loss], reduction=reduction), 7, old=True, per_token=per_token)


@pytest.mark.parametrize(("loss", "kl"), itertools.product(LOSSES, ["k1", "k2", "k3"]))
def test_kl_estimators(loss, kl):
    config = GrpoConfig(**LOSSES[loss], kl=kl, beta=0.5, importance=correction(loss, rejecting=False))
    check(config, 11, old=True, per_token=False)


def test_the_samples_do_reach_the_clips_and_the_rejections():
    """Otherwise the comparisons above would show little."""
    for loss in LOSSES:
        batch = batch_of(0, "sequence_mean", old=True, per_token=False)
        stats = grpo_objective(batch, GrpoConfig(**LOSSES[loss], importance=correction(loss, True)))[1]
        assert 0 < stats.sums["clipped"] < sum(LENGTHS), loss
        assert 0 < stats.agreement.rejected < sum(LENGTHS)


def test_rloo_with_k2_in_the_loss_is_the_kl_in_the_reward():
    """docs/algorithms.md: on-policy, REINFORCE of r − β·log(π/π_ref) of whole completions."""
    config = GrpoConfig(
        level="sequence",
        kl="k2",
        beta=0.1,
        importance=ImportanceConfig(level="off"),
        reduction="sequence_mean",
    )
    fast = batch_of(3, "sequence_mean", old=False, per_token=False)
    grpo_objective(fast, config)[0].backward()
    slow = batch_of(3, "sequence_mean", old=False, per_token=False)
    total = torch.tensor(0.0)
    for i, length in enumerate(LENGTHS):
        logprob, ref = slow.logprobs_BT[i, :length].sum(), slow.ref_logprobs_BT[i, :length].sum()
        reward = slow.advantages_B[i] - config.beta * (logprob - ref).detach()
        total = total - reward * logprob / len(LENGTHS)
    total.backward()
    torch.testing.assert_close(fast.logprobs_BT.grad, slow.logprobs_BT.grad, rtol=1e-5, atol=1e-6)
