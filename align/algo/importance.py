"""Truncated importance sampling between the engine that sampled and the trainer, with rejection.

The two compute the same model with different kernels, so tokens are drawn from a slightly
different distribution than the one that is differentiated. The weight π_old / π_rollout, cut off
at a cap, corrects the expectation; beyond the rejection bounds the sample is not trusted at all.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from align.config.grpo import ImportanceConfig


class ImportanceWeights(NamedTuple):
    """Of one micro-batch; no gradient."""

    weight_BT: Tensor
    """fp32, min(π_old/π_rollout, cap); 1 where the correction is off."""
    kept_BT: Tensor
    """bool: in the mask and not rejected."""
    ratios_M: Tensor
    """fp32, π_old/π_rollout before cap and rejection: one per sequence at level ``sequence``, else
    one per real token."""


def importance_weights(
    old_logprobs_BT: Tensor, rollout_logprobs_BT: Tensor, mask_BT: Tensor, config: ImportanceConfig
) -> ImportanceWeights:
    """Weights per token, or one per sequence (of the product of its tokens' ratios).

    Args:
        old_logprobs_BT: fp32, the trainer's log-probabilities of the policy that sampled.
        rollout_logprobs_BT: fp32, the engine's log-probabilities of the same tokens.
        mask_BT: True at real tokens; each row has one.
        config: level, cap and rejection bounds.
    """
    mask = mask_BT.bool()
    ratio = ((old_logprobs_BT - rollout_logprobs_BT) * mask).detach()
    if config.level == "sequence":
        ratio = ratio.sum(-1, keepdim=True).exp()
        ratios, ratio = ratio.squeeze(-1), ratio.expand_as(mask)
    else:
        ratio = ratio.exp()
        ratios = ratio[mask]
    if config.level == "off":
        return ImportanceWeights(torch.ones_like(ratio), mask, ratios)
    kept = mask
    if config.reject_above is not None:
        kept = kept & (ratio <= config.reject_above)
    if config.reject_below is not None:
        kept = kept & (ratio >= config.reject_below)
    return ImportanceWeights(ratio.clamp(max=config.cap), kept, ratios)
