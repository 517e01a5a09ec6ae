"""From tokenised conversations to the tensors of one forward pass.

Packed conversations are told apart by their positions: without an attention mask, transformers
builds a block-diagonal causal mask wherever ``position_ids`` start anew, for SDPA and eager
attention alike; on a CPU ``flatten`` leaves the padding out instead. Padding stands on the right, where
causal attention never looks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset, concatenate_datasets, disable_progress_bars, enable_progress_bars
from torch import Tensor
from trl import pack_dataset

from align.config.sft import SftConfig
from align.model.attention.flat_rows import blocks
from align.seed import derive_seed

IGNORED = -100
"""Label of a token that is not trained."""


def training_rows(
    epoch: Callable[[int], Dataset], sft: SftConfig, *, seed: int, enough: int | None = None
) -> Dataset:
    """The rows of all epochs, one after the other, in order of training.

    Args:
        epoch: number → conversations of that epoch, columns ``input_ids`` and ``assistant_masks``.
        sft: ``epochs``, ``packing`` and ``max_length`` are read.
        seed: run seed; the order of packed rows derives from it.
        enough: stop after so many rows, whatever ``epochs`` says.

    Returns:
        The same columns; under packing also ``seq_lengths``, the tokens of each conversation in a row.
    """
    epochs: list[Dataset] = []
    count = 0
    for number in range(math.ceil(sft.epochs)):
        rows = epoch(number)
        share = min(1.0, sft.epochs - number)
        if share < 1:
            rows = rows.select(range(math.ceil(share * len(rows))))
        if sft.packing:
            rows = pack(rows, sft.max_length).shuffle(seed=derive_seed(seed, "packed", number))
        epochs.append(rows)
        count += len(rows)
        if enough is not None and count >= enough:
            count = enough
            break
    return concatenate_datasets(epochs).select(range(count)).with_format("numpy")


def pack(rows: Dataset, max_length: int) -> Dataset:
    """Fill rows of ``max_length`` tokens with whole conversations (best fit, longest first)."""
    disable_progress_bars()
    try:
        return pack_dataset(rows, max_length, strategy="bfd")
    finally:
        enable_progress_bars()


@dataclass(frozen=True, slots=True)
class Collator:
    """Rows to padded tensors [B, S].

    ``input_ids``, ``labels`` (IGNORED outside the assistant's turns; the end-of-sequence token of a
    turn is trained even where it is also the padding token), ``position_ids`` (anew in each
    conversation) and ``segments`` (0 at padding; 1, 2, … in a row's conversations).
    """

    pad_token_id: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        width = max(len(row["input_ids"]) for row in rows)
        shape = (len(rows), width)
        input_ids = torch.full(shape, self.pad_token_id, dtype=torch.long)
        labels = torch.full(shape, IGNORED, dtype=torch.long)
        positions = torch.arange(width).repeat(len(rows), 1)
        segments = torch.zeros(shape, dtype=torch.long)
        for place, row in enumerate(rows):
            ids = torch.as_tensor(row["input_ids"], dtype=torch.long)
            trained = torch.as_tensor(row["assistant_masks"], dtype=torch.bool)
            input_ids[place, : len(ids)] = ids
            labels[place, : len(ids)] = torch.where(trained, ids, IGNORED)
            start = 0
            for number, length in enumerate(row.get("seq_lengths", (len(ids),)), start=1):
                end = start + int(length)
                segments[place, start:end] = number
                positions[place, start:] -= positions[place, start].clone()
                labels[place, start] = IGNORED  # nothing before it to predict it from
                start = end
        return {"input_ids": input_ids, "labels": labels, "position_ids": positions, "segments": segments}


def flatten(batch: Mapping[str, Tensor], segments_BS: Tensor) -> tuple[dict[str, Any], Tensor]:
    """The conversations of a padded batch in one row, without the padding.

    Args:
        batch: from :class:`Collator`, without ``segments``.
        segments_BS: its ``segments``.

    Returns:
        (inputs, segments): tensors of one row [1, N], with ``blocks`` for the attention; the segments
        number the conversations of all rows.
    """
    real_BS = segments_BS > 0
    offsets_B = torch.cat([segments_BS.new_zeros(1), segments_BS.amax(1).cumsum(0)[:-1]])
    segments = (segments_BS + offsets_B[:, None])[real_BS]
    lengths = torch.bincount(segments)[1:].tolist()
    inputs: dict[str, Any] = {name: value[real_BS][None] for name, value in batch.items()}
    return inputs | {"blocks": blocks(lengths)}, segments[None]
