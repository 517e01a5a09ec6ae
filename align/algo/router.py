"""Balance of the experts of MoE policies: loss and statistics.

Letters in names: L MoE layers, B rows, S positions, E routed experts, K experts per token,
N sequences. *Segments* tell the sequences of a packed row apart: ``segments_BS`` is 0 at padding
and 1, 2, … inside the first, second, … sequence of a row.
"""

from __future__ import annotations

import torch
from torch import Tensor


def expert_balance_loss(logits_LBSE: Tensor, selected_LBSK: Tensor, segments_BS: Tensor) -> Tensor:
    """Expert-level balance loss without its factor α1 (DeepSeek-V2 eq. 23-25).

    Per sequence of T real tokens: Σ_i f_i P_i with f_i = E/(K·T) · #(tokens that chose expert i) and
    P_i the mean affinity of expert i. The mean over sequences is returned for each layer; it is 1
    when the load is even. As in the released model, affinities are softmax scores before any
    device-group mask, choices are those really made, and the gradient flows through P alone.
    Unlike there, padding does not count.

    Args:
        logits_LBSE: router logits, any floating type; computed in fp32.
        selected_LBSK: int64, the chosen experts of each token.
        segments_BS: int, see above.

    Returns:
        fp32 [L]; zeros when there is no real token.
    """
    layers, experts, choices = logits_LBSE.shape[0], logits_LBSE.shape[-1], selected_LBSK.shape[-1]
    real_BS = segments_BS > 0
    sequence_T, count = _number_sequences(segments_BS, real_BS)
    if count == 0:
        return logits_LBSE.float().sum((1, 2, 3)) * 0.0
    length_N = torch.bincount(sequence_T, minlength=count).float()

    scores_LTE = logits_LBSE[:, real_BS].float().softmax(-1)
    sums_LNE = scores_LTE.new_zeros(layers, count, experts).index_add(1, sequence_T, scores_LTE)
    affinity_LNE = sums_LNE / length_N[:, None]

    chosen_LTK = selected_LBSK[:, real_BS]
    with torch.no_grad():
        slots = (sequence_T[:, None] * experts + chosen_LTK).flatten(1)
        counts = scores_LTE.new_zeros(layers, count * experts)
        counts.scatter_add_(1, slots, torch.ones_like(slots, dtype=counts.dtype))
        share_LNE = counts.view(layers, count, experts) * (experts / choices) / length_N[:, None]
    return (share_LNE * affinity_LNE).sum(-1).mean(-1)


def expert_load(selected_LBSK: Tensor, segments_BS: Tensor, experts: int) -> Tensor:
    """Share of all choices that went to each expert: fp32 [L, E], rows sum to 1, padding left out."""
    chosen = selected_LBSK[:, segments_BS > 0].flatten(1)
    counts = torch.zeros(chosen.shape[0], experts, device=chosen.device)
    counts.scatter_add_(1, chosen, torch.ones_like(chosen, dtype=counts.dtype))
    return counts / counts.sum(-1, keepdim=True).clamp(min=1)


def peak_load(load_LE: Tensor) -> Tensor:
    """Load of the busiest expert over the mean load, fp32 [L]: 1 is even, E is collapse."""
    return load_LE.max(-1).values * load_LE.shape[-1]


def _number_sequences(segments_BS: Tensor, real_BS: Tensor) -> tuple[Tensor, int]:
    """Number the sequences of the whole batch 0 … N-1: ([T] index of each real token, N)."""
    rows_BS = torch.arange(segments_BS.shape[0], device=segments_BS.device)[:, None].expand_as(segments_BS)
    keys_T = rows_BS[real_BS] * (int(segments_BS.max()) + 1) + segments_BS[real_BS]
    names, index_T = keys_T.unique(return_inverse=True)
    return index_T, len(names)
