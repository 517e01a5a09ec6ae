"""The clipped policy objective of GRPO.

Token form (default): DeepSeekMath eq. 3. Sequence form: DeepSeek-V2 eq. 32 as printed, where the
ratio is that of whole completions.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def clipped_policy_loss(
    logprobs_BT: Tensor,
    old_logprobs_BT: Tensor,
    advantages_B: Tensor,
    mask_BT: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    level: Literal["token", "sequence"] = "token",
) -> tuple[Tensor, Tensor]:
    """−min[ρA, clip(ρ, 1−ε_low, 1+ε_high)A], to be minimised.

    At level ``sequence`` each of a completion's T tokens carries the loss of the whole completion;
    with token weights 1/(N·T) these add up to the printed objective.

    Args:
        logprobs_BT: fp32, log π_θ with gradient.
        old_logprobs_BT: fp32, log π_old without.
        advantages_B: fp32.
        mask_BT: True at real tokens.
        clip_low: ε below 1.
        clip_high: ε above 1.
        level: ratio per token or per sequence.

    Returns:
        (loss_BT, clipped_BT): per-token loss, 0 outside the mask; bool, True where the clipped
        branch was taken, so that the token has no gradient.
    """
    log_ratio = (logprobs_BT - old_logprobs_BT) * mask_BT
    if level == "sequence":
        log_ratio = log_ratio.sum(-1, keepdim=True).expand_as(log_ratio)
    ratio = log_ratio.exp()
    advantages = advantages_B[:, None]
    plain = ratio * advantages
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high) * advantages
    loss = -torch.minimum(plain, clipped) * mask_BT
    return loss, (clipped < plain) & mask_BT.bool()
