"""Log-probabilities of completion tokens, without ever holding ``[tokens, vocabulary]``.

Rows are padded on the right and no attention mask is passed: under causal attention no real
token sees the padding, so the plain causal kernel gives the exact result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

CHUNK_ELEMENTS = 1 << 25
"""Logits held at once: 33.5M elements, 128 MiB in fp32."""


class CompletionLogprobs(NamedTuple):
    """Of one padded micro-batch of B sequences, the longest completion having T tokens."""

    logprobs_BT: Tensor
    """fp32; 0 where ``mask_BT`` is False."""
    entropy_BT: Tensor
    """fp32, nats, no gradient; 0 where ``mask_BT`` is False."""
    mask_BT: Tensor
    """bool: True at real completion tokens."""


def completion_logprobs(
    model: Any,
    prompt_tokens: Sequence[Sequence[int]],
    completion_tokens: Sequence[Sequence[int]],
    *,
    temperature: float = 1.0,
) -> CompletionLogprobs:
    """log softmax(logits / temperature) of each completion token given all tokens before it.

    Args:
        model: a causal language model of transformers (or peft), in any floating type.
        prompt_tokens: B lists of at least one token.
        completion_tokens: B lists of at least one token.
        temperature: the one the tokens were sampled with.
    """
    device = next(model.parameters()).device
    rows = [[*p, *c] for p, c in zip(prompt_tokens, completion_tokens, strict=True)]
    lengths = [len(c) for c in completion_tokens]
    # The last token of a row predicts nothing that is trained, so it is not fed.
    width = max(len(row) for row in rows) - 1
    input_ids = torch.tensor([row[:-1] + [0] * (width + 1 - len(row)) for row in rows], device=device)
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    hidden_BSH = base.get_decoder()(input_ids=input_ids, use_cache=False).last_hidden_state

    longest = max(lengths)
    steps_T = torch.arange(longest, device=device)
    starts_B = torch.tensor([len(p) - 1 for p in prompt_tokens], device=device)
    mask_BT = steps_T[None] < torch.tensor(lengths, device=device)[:, None]
    rows_N, steps_N = mask_BT.nonzero(as_tuple=True)
    hidden_NH = hidden_BSH[rows_N, starts_B[rows_N] + steps_N]
    targets_N = torch.tensor([token for c in completion_tokens for token in c], device=device)

    weight_VH = base.get_output_embeddings().weight
    logprobs_N, entropy_N = _TokenLogprobs.apply(hidden_NH, weight_VH, targets_N, temperature)
    blank_BT = torch.zeros(mask_BT.shape, dtype=torch.float32, device=device)
    return CompletionLogprobs(
        logprobs_BT=blank_BT.masked_scatter(mask_BT, logprobs_N),
        entropy_BT=blank_BT.masked_scatter(mask_BT, entropy_N),
        mask_BT=mask_BT,
    )


class _TokenLogprobs(torch.autograd.Function):
    """Chunked ``log_softmax(hidden @ weight.T / temperature)[target]`` and its entropy.

    The backward pass computes each chunk's logits again instead of keeping them.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_NH: Tensor, weight_VH: Tensor, targets_N: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        count = hidden_NH.shape[0]
        logprobs = torch.empty(count, dtype=torch.float32, device=hidden_NH.device)
        entropy = torch.empty_like(logprobs)
        normaliser = torch.empty_like(logprobs)
        for part in _chunks(count, weight_VH.shape[0]):
            logits = (hidden_NH[part] @ weight_VH.T).float().div_(temperature)
            lse = logits.logsumexp(-1)
            normaliser[part] = lse
            logprobs[part] = logits.gather(1, targets_N[part, None]).squeeze(1) - lse
            probabilities = (logits - lse[:, None]).exp_()
            entropy[part] = lse - (probabilities.mul_(logits)).sum(-1)
        ctx.save_for_backward(hidden_NH, weight_VH, targets_N, normaliser)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        grad_N = gradients[0]
        hidden_NH, weight_VH, targets_N, normaliser = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden_NH) if ctx.needs_input_grad[0] else None
        # Summed over chunks, so kept in fp32 whatever the weights are.
        grad_weight = torch.zeros_like(weight_VH, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        for part in _chunks(hidden_NH.shape[0], weight_VH.shape[0]):
            logits = (hidden_NH[part] @ weight_VH.T).float().div_(ctx.temperature)
            # d logprob / d logits = (one-hot(target) - softmax) / temperature
            scale_N = grad_N[part] / ctx.temperature
            grad_logits = logits.sub_(normaliser[part, None]).exp_().mul_(-scale_N[:, None])
            grad_logits.scatter_add_(1, targets_N[part, None], scale_N[:, None])
            narrow = grad_logits.to(weight_VH.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = narrow @ weight_VH
            if grad_weight is not None:
                grad_weight += narrow.T @ hidden_NH[part]
        if grad_weight is not None:
            grad_weight = grad_weight.to(weight_VH.dtype)
        return grad_hidden, grad_weight, None, None


def _chunks(rows: int, vocabulary: int) -> list[slice]:
    size = max(1, CHUNK_ELEMENTS // vocabulary)
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
