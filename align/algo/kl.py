"""Estimators of KL(policy ‖ reference) from sampled tokens (k3: DeepSeek-V2 eq. 33)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, kind: Literal["k1", "k2", "k3"]) -> Tensor:
    """Per-token estimate, same shape as the inputs, differentiable in ``logprobs``.

    With d = log π_ref − log π_θ: k1 = −d, k2 = d²/2, k3 = exp(d) − d − 1 (never negative).

    Args:
        logprobs: fp32, log π_θ of the sampled tokens.
        ref_logprobs: fp32, log π_ref of the same tokens.
    """
    difference = ref_logprobs - logprobs
    if kind == "k1":
        return -difference
    if kind == "k2":
        return 0.5 * difference.square()
    return difference.exp() - difference - 1
