"""Log-probabilities of completion tokens. Of ``[tokens, vocabulary]`` at most 128 MiB are ever held,
whatever the number of tokens: a chunk of the logits at a time, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from align.model.attention.shared_prefix import forward_packed, pack
from align.model.compiled import cpu_compiled

CHUNK_ELEMENTS = 1 << 26
"""Logits held at once, in the model's type: 67M elements, 128 MiB in bf16."""
BLOCK_ELEMENTS = 1 << 20
"""Logits widened to fp32 at once: 4 MiB, so that the passes over a block stay in the cache."""


class CompletionLogprobs(NamedTuple):
    """Of one micro-batch of B completions, the longest having T tokens."""

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

    Neighbouring rows with equal prompts compute that prompt once.

    Args:
        model: a causal language model of transformers (or peft) prepared by ``use_shared_prefix``.
        prompt_tokens: B lists of at least one token.
        completion_tokens: B lists of at least one token.
        temperature: the one the tokens were sampled with.
    """
    device = next(model.parameters()).device
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    row = pack(prompt_tokens, completion_tokens, device)
    hidden_NH = forward_packed(base.get_decoder(), row).index_select(0, row.predictors_N)
    targets_N = torch.tensor([token for c in completion_tokens for token in c], device=device)
    weight_VH = base.get_output_embeddings().weight
    logprobs_N, entropy_N, _ = token_logprobs(hidden_NH, weight_VH, targets_N, temperature=temperature)

    lengths_B = torch.tensor([len(c) for c in completion_tokens], device=device)
    mask_BT = torch.arange(int(lengths_B.max()), device=device)[None] < lengths_B[:, None]
    blank_BT = torch.zeros(mask_BT.shape, dtype=torch.float32, device=device)
    return CompletionLogprobs(
        logprobs_BT=blank_BT.masked_scatter(mask_BT, logprobs_N),
        entropy_BT=blank_BT.masked_scatter(mask_BT, entropy_N),
        mask_BT=mask_BT,
    )


class TokenLogprobs(NamedTuple):
    """Of N tokens; gradients flow through ``logprobs_N`` alone."""

    logprobs_N: Tensor
    """fp32."""
    entropy_N: Tensor
    """fp32, nats."""
    likeliest_N: Tensor
    """bool: no other token is more likely."""


def token_logprobs(
    hidden_NH: Tensor,
    weight_VH: Tensor,
    targets_N: Tensor,
    *,
    temperature: float = 1.0,
) -> TokenLogprobs:
    """log softmax(hidden · weightᵀ / temperature) at each target.

    Args:
        hidden_NH: hidden states that predict the targets.
        weight_VH: the output head, without bias.
        targets_N: int64.
        temperature: divides the logits.
    """
    found = _TokenLogprobs.apply(hidden_NH, weight_VH, targets_N, temperature)
    return TokenLogprobs(*found)


class _TokenLogprobs(torch.autograd.Function):
    """Chunked ``log_softmax(hidden @ weight.T / temperature)[target]`` and its entropy.

    One chunk of logits is kept for the backward pass; of several, each is computed again there.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        targets_N: Tensor,
        temperature: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        count = hidden_NH.shape[0]
        logprobs = torch.empty(count, dtype=torch.float32, device=hidden_NH.device)
        entropy = torch.empty_like(logprobs)
        normaliser = torch.empty_like(logprobs)
        largest = torch.zeros(count, dtype=torch.bool, device=hidden_NH.device)
        ctx.product = None
        for part, logits, rows in _blocks(hidden_NH, weight_VH):
            found = _scores(logits, targets_N[rows], temperature)
            logprobs[rows], entropy[rows], normaliser[rows], largest[rows] = found
            if part is not None and len(part[1]) == count:
                ctx.product = part[1]
        ctx.save_for_backward(hidden_NH, weight_VH, targets_N, normaliser)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(entropy, largest)
        return logprobs, entropy, largest

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        hidden_NH, weight_VH, targets_N, normaliser = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden_NH) if ctx.needs_input_grad[0] else None
        grad_weight = None
        scale_N = gradients[0] / ctx.temperature
        product, ctx.product = ctx.product, None  # overwritten here, so it serves once
        for part, logits, rows in _blocks(hidden_NH, weight_VH, product):
            _to_gradient(logits, targets_N[rows], normaliser[rows], scale_N[rows], ctx.temperature)
            if part is None:
                continue
            chunk, whole = part
            if grad_hidden is not None:
                torch.mm(whole, weight_VH, out=grad_hidden[chunk])
            if ctx.needs_input_grad[1]:
                term = whole.T @ hidden_NH[chunk]
                if grad_weight is not None:
                    grad_weight += term
                else:  # a sum over chunks is kept in fp32 whatever the weights are
                    grad_weight = term if len(whole) == len(hidden_NH) else term.float()
        if ctx.needs_input_grad[1]:
            grad_weight = (
                torch.zeros_like(weight_VH) if grad_weight is None else grad_weight.to(weight_VH.dtype)
            )
        return grad_hidden, grad_weight, None, None


