"""Clipped importance-weight policy optimisation (CISPO, MiniMax-M1, arXiv 2506.13585 §3.1)."""

from __future__ import annotations

from torch import Tensor


def cispo_loss(
    logprobs_BT: Tensor,
    old_logprobs_BT: Tensor,
    advantages_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip_low: float,
    clip_high: float,
) -> tuple[Tensor, Tensor]:
    """−sg[clip(ρ, 1−ε_low, 1+ε_high)] · A · log π_θ, to be minimised.

    The clip bounds the weight of a token, and never takes its gradient away.

    Args:
        logprobs_BT: fp32, log π_θ with gradient.
        old_logprobs_BT: fp32, log π_old without.
        advantages_BT: fp32, [B, T] or [B, 1].
        mask_BT: True at real tokens.
        clip_low: ε below 1; 1 sets no lower bound, as in the paper.
        clip_high: ε above 1.

    Returns:
        (loss_BT, clipped_BT): per-token loss, 0 outside the mask; bool, True where the weight was
        clipped.
    """
    ratio = ((logprobs_BT - old_logprobs_BT) * mask_BT).detach().exp()
    weight = ratio.clamp(1 - clip_low, 1 + clip_high)
    loss = -weight * advantages_BT * logprobs_BT * mask_BT
    return loss, (weight != ratio) & mask_BT.bool()
