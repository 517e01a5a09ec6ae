"""Routed experts of single completions and of the packed rows of ``align.model.attention.shared_prefix``.

A completion of T tokens after a prompt of P tokens feeds P + T - 1 tokens (the last one is never fed).
A packed row feeds the prompt of neighbouring completions once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from align.errors import EngineError
from align.types import TrainBatch

Experts = NDArray[np.integer]
"""[tokens, L, K]: the K experts of each token in each of L MoE layers."""


def pack_experts(
    part: TrainBatch, routed: Sequence[Experts], shape: tuple[int, int], count: int
) -> tuple[Experts, int]:
    """The experts of each token that the packed row of ``part`` feeds, int64 [S, L, K].

    A shared prompt takes those of its first completion.

    Args:
        part: B completions.
        routed: B arrays of [P_i + T_i - 1, L, K].
        shape: (L, K) of the model.
        count: experts of a layer.

    Returns:
        (experts, differing): the second counts the prompt tokens that another completion of the same
        prompt sent to other experts.

    Raises:
        EngineError: some fed token has no experts in some layer, one that the model has not, or one of them
            twice.
    """
    pieces: list[Experts] = []
    differing = 0
    for prompt, rows in _segments(part):
        length = len(prompt)
        for row in rows:
            experts = routed[row]
            fed = length + len(part.completion_tokens[row]) - 1
            if experts.shape != (fed, *shape):
                raise EngineError(
                    f"routed experts of a completion of {part.prompt_ids[row]!r} cover {experts.shape} "
                    f"(tokens, MoE layers, experts per token), the trainer needs {(fed, *shape)}",
                    key="grpo.replay",
                    remedy="trainer and engine must be built from the same config.json",
                )
            pieces.append(experts if row == rows[0] else experts[length:])
            differing += _differing(experts[:length], routed[rows[0]][:length])
    packed = np.concatenate(pieces).astype(np.int64)
    if packed.min() < 0 or packed.max() >= count:
        raise EngineError(
            f"routed experts go up to {packed.max()}, the policy has {count}",
            key="grpo.replay",
            remedy="trainer and engine must be built from the same config.json",
        )
    ordered = np.sort(packed)
    twice = (ordered[..., 1:] == ordered[..., :-1]).any((1, 2))
    if twice.any():
        raise EngineError(
            f"{int(twice.sum())} of {len(packed)} tokens are routed to one expert several times, the first "
            f"to {packed[twice.argmax()].tolist()}, which no router does",
            key="grpo.replay",
            remedy="set grpo.replay=off, and report it: the capture of the engine is broken",
        )
    return packed, differing


def unpack_experts(part: TrainBatch, packed: Experts) -> list[Experts]:
    """The inverse of :func:`pack_experts`: B arrays [P_i + T_i - 1, L, K] from one [S, L, K]."""
    found: list[Experts] = []
    place = 0
    for prompt, rows in _segments(part):
        shared = packed[place : place + len(prompt)]
        place += len(prompt)
        for row in rows:
            fed = len(part.completion_tokens[row]) - 1
            found.append(np.concatenate([shared, packed[place : place + fed]]))
            place += fed
    return found


def _segments(part: TrainBatch) -> list[tuple[list[int], list[int]]]:
    """(prompt, rows) of neighbours with equal prompts, as ``pack`` of the attention finds them."""
    neighbours = groupby(range(len(part)), key=lambda row: part.prompt_tokens[row])
    return [(prompt, list(rows)) for prompt, rows in neighbours]


def _differing(left: Experts, right: Experts) -> int:
    """Tokens whose sets of experts differ in any layer."""
    if np.array_equal(left, right):
        return 0
    return int((np.sort(left) != np.sort(right)).any((1, 2)).sum())
