"""Attention by plain matrix products, for short contexts on a CPU.

PyTorch's fused CPU kernel saves memory that a few hundred tokens do not need, and its backward pass in
bf16 reaches a tenth of what the matrix units can do. Here scores are formed whole, and formed again in
the backward pass instead of being kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LARGEST = 1 << 26
"""Scores held at once, elements: 128 MiB in bf16. Beyond that the fused kernel is the better choice."""


def fits(query: Tensor, key: Tensor) -> bool:
    """Whether :func:`attend` should compute this; arguments as there."""
    rows, tokens, heads, _ = query.shape
    return query.device.type == "cpu" and rows * heads * tokens * key.shape[1] <= LARGEST


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float, mask_TK: Tensor | None) -> Tensor:
    """softmax(query · keyᵀ · scale) · value; a head of keys serves H / J heads of queries.

    Args:
        query: [B, T, H, D].
        key: [B, K, J, D].
        value: [B, K, J, E].
        scale: of the scores.
        mask_TK: bool [T, K], what a query sees; None: causal, T = K.

    Returns:
        [B, T, H, E] in the type of ``query``.
    """
    if mask_TK is None:
        mask_TK = torch.ones(query.shape[1], key.shape[1], dtype=torch.bool).tril()
    bias_TK = torch.zeros(mask_TK.shape, dtype=query.dtype).masked_fill_(~mask_TK, float("-inf"))
    output: Tensor = _Attention.apply(query, key, value, bias_TK, scale)
    return output


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias_TK: Tensor, scale: float
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, bias_TK)
        ctx.scale = scale
        heads = key.shape[2]
        weights = _weights(_fold(query, heads) * scale, _fold(key, heads), bias_TK)
        return _unfold(torch.bmm(weights, _fold(value, heads)), query.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, bias_TK = ctx.saved_tensors
        heads = key.shape[2]
        scaled, keys, values = _fold(query, heads) * ctx.scale, _fold(key, heads), _fold(value, heads)
        grad_output = _fold(gradients[0], heads)
        weights = _weights(scaled, keys, bias_TK)
        grad_value = torch.bmm(weights.mT, grad_output)
        grad_weights = torch.bmm(grad_output, values.mT)
        grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
        return (
            _unfold(torch.bmm(grad_scores, keys) * ctx.scale, query.shape),
            _unfold(torch.bmm(grad_scores.mT, scaled), key.shape),
            _unfold(grad_value, value.shape),
            None,
            None,
        )


def _weights(scaled: Tensor, keys: Tensor, bias_TK: Tensor) -> Tensor:
    """[B·J, R·T, K]: who attends to whom; R = H / J query heads share a head of keys."""
    scores = torch.bmm(scaled, keys.mT)
    scores.unflatten(1, (-1, bias_TK.shape[0])).add_(bias_TK)
    return torch.softmax(scores, -1)


def _fold(tensor: Tensor, groups: int) -> Tensor:
    """[B, T, R·J, D] → [B·J, R·T, D]: the R heads of a group under each other."""
    return tensor.unflatten(2, (groups, -1)).permute(0, 2, 3, 1, 4).flatten(2, 3).flatten(0, 1)


def _unfold(tensor: Tensor, shape: torch.Size) -> Tensor:
    """The opposite of :func:`_fold`; ``shape`` is [B, T, R·J, any]."""
    return tensor.reshape(shape[0], shape[2], shape[1], -1).transpose(1, 2)
