"""Group sequence policy optimisation (GSPO, arXiv 2507.18071): the ratio of a completion is the
geometric mean of its tokens' ratios, s_i = (π_θ(o_i) / π_old(o_i))^(1/T_i).

The logarithms below go into the clipped loss of ``policy_loss`` in place of the tokens' own.
"""

from __future__ import annotations

from torch import Tensor


def gspo_log_ratio(log_ratio_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """log s_i at each token of completion i (§4.1), with gradient through all its tokens; [B, T].

    Args:
        log_ratio_BT: fp32, log π_θ − log π_old, 0 outside the mask.
        mask_BT: True at real tokens.
    """
    lengths_B1 = mask_BT.sum(-1, keepdim=True).clamp(min=1)
    return (log_ratio_BT.sum(-1, keepdim=True) / lengths_B1).expand_as(log_ratio_BT)


def gspo_token_log_ratio(log_ratio_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """log s_it (§4.3): the value of log s_i, with the gradient of token t alone; [B, T].

    With one advantage per completion this is GSPO in value and gradient; it also takes one
    advantage per token. Arguments as for :func:`gspo_log_ratio`.
    """
    return gspo_log_ratio(log_ratio_BT, mask_BT).detach() + log_ratio_BT - log_ratio_BT.detach()
