"""The whole GRPO objective of one micro-batch: pure, tensors in, loss and sums out."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from align.algo.importance import importance_weights
from align.algo.kl import kl_estimate
from align.algo.policy_loss import clipped_policy_loss
from align.config.grpo import GrpoConfig


class MicroBatch(NamedTuple):
    """B padded completions of at most T tokens; all fp32 except the mask."""

    logprobs_BT: Tensor
    """log π_θ, with gradient."""
    entropy_BT: Tensor
    """Entropy of the policy at each token, nats."""
    mask_BT: Tensor
    """bool, True at real tokens."""
    rollout_logprobs_BT: Tensor
    """As the engine sampled them."""
    old_logprobs_BT: Tensor | None
    """Before this step's first update; None when the update is on-policy."""
    ref_logprobs_BT: Tensor | None
    """Under the reference; None when β = 0."""
    advantages_B: Tensor
    token_weights_B: Tensor
    """Weight of each token of a sequence, from the whole batch (``algo.reduce``)."""


def grpo_objective(batch: MicroBatch, config: GrpoConfig) -> tuple[Tensor, dict[str, float]]:
    """Σ_i w_i Σ_t [ c_it · clipped_it + β · KL_it ]: the negated objective, to be minimised.

    c is the truncated importance weight between engine and trainer. On-policy, π_old is the
    policy itself, so the ratio is 1 with the right gradient.

    Returns:
        (loss, sums): a scalar, and plain sums over tokens that add up across micro-batches and
        become metrics in :func:`mean_metrics`.
    """
    mask = batch.mask_BT
    weights = batch.token_weights_B[:, None] * mask
    old = batch.logprobs_BT.detach() if batch.old_logprobs_BT is None else batch.old_logprobs_BT
    policy_loss, clipped = clipped_policy_loss(
        batch.logprobs_BT,
        old,
        batch.advantages_B,
        mask,
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        level=config.level,
    )
    correction = importance_weights(old, batch.rollout_logprobs_BT, mask, config.importance)
    loss = (weights * correction * policy_loss).sum()
    kl_sum = 0.0
    if batch.ref_logprobs_BT is not None:
        kl = _kl(batch.logprobs_BT, batch.ref_logprobs_BT, mask, config)
        loss = loss + config.beta * (weights * kl).sum()
        kl_sum = float((kl * mask).sum().detach())

    gap = ((old - batch.rollout_logprobs_BT).abs() * mask).detach()
    sums = {
        "tokens": float(mask.sum()),
        "loss": float(loss.detach()),
        "kl": kl_sum,
        "clipped": float(clipped.sum()),
        "entropy": float((batch.entropy_BT * mask).sum()),
        "gap": float(gap.sum()),
        "gap_max": float(gap.max()),
        "weight": float((correction * mask).sum()),
        "capped": float(((correction >= config.importance.cap) & mask).sum()),
    }
    return loss, sums


def _kl(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, config: GrpoConfig) -> Tensor:
    if config.level == "token":
        return kl_estimate(logprobs, ref_logprobs, config.kl)
    # As printed in the DeepSeek-V2 report: the ratio inside the estimator is that of completions.
    whole = kl_estimate((logprobs * mask).sum(-1), (ref_logprobs * mask).sum(-1), config.kl)
    return whole[:, None].expand_as(logprobs)


def mean_metrics(sums: list[dict[str, float]]) -> dict[str, float]:
    """Metrics of one optimiser step from the sums of its micro-batches."""
    total = {name: sum(each[name] for each in sums) for name in sums[0]}
    tokens = total["tokens"]
    return {
        "train/loss": total["loss"],
        "train/kl": total["kl"] / tokens,
        "train/clip_share": total["clipped"] / tokens,
        "train/entropy": total["entropy"] / tokens,
        "mismatch/logprob_mean": total["gap"] / tokens,
        "mismatch/logprob_max": max(each["gap_max"] for each in sums),
        "mismatch/weight_mean": total["weight"] / tokens,
        "mismatch/capped_share": total["capped"] / tokens,
    }
