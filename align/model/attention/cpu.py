"""Attention by plain matrix products, for short contexts on a CPU.

PyTorch's fused CPU kernel saves memory that a few hundred tokens do not need, and its backward pass in
bf16 reaches a tenth of what the matrix units can do. Here scores are formed whole, and unless they are few
formed again in the backward pass instead of being kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "cpu_products"
LARGEST = 1 << 26
"""Scores held at once, elements: 128 MiB in bf16. Beyond that the fused kernel is the better choice."""
KEPT = 1 << 22
"""Scores of a layer that are kept for the backward pass, elements: 8 MiB in bf16."""
LANES = 16
"""Rows of scores are a multiple of this wide: what is left over PyTorch's softmax takes one by one, which
for 222 keys takes as long as all the rest."""


def fits(query: Tensor, key: Tensor) -> bool:
    """Whether plain products should compute this; arguments as for :func:`attend`."""
    rows, tokens, heads, _ = query.shape
    return query.device.type == "cpu" and rows * heads * tokens * key.shape[1] <= LARGEST


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None = None) -> Tensor:
    """softmax(query · keyᵀ · scale) · value, by plain products or by the fused kernel.

    Arguments and result as for :func:`plain_attention`.
    """
    if fits(query, key):
        return plain_attention(query, key, value, scale, mask)
    repeats = query.shape[2] // key.shape[2]
    if repeats > 1:
        key, value = (each.repeat_interleave(repeats, dim=2) for each in (key, value))
    query, key, value = (each.transpose(1, 2) for each in (query, key, value))
    output = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scale
    )
    return output.transpose(1, 2)


def plain_attention(
    query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None = None
) -> Tensor:
    """softmax(query · keyᵀ · scale) · value; a head of keys serves H / J heads of queries.

    Args:
        query: [B, T, H, D].
        key: [B, K, J, D].
        value: [B, K, J, E].
        scale: of the scores.
        mask: bool [T, K] or [B, T, K], what a query sees; None: causal, T = K.

    Returns:
        [B, T, H, E] in the type of ``query``.
    """
    if mask is None:
        mask = torch.ones(query.shape[1], key.shape[1], dtype=torch.bool).tril()
    width = -(-key.shape[1] // LANES) * LANES
    bias = torch.full((*mask.shape[:-1], width), torch.finfo(query.dtype).min, dtype=query.dtype)
    bias[..., : key.shape[1]].masked_fill_(mask, 0)
    output: Tensor = _Attention.apply(query, key, value, bias.expand(len(query), -1, -1), scale)
    return output


def other_attention(model: Any) -> str | None:
    """What some layer has beside the softmax of scores over the whole context; None where nothing."""
    config = model.config.get_text_config()
    windows = [kind for kind in getattr(config, "layer_types", None) or [] if kind != "full_attention"]
    if windows or (not hasattr(config, "layer_types") and getattr(config, "sliding_window", None)):
        return "a window"
    if getattr(model, "_is_stateful", False):
        return "a state"
    if getattr(config, "attn_logit_softcapping", None) is not None:
        return "capped attention scores (attn_logit_softcapping)"
    if any(name.rpartition(".")[2] == "sinks" for name, _ in model.named_parameters()):
        return "attention sinks"
    return None


def use_cpu_attention(model: Any) -> None:
    """Let a transformers model that would use PyTorch's fused kernel use this on a CPU."""
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(NAME)


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' interface: query [B, H, T, D], key and value with H or fewer heads."""
    rows = [each.transpose(1, 2) for each in (query, key, value)]
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if attention_mask is None:
        plain = causal and query.shape[2] == key.shape[2]
    else:
        plain = attention_mask.dtype == torch.bool and attention_mask.shape[1] == 1
    if not plain or dropout or not fits(rows[0], rows[1]):
        arguments = {"dropout": dropout, "scaling": scaling, "is_causal": is_causal, **kwargs}
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **arguments)
        return output, None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    mask = None if attention_mask is None else attention_mask[:, 0]
    return attend(rows[0], rows[1], rows[2], scale, mask), None


ALL_ATTENTION_FUNCTIONS.register(NAME, torch.compiler.disable(attention))
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias_BTW: Tensor, scale: float
    ) -> Tensor:
        width = bias_BTW.shape[2]
        weights = _weights(_fold(query, key.shape[2]) * scale, _widen(key, width), bias_BTW)
        kept = weights if weights.numel() <= KEPT else None
        ctx.save_for_backward(query, key, value, bias_BTW, kept)
        ctx.scale = scale
        return _unfold(torch.bmm(weights, _widen(value, width)), query.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, bias_BTW, weights = ctx.saved_tensors
        count, heads, width = key.shape[1], key.shape[2], bias_BTW.shape[2]
        scaled, keys, values = _fold(query, heads) * ctx.scale, _widen(key, width), _widen(value, width)
        grad_output = _fold(gradients[0], heads)
        if weights is None:
            weights = _weights(scaled, keys, bias_BTW)
        grad_value = torch.bmm(weights.mT, grad_output)
        grad_weights = torch.bmm(grad_output, values.mT)
        grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
        return (
            _unfold(torch.bmm(grad_scores, keys) * ctx.scale, query.shape),
            _unfold(torch.bmm(grad_scores.mT, scaled)[:, :count], key.shape),
            _unfold(grad_value[:, :count], value.shape),
            None,
            None,
        )


def _weights(scaled: Tensor, keys: Tensor, bias_BTW: Tensor) -> Tensor:
    """[B·J, R·T, W]: who attends to whom; R = H / J query heads share a head of keys."""
    scores = torch.bmm(scaled, keys.mT)
    rows, tokens, width = bias_BTW.shape
    scores.view(rows, scores.shape[0] // rows, -1, tokens, width).add_(bias_BTW[:, None, None])
    return torch.softmax(scores, -1)


def _widen(tensor: Tensor, width: int) -> Tensor:
    """[B, K, J, D] → [B·J, W, D]: each head's K rows, then zeros up to ``width``."""
    rows, count, heads, size = tensor.shape
    wide = tensor.new_empty(rows, heads, width, size)
    wide[:, :, :count] = tensor.transpose(1, 2)
    wide[:, :, count:] = 0
    return wide.flatten(0, 1)


def _fold(tensor: Tensor, groups: int) -> Tensor:
    """[B, T, R·J, D] → [B·J, R·T, D]: the R heads of a group under each other."""
    return tensor.unflatten(2, (groups, -1)).permute(0, 2, 3, 1, 4).flatten(2, 3).flatten(0, 1)


def _unfold(tensor: Tensor, shape: torch.Size) -> Tensor:
    """The opposite of :func:`_fold`; ``shape`` is [B, T, R·J, any]."""
    return tensor.reshape(shape[0], shape[2], shape[1], -1).transpose(1, 2)
