"""The policy objective: clipped ratios, of which GRPO and GSPO differ in what the ratio is, or CISPO.

Token form (default): DeepSeekMath eq. 3. Sequence form: DeepSeek-V2 eq. 32 as printed, where the
ratio is that of whole completions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from align.algo.cispo import cispo_loss
from align.algo.gspo import gspo_log_ratio, gspo_token_log_ratio
from align.config.grpo import GrpoConfig


def policy_loss(
    logprobs_BT: Tensor, old_logprobs_BT: Tensor, advantages_BT: Tensor, mask_BT: Tensor, config: GrpoConfig
) -> tuple[Tensor, Tensor]:
    """The token losses that ``policy_loss`` and ``level`` of the recipe name, to be minimised.

    Where a completion has one ratio, each of its T tokens carries the loss of the whole
    completion; with token weights 1/(N·T) these add up to the mean over completions.

    Args:
        logprobs_BT: fp32, log π_θ with gradient.
        old_logprobs_BT: fp32, log π_old without.
        advantages_BT: fp32, [B, T] or [B, 1].
        mask_BT: True at real tokens.
        config: variant and clip bounds.

    Returns:
        (loss_BT, clipped_BT): per-token loss, 0 outside the mask; bool, True where the clip acted.
    """
    bounds = {"clip_low": config.clip_low, "clip_high": config.clip_high}
    if config.policy_loss == "cispo":
        return cispo_loss(logprobs_BT, old_logprobs_BT, advantages_BT, mask_BT, **bounds)
    log_ratio = (logprobs_BT - old_logprobs_BT) * mask_BT
    if config.policy_loss == "gspo":
        log_ratio = gspo_log_ratio(log_ratio, mask_BT)
    elif config.policy_loss == "gspo_token":
        log_ratio = gspo_token_log_ratio(log_ratio, mask_BT)
    elif config.level == "sequence":
        log_ratio = log_ratio.sum(-1, keepdim=True).expand_as(log_ratio)
    return clipped_policy_loss(log_ratio, advantages_BT, mask_BT, **bounds)


def clipped_policy_loss(
    log_ratio_BT: Tensor, advantages_BT: Tensor, mask_BT: Tensor, *, clip_low: float, clip_high: float
) -> tuple[Tensor, Tensor]:
    """−min[ρA, clip(ρ, 1−ε_low, 1+ε_high)A].

    Args:
        log_ratio_BT: fp32, log ρ with gradient.
        advantages_BT: fp32, [B, T] or [B, 1].
        mask_BT: True at real tokens.
        clip_low: ε below 1.
        clip_high: ε above 1.

    Returns:
        (loss_BT, clipped_BT): per-token loss, 0 outside the mask; bool, True where the clipped
        branch was taken, so that the token has no gradient.
    """
    ratio = log_ratio_BT.exp()
    plain = ratio * advantages_BT
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high) * advantages_BT
    loss = -torch.minimum(plain, clipped) * mask_BT
    return loss, (clipped < plain) & mask_BT.bool()
