"""Packing a group behind one copy of its prompt.

The G completions of a group follow the same prompt. A packed row holds each prompt once, then the
completions that belong to it, one after another, with the positions they would have alone:

    prompt A | completion A0 | completion A1 | … | prompt B | completion B0 | …
    0 … P-1  | P …           | P …           |   | 0 …

Everything but attention works token by token, so only attention must know the layout: a prompt
sees itself, a completion sees its prompt and itself. Values and gradients equal those of separate
rows, and nothing but attention inside a group is padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from align.errors import ModelError
from align.model.attention import cpu as cpu_attention
from align.model.attention.batching import rectangles
from align.model.output_head import beyond_product

NAME = "shared_prefix"
_CHANGING = ("softcap", "s_aux", "position_bias", "indices", "block_indices")
"""Arguments of transformers' attention interface that change what is computed."""


@dataclass(frozen=True, slots=True)
class Block:
    """b neighbouring completions of similar length, the longest of t tokens, as a rectangle.

    The last token of a completion is not fed.
    """

    pick_bt: Tensor
    """int64 [b, t]: the row's token at each place; padding repeats a token, and its output is dropped."""
    real_N: Tensor
    """int64: the places of ``pick_bt``, flattened, that are not padding."""
    mask_tK: Tensor
    """bool [t, P + t]: what a completion's token sees."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One prompt and its completions inside a packed row of S tokens."""

    start: int
    """First token of the prompt."""
    prompt: int
    """P, its tokens."""
    blocks: tuple[Block, ...]
    """Its completions, in their order."""


class Segments:
    """The segments of a packed row, closed to the compiler, which would compile anew for every number
    of them."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.all = tuple(segments)
        self.seen = False
        """Whether the attention of some layer got to know them."""


@dataclass(frozen=True, slots=True)
class PackedRow:
    """A micro-batch as one row of S tokens."""

    input_ids: Tensor
    """int64 [1, S]."""
    position_ids: Tensor
    """int64 [1, S]."""
    segments: Segments
    predictors_N: Tensor
    """int64 [N]: the token whose hidden state predicts each completion token, in row order of the
    completions given."""


def pack(
    prompt_tokens: Sequence[Sequence[int]], completion_tokens: Sequence[Sequence[int]], device: Any
) -> PackedRow:
    """Pack B completions; neighbours with equal prompts share one copy.

    Args:
        prompt_tokens: B lists of at least one token.
        completion_tokens: B lists of at least one token.
        device: where the tensors go.
    """
    ids: list[int] = []
    positions: list[int] = []
    predictors: list[int] = []
    segments: list[Segment] = []
    row = 0
    while row < len(prompt_tokens):
        prompt, start = list(prompt_tokens[row]), len(ids)
        last = start + len(prompt) - 1
        ids += prompt
        positions += range(len(prompt))
        spans: list[tuple[int, int]] = []
        while row < len(prompt_tokens) and list(prompt_tokens[row]) == prompt:
            fed = list(completion_tokens[row])[:-1]
            spans.append((len(ids), len(fed)))
            predictors += [last, *range(len(ids), len(ids) + len(fed))]
            positions += range(len(prompt), len(prompt) + len(fed))
            ids += fed
            row += 1
        segments.append(_segment(start, len(prompt), spans, device))
    return PackedRow(
        input_ids=torch.tensor([ids], device=device),
        position_ids=torch.tensor([positions], device=device),
        segments=Segments(segments),
        predictors_N=torch.tensor(predictors, device=device),
    )


def _segment(start: int, prompt: int, spans: Sequence[tuple[int, int]], device: Any) -> Segment:
    blocks = []
    for rows in rectangles([length for _, length in spans]):
        width = max(spans[row][1] for row in rows)
        if not width:
            continue
        pick = [[spans[row][0] + min(step, spans[row][1] - 1) for step in range(width)] for row in rows]
        real = [place * width + step for place, row in enumerate(rows) for step in range(spans[row][1])]
        own = torch.ones(width, width, dtype=torch.bool, device=device).tril()
        sees_prompt = torch.ones(width, prompt, dtype=torch.bool, device=device)
        blocks.append(
            Block(
                pick_bt=torch.tensor(pick, dtype=torch.int64, device=device),
                real_N=torch.tensor(real, dtype=torch.int64, device=device),
                mask_tK=torch.cat([sees_prompt, own], 1),
            )
        )
    return Segment(start=start, prompt=prompt, blocks=tuple(blocks))


def use_shared_prefix(model: Any) -> None:
    """Let a transformers model compute packed rows; without one it attends as usual.

    Raises:
        ModelError: its attention layers, or what makes logits of its hidden states, would not be computed
            as the model has them. A classifier has no such logits.
    """
    other = cpu_attention.other_attention(model)
    if other is not None:
        raise _refused(f"{model.config.model_type} has layers with {other}")
    beyond = beyond_product(model)
    if beyond is not None:
        raise ModelError(
            f"{model.config.model_type} cannot be trained with GRPO: {beyond}, which its log-probabilities "
            "would leave out",
            key="policy.path",
            remedy="use a policy whose logits are the product of hidden states and output head alone",
        )
    model.set_attn_implementation(NAME)
    if model.config._attn_implementation != NAME:
        raise _refused(f"{model.config.model_type} has attention that transformers cannot replace")


def _refused(what: str) -> ModelError:
    return ModelError(
        f"{what}, so prompts cannot be shared in packed rows",
        key="policy.path",
        remedy="use a model with plain attention over the whole context in every layer",
    )


def forward_packed(decoder: Any, row: PackedRow) -> Tensor:
    """Hidden states of a packed row, [S, H]; ``decoder`` is the model without its output head.

    Raises:
        ModelError: the decoder does not hand the segments to its attention.
    """
    output = decoder(
        input_ids=row.input_ids, position_ids=row.position_ids, use_cache=False, segments=row.segments
    )
    if not row.segments.seen:
        raise _refused(f"{type(decoder).__name__} does not hand its attention what it must know")
    return cast(Tensor, output.last_hidden_state[0])


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    segments: Segments | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of a packed row: query [1, H, S, D], key and value with H or fewer heads.

    Raises:
        ModelError: the layer asks for more than ``other_attention`` can tell beforehand.
    """
    if segments is None:
        return cpu_attention.attention(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    unknown = [name for name in _CHANGING if kwargs.get(name) is not None]
    if unknown:
        raise _refused(f"{type(module).__name__} attends with {unknown[0]}")
    segments.seen = True
    query, key, value = (each[0].transpose(0, 1) for each in (query, key, value))  # [S, heads, D]
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    parts: list[Tensor] = []
    for segment in segments.all:
        shared = slice(segment.start, segment.start + segment.prompt)
        seen = cpu_attention.attend(query[None, shared], key[None, shared], value[None, shared], scaling)
        parts.append(seen[0])
        for block in segment.blocks:
            own_query, own_key, own_value = (
                each.index_select(0, block.pick_bt.flatten()).unflatten(0, block.pick_bt.shape)
                for each in (query, key, value)
            )
            keys, values = (
                torch.cat([each[None, shared].expand(len(block.pick_bt), -1, -1, -1), own], 1)
                for each, own in ((key, own_key), (value, own_value))
            )
            output = cpu_attention.attend(own_query, keys, values, scaling, block.mask_tK)
            parts.append(output.flatten(0, 1).index_select(0, block.real_N))
    return torch.cat(parts)[None], None


ALL_ATTENTION_FUNCTIONS.register(NAME, torch.compiler.disable(_attention))
