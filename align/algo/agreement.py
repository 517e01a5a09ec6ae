"""How far trainer and rollout engine agree on the tokens of a step.

Quantiles do not add up, so every micro-batch hands over its values and the metrics are taken once
over all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from align.algo.importance import ImportanceWeights, importance_weights
from align.config.grpo import ImportanceConfig
from align.types import TrainBatch


class Agreement(NamedTuple):
    """Of one micro-batch, on the CPU."""

    gaps_N: Tensor
    """fp32, log π_old − log π_rollout of each real token, nats."""
    ratios_M: Tensor
    """fp32, importance weights before cap and rejection, per token or per sequence."""
    weight: float
    """Sum of the N tokens' weights after the cap."""
    capped: float
    """Tokens whose weight reached the cap."""
    rejected: float
    """Tokens left out of the loss."""


def agreement(
    old_logprobs_BT: Tensor,
    rollout_logprobs_BT: Tensor,
    mask_BT: Tensor,
    weights: ImportanceWeights,
    config: ImportanceConfig,
) -> Agreement:
    """What :func:`agreement_metrics` needs of one micro-batch.

    Args:
        old_logprobs_BT: fp32, the trainer's log-probabilities of the policy that sampled.
        rollout_logprobs_BT: fp32, the engine's of the same tokens.
        mask_BT: bool, True at real tokens.
        weights: of these tokens, as ``importance_weights`` gives them.
        config: what they were computed with.
    """
    gaps = (old_logprobs_BT - rollout_logprobs_BT).detach()[mask_BT]
    return Agreement(
        gaps_N=gaps.cpu(),
        ratios_M=weights.ratios_M.cpu(),
        weight=float((weights.weight_BT * mask_BT).sum()),
        capped=float(((weights.weight_BT >= config.cap) & mask_BT).sum()),
        rejected=float((mask_BT & ~weights.kept_BT).sum()),
    )


_AT_ONCE = 256
"""Rows that are padded together."""


def step_agreement(batches: Sequence[TrainBatch], config: ImportanceConfig) -> dict[str, float]:
    """:func:`agreement_metrics` of a step with several updates: every token of ``batches`` once.

    Args:
        batches: the step's minibatches, with π_old of before its first update.
        config: level, cap and rejection bounds.

    Raises:
        ValueError: there is no token, or π_old is not known.
    """
    parts = []
    for batch in batches:
        if batch.old_logprobs is None:
            raise ValueError("π_old of a minibatch is not known")
        for start in range(0, len(batch), _AT_ONCE):
            rows = slice(start, start + _AT_ONCE)
            old_BT, mask_BT = _padded(batch.old_logprobs[rows])
            rollout_BT, _ = _padded(batch.rollout_logprobs[rows])
            weights = importance_weights(old_BT, rollout_BT, mask_BT, config)
            parts.append(agreement(old_BT, rollout_BT, mask_BT, weights, config))
    return agreement_metrics(parts)


def _padded(rows: Sequence[Sequence[float]]) -> tuple[Tensor, Tensor]:
    """Rows side by side, fp32, and where they are."""
    found = [torch.from_numpy(np.array(row, np.float32)) for row in rows]
    lengths_B = torch.tensor([len(row) for row in found])
    padded_BT = torch.nn.utils.rnn.pad_sequence(found, batch_first=True)
    return padded_BT, torch.arange(padded_BT.shape[1]) < lengths_B[:, None]


def agreement_metrics(parts: Sequence[Agreement]) -> dict[str, float]:
    """Metrics over all values of all micro-batches.

    - ``logprob_mean``, ``_p99``, ``_max``: of |log π_old − log π_rollout|, nats.
    - ``kl``: KL(rollout ‖ trainer) per token by the k3 estimator, exp(d) − 1 − d with
      d = log π_old − log π_rollout; never negative, unbiased as the engine drew the tokens.
    - ``weight_p01``, ``_p50``, ``_p99``: of the importance weights before cap and rejection.
    - ``weight_mean``, ``capped_share``: of the weights after the cap, per token.
    - ``rejected``, ``rejected_share``: tokens left out of the loss.

    Raises:
        ValueError: there is no token.
    """
    if not parts:
        raise ValueError("no tokens to compare")
    gaps = torch.cat([part.gaps_N for part in parts])
    ratios = torch.cat([part.ratios_M for part in parts])
    sizes, tokens = gaps.abs(), len(gaps)
    rejected = sum(part.rejected for part in parts)
    return {
        "mismatch/logprob_mean": float(sizes.mean(dtype=torch.float64)),
        "mismatch/logprob_p99": quantile(sizes, 0.99),
        "mismatch/logprob_max": float(sizes.max()),
        "mismatch/kl": float((gaps.expm1() - gaps).mean(dtype=torch.float64)),
        "mismatch/weight_p01": quantile(ratios, 0.01),
        "mismatch/weight_p50": quantile(ratios, 0.5),
        "mismatch/weight_p99": quantile(ratios, 0.99),
        "mismatch/weight_mean": sum(part.weight for part in parts) / tokens,
        "mismatch/capped_share": sum(part.capped for part in parts) / tokens,
        "mismatch/rejected": rejected,
        "mismatch/rejected_share": rejected / tokens,
    }


def quantile(values_N: Tensor, share: float) -> float:
    """The smallest value that at least ``share`` of the values do not exceed (nearest rank).

    ``torch.quantile`` refuses more than 16M values; a step can have more tokens.

    Raises:
        ValueError: there is no value.
    """
    count = len(values_N)
    if not count:
        raise ValueError("no values to take a quantile of")
    return float(values_N.kthvalue(max(1, math.ceil(share * count))).values)