@cpu_compiled
def _scores(logits_nV: Tensor, targets_n: Tensor, temperature: float) -> tuple[Tensor, ...]:
    """Log-probability, entropy, log of the normaliser, and whether the target is the likeliest token."""
    logits = logits_nV.float() / temperature
    largest = logits.amax(-1)
    weights = (logits - largest[:, None]).exp()
    total = weights.sum(-1)
    normaliser = largest + total.log()
    chosen = logits.gather(1, targets_n[:, None]).squeeze(1)
    entropy = normaliser - (weights * logits).sum(-1) / total
    return chosen - normaliser, entropy, normaliser, chosen >= largest


@cpu_compiled
def _to_gradient(
    logits_nV: Tensor, targets_n: Tensor, normaliser_n: Tensor, scale_n: Tensor, temperature: float
) -> None:
    """Overwrite logits with scale · d logprob / d logits · temperature = scale · (one-hot - softmax)."""
    softmax = (logits_nV.float() / temperature - normaliser_n[:, None]).exp()
    hot = torch.arange(logits_nV.shape[1], device=logits_nV.device) == targets_n[:, None]
    logits_nV.copy_((hot.float() - softmax) * scale_n[:, None])


def _blocks(
    hidden_NH: Tensor, weight_VH: Tensor, product: Tensor | None = None
) -> Iterator[tuple[tuple[slice, Tensor] | None, Tensor, slice]]:
    """Walk over the logits: a large matrix product at a time, seen through small blocks of rows.

    Args:
        hidden_NH: as for :func:`token_logprobs`.
        weight_VH: as for :func:`token_logprobs`.
        product: all logits, where they are known; they were one chunk.

    Yields:
        (part, logits, rows): the logits of a block of ``rows``, in the model's type, a view of its
        chunk. With the last block of a chunk, ``part`` is that chunk: its rows and all its logits.
    """
    count, vocabulary = hidden_NH.shape[0], weight_VH.shape[0]
    size = max(1, CHUNK_ELEMENTS // vocabulary)
    block = min(size, max(1, BLOCK_ELEMENTS // vocabulary))
    if product is None:  # one buffer: fresh pages cost as much as the product
        buffer = hidden_NH.new_empty(min(size, count), vocabulary)
    for first in range(0, count, size):
        chunk = slice(first, min(first + size, count))
        logits = product
        if logits is None:
            logits = torch.mm(hidden_NH[chunk], weight_VH.T, out=buffer[: chunk.stop - first])
        for start in range(first, chunk.stop, block):
            stop = min(start + block, chunk.stop)
            done = (chunk, logits) if stop == chunk.stop else None
            yield done, logits[start - first : stop - first], slice(start, stop)
