"""Truncated importance sampling between the engine that sampled and the trainer.

The two compute the same model with different kernels, so tokens are drawn from a slightly
different distribution than the one that is differentiated. The weight π_old / π_rollout, cut off
at a cap, corrects the expectation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from align.config.grpo import ImportanceConfig


def importance_weights(
    old_logprobs_BT: Tensor, rollout_logprobs_BT: Tensor, mask_BT: Tensor, config: ImportanceConfig
) -> Tensor:
    """min(π_old/π_rollout, cap) per token, or once per sequence; [B, T], no gradient.

    Args:
        old_logprobs_BT: fp32, the trainer's log-probabilities of the policy that sampled.
        rollout_logprobs_BT: fp32, the engine's log-probabilities of the same tokens.
        mask_BT: True at real tokens.
        config: level and cap.
    """
    difference = ((old_logprobs_BT - rollout_logprobs_BT) * mask_BT).detach()
    if config.level == "off":
        return torch.ones_like(difference)
    if config.level == "sequence":
        difference = difference.sum(-1, keepdim=True).expand_as(difference)
    return difference.exp().clamp(max=config.cap)
