"""Conversations for supervised fine-tuning, tokenised once, as the trainer takes them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from align.config.data import DataConfig
from align.config.sft import SftConfig
from align.dataset.chat import encode_conversation
from align.dataset.messages import conversation_of
from align.dataset.mixture import PartSummary, epoch_counts, epoch_rows, summarise
from align.dataset.parts import Part, at_row, load_parts
from align.errors import AlignError, DataError
from align.seed import derive_seed

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Encoded:
    """One conversation in tokens."""

    id: str
    """``part/row``."""
    input_ids: list[int]
    """[L] ints."""
    assistant_mask: list[int]
    """[L]: 1 on trained tokens."""


@dataclass(frozen=True, slots=True)
class Conversations:
    """A tokenised mixture. ``epoch(n)`` and ``heldout`` are what a trainer needs."""

    parts: Mapping[str, list[Encoded]]
    """What is trained on, per part."""
    held: list[Encoded]
    """What is held out for a validation loss."""
    weights: Mapping[str, float | None]
    seed: int
    summary: list[PartSummary]

    @property
    def sizes(self) -> dict[str, int]:
        """Rows to draw from, per part."""
        return {name: len(rows) for name, rows in self.parts.items()}

    def epoch(self, number: int = 0) -> Dataset:
        """The rows of one epoch (see ``mixture``) in order of training.

        Columns ``input_ids`` [L] and ``assistant_masks`` [L], the names that TRL's SFTTrainer takes
        for tokenised rows and turns into labels.
        """
        order = epoch_rows(self.sizes, self.weights, seed=self.seed, epoch=number)
        return _dataset([self.parts[name][place] for name, place in order])

    @property
    def heldout(self) -> Dataset | None:
        """The held-out rows, every one once; None without ``sft.eval_fraction``."""
        return _dataset(self.held) if self.held else None


def _dataset(rows: list[Encoded]) -> Dataset:
    from datasets import Dataset, Features, List, Value

    return Dataset.from_dict(
        {
            "input_ids": [row.input_ids for row in rows],
            "assistant_masks": [row.assistant_mask for row in rows],
        },
        features=Features({"input_ids": List(Value("int32")), "assistant_masks": List(Value("int8"))}),
    )


def load_conversations(
    data: DataConfig,
    tokenizer: PreTrainedTokenizerBase,
    sft: SftConfig,
    *,
    seed: int,
    file: str | Path | None = None,
) -> Conversations:
    """Read, check and tokenise every conversation of a recipe.

    Args:
        data: the recipe's data section.
        tokenizer: with its template set (``chat.set_template``).
        sft: ``max_length``, ``overlong`` and ``eval_fraction`` are read.
        seed: the run's seed; order and held-out rows derive from it.
        file: recipe, for error messages.

    Raises:
        DataError: from the sources, or a malformed conversation (named as ``part/row``), or
            nothing left of a part.
        ModelError: the template is unusable.
        RecipeError: malformed weights or expressions.
    """
    parts = load_parts(data, file=file)
    train: dict[str, list[Encoded]] = {}
    held: list[Encoded] = []
    dropped: dict[str, int] = {}
    truncated: dict[str, int] = {}
    for part in parts:
        rows, dropped[part.name], truncated[part.name] = _encode_part(part, tokenizer, sft, file)
        held_rows, train[part.name] = _split(part.name, rows, sft.eval_fraction, seed)
        held += held_rows
        if dropped[part.name] or truncated[part.name]:
            logger.warning(
                "part %s: %d of %d conversations longer than sft.max_length=%d dropped, %d truncated",
                part.name, dropped[part.name], len(part.rows), sft.max_length, truncated[part.name],
            )  # fmt: skip
    weights = {part.name: part.config.weight for part in parts}
    counts = epoch_counts({name: len(rows) for name, rows in train.items()}, weights)
    lengths = {name: [len(row.input_ids) for row in rows] for name, rows in train.items()}
    summary = summarise(parts, counts, lengths, dropped=dropped, truncated=truncated)
    for line in summary:
        if line.repeated:
            logger.warning("part %s: %d rows for %d places in an epoch", line.name, line.rows, line.epoch)
    return Conversations(train, held, weights, seed, summary)


def _encode_part(
    part: Part, tokenizer: PreTrainedTokenizerBase, sft: SftConfig, file: str | Path | None
) -> tuple[list[Encoded], int, int]:
    """The part's conversations, and how many were dropped and truncated."""
    rows: list[Encoded] = []
    truncated = 0
    for row in part.rows:
        try:
            messages = conversation_of(row.columns, system=part.config.system)
            ids, mask = encode_conversation(tokenizer, messages)
        except AlignError as error:
            raise at_row(error, row.id, file=file, key=f"data.parts.{part.name}") from error
        if len(ids) > sft.max_length:
            ids, mask = ids[: sft.max_length], mask[: sft.max_length]
            if sft.overlong == "drop" or not any(mask):
                continue
            truncated += 1
        rows.append(Encoded(row.id, ids, mask))
    if not rows:
        raise DataError(
            f"every conversation of part {part.name!r} is longer than {sft.max_length} tokens",
            file=file,
            key="sft.max_length",
            remedy="raise sft.max_length, or set sft.overlong=truncate",
        )
    return rows, len(part.rows) - len(rows), truncated


def _split(name: str, rows: list[Encoded], fraction: float, seed: int) -> tuple[list[Encoded], list[Encoded]]:
    """(held out, trained on): a seeded draw, at least one row for training, both in source order."""
    count = min(round(fraction * len(rows)), len(rows) - 1)
    picked = set(Random(derive_seed(seed, "heldout", name)).sample(range(len(rows)), count))
    held = [row for place, row in enumerate(rows) if place in picked]
    return held, [row for place, row in enumerate(rows) if place not in picked]
