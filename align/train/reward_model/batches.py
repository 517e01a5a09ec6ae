"""From tokenised rows to the tensors of one forward pass.

The trainer gets a whole step's rows at once, padded, and cuts them into passes of similar length:
padding nearly vanishes, and the loss is the mean over the step whatever the passes are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset, concatenate_datasets
from torch import Tensor
from trl.trainer.reward_trainer import DataCollatorForPreference

from align.dataset.preference.load import Preferences
from align.model.attention.batching import micro_batches
from align.model.score.pairs import joint_lengths

Batch = dict[str, Tensor]


def training_rows(preferences: Preferences, epochs: float, enough: int | None = None) -> Dataset:
    """The rows of all epochs, one after the other, in order of training.

    Args:
        preferences: the data.
        epochs: how many; the last may be a part of one.
        enough: stop after so many rows.
    """
    rows: list[Dataset] = []
    count = 0
    for number in range(math.ceil(epochs)):
        epoch = preferences.epoch(number)
        share = min(1.0, epochs - number)
        if share < 1:
            epoch = epoch.select(range(math.ceil(share * len(epoch))))
        rows.append(epoch)
        count += len(epoch)
        if enough is not None and count >= enough:
            count = enough
            break
    return concatenate_datasets(rows).select(range(count)).with_format("numpy")


@dataclass(frozen=True, slots=True)
class Collator:
    """Rows to padded tensors.

    ``input_ids`` and ``attention_mask`` [B, S], of pairs [2B, S] with the chosen sides first;
    ``margin`` or ``score`` [B]; of held-out rows ``place`` [B].
    """

    pad_token_id: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        if "chosen_ids" in rows[0]:
            batch: Batch = DataCollatorForPreference(self.pad_token_id)(list(rows))
        else:
            ids = [torch.as_tensor(row["input_ids"], dtype=torch.long) for row in rows]
            pad = torch.nn.utils.rnn.pad_sequence
            batch = {
                "input_ids": pad(ids, batch_first=True, padding_value=self.pad_token_id),
                "attention_mask": pad([torch.ones_like(row) for row in ids], batch_first=True),
                "score": torch.tensor([float(row["score"]) for row in rows]),
            }
        if "place" in rows[0]:
            batch["place"] = torch.tensor([int(row["place"]) for row in rows])
        return batch


def sides(batch: Batch) -> int:
    """Conversations in a row: 2 in a pair."""
    return 2 if "margin" in batch else 1


def split(batch: Batch, budget: int, *, alike: int | None = None) -> list[tuple[Tensor, Batch]]:
    """The passes of a step: (rows [b], their tensors, trimmed to the longest).

    Args:
        batch: from :class:`Collator`.
        budget: padded tokens of one pass.
        alike: rows of every pass, where all processes must make equal ones.
    """
    count = sides(batch)
    lengths_CB = batch["attention_mask"].sum(1).view(count, -1)
    if alike is not None:
        order = (-lengths_CB.amax(0)).argsort(stable=True).tolist()
        groups = [order[start : start + alike] for start in range(0, len(order), alike)]
    else:
        widths_B = lengths_CB[0]
        if count == 2:
            chosen_BS, rejected_BS = batch["input_ids"].chunk(2)
            widths_B = joint_lengths(chosen_BS, rejected_BS, lengths_CB.T)
        groups = micro_batches(widths_B.tolist(), budget)
    return [(index, _select(batch, index, lengths_CB)) for index in map(torch.tensor, groups)]


def _select(batch: Batch, index_b: Tensor, lengths_CB: Tensor) -> Batch:
    count, rows = lengths_CB.shape
    index_b = index_b.to(lengths_CB.device)
    width = int(lengths_CB[:, index_b].max())
    chosen = torch.cat([index_b + side * rows for side in range(count)])
    return {
        name: value[chosen, :width] if name in {"input_ids", "attention_mask"} else value[index_b]
        for name, value in batch.items()
    }
