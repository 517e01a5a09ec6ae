"""The whole GRPO objective of one micro-batch: pure, tensors in, loss and sums out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from align.algo.agreement import Agreement, agreement, agreement_metrics
from align.algo.importance import importance_weights
from align.algo.kl import kl_estimate
from align.algo.policy_loss import policy_loss
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
    token_advantages_BT: Tensor | None = None
    """Under process supervision, in place of ``advantages_B``; 0 outside the mask."""


class MicroBatchStats(NamedTuple):
    """What :func:`mean_metrics` needs of one micro-batch."""

    sums: dict[str, float]
    """Plain sums over tokens, which add up across micro-batches."""
    agreement: Agreement


def grpo_objective(batch: MicroBatch, config: GrpoConfig) -> tuple[Tensor, MicroBatchStats]:
    """Σ_i w_i Σ_t m_it [ c_it · policy_it + β · KL_it ]: the negated objective, to be minimised.

    c is the truncated importance weight between engine and trainer, m is 0 where it was rejected
    and else 1. A rejected token still counts in the weights w. On-policy, π_old is the policy
    itself, so the ratio is 1 with the right gradient.

    Returns:
        (loss, stats): a scalar, and what becomes metrics in :func:`mean_metrics`.
    """
    mask = batch.mask_BT
    old = batch.logprobs_BT.detach() if batch.old_logprobs_BT is None else batch.old_logprobs_BT
    advantages = batch.token_advantages_BT
    if advantages is None:
        advantages = batch.advantages_B[:, None]
    token_loss, clipped = policy_loss(batch.logprobs_BT, old, advantages, mask, config)
    correction = importance_weights(old, batch.rollout_logprobs_BT, mask, config.importance)
    weights = batch.token_weights_B[:, None] * correction.kept_BT
    loss = (weights * correction.weight_BT * token_loss).sum()
    kl_sum = 0.0
    if batch.ref_logprobs_BT is not None:
        kl = _kl(batch.logprobs_BT, batch.ref_logprobs_BT, mask, config)
        loss = loss + config.beta * (weights * kl).sum()
        kl_sum = float((kl * mask).sum().detach())

    sums = {
        "tokens": float(mask.sum()),
        "loss": float(loss.detach()),
        "kl": kl_sum,
        "clipped": float(clipped.sum()),
        "entropy": float((batch.entropy_BT * mask).sum()),
    }
    compared = agreement(old, batch.rollout_logprobs_BT, mask, correction, config.importance)
    return loss, MicroBatchStats(sums, compared)


def _kl(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, config: GrpoConfig) -> Tensor:
    if config.level == "token":
        return kl_estimate(logprobs, ref_logprobs, config.kl)
    # As printed in the DeepSeek-V2 report: the ratio inside the estimator is that of completions.
    whole = kl_estimate((logprobs * mask).sum(-1), (ref_logprobs * mask).sum(-1), config.kl)
    return whole[:, None].expand_as(logprobs)


def mean_metrics(stats: Sequence[MicroBatchStats]) -> dict[str, float]:
    """Metrics of one optimiser step from its micro-batches, of one process or of all ranks."""
    total = {name: sum(each.sums[name] for each in stats) for name in stats[0].sums}
    tokens = total["tokens"]
    return agreement_metrics([each.agreement for each in stats]) | {
        "train/loss": total["loss"],
        "train/kl": total["kl"] / tokens,
        "train/clip_share": total["clipped"] / tokens,
        "train/entropy": total["entropy"] / tokens,
    }
