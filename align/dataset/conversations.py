"""Conversations for supervised fine-tuning, tokenised once, as the trainer takes them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from align.config.data import DataConfig
from align.config.sft import SftConfig
from align.dataset.chat import TrainingTemplate, encode_conversation
from align.dataset.messages.beside import tools_column, tools_of
from align.dataset.messages.kept import check_kept
from align.dataset.messages.read import check_trained, conversation_of, form_of
from align.dataset.messages.said import said
from align.dataset.rows.mixture import PartSummary, epoch_counts, epoch_rows, summarise
from align.dataset.rows.parts import Part, at_row, load_parts
from align.dataset.training_template import training_template
from align.errors import AlignError, DataError
from align.seed import derive_seed

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


_CHUNK = 10_000
"""Conversations that are held as Python lists before they go to Arrow, at a tenth of the memory."""


@dataclass(frozen=True, slots=True)
class Conversations:
    """A tokenised mixture. ``epoch(n)`` and ``heldout`` are what a trainer needs."""

    rows: Dataset
    """Every usable conversation once, part after part: ``id`` (``part/row``), ``input_ids`` [L],
    ``assistant_masks`` [L] (1 on trained tokens)."""
    parts: Mapping[str, list[int]]
    """What is trained on: per part, places in ``rows``."""
    held: list[int]
    """What is held out for a validation loss: places in ``rows``."""
    lengths: list[int]
    """L of each of ``rows``."""
    trained: list[int]
    """Trained tokens of each of ``rows``."""
    weights: Mapping[str, float | None]
    seed: int
    summary: list[PartSummary]

    def epoch(self, number: int = 0) -> Dataset:
        """The rows of one epoch (see ``mixture``) in order of training.

        Columns ``input_ids`` and ``assistant_masks``, the names that TRL's SFTTrainer takes for
        tokenised rows and turns into labels.
        """
        sizes = {name: len(places) for name, places in self.parts.items()}
        order = epoch_rows(sizes, self.weights, seed=self.seed, epoch=number)
        return self._select([self.parts[name][place] for name, place in order])

    @property
    def heldout(self) -> Dataset | None:
        """The held-out rows, every one once; None without ``sft.eval_fraction``."""
        return self._select(self.held) if self.held else None

    def _select(self, places: list[int]) -> Dataset:
        return self.rows.select(places).select_columns(["input_ids", "assistant_masks"])


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
    template = training_template(tokenizer)
    store = _Store()
    places: dict[str, list[int]] = {}
    held: list[int] = []
    dropped: dict[str, int] = {}
    truncated: dict[str, int] = {}
    for part in parts:
        start = len(store.lengths)
        truncated[part.name] = _encode_part(part, tokenizer, template, sft, file, store)
        usable = list(range(start, len(store.lengths)))
        dropped[part.name] = len(part.rows) - len(usable)
        held_places, places[part.name] = _split(part.name, usable, sft.eval_fraction, seed)
        held += held_places
        if dropped[part.name] or truncated[part.name]:
            logger.warning(
                "part %s: %d of %d conversations longer than sft.max_length=%d dropped, %d truncated",
                part.name, dropped[part.name], len(part.rows), sft.max_length, truncated[part.name],
            )  # fmt: skip
    weights = {part.name: part.config.weight for part in parts}
    counts = epoch_counts({name: len(members) for name, members in places.items()}, weights)
    lengths = {name: [store.lengths[place] for place in members] for name, members in places.items()}
    summary = summarise(parts, counts, lengths, dropped=dropped, truncated=truncated)
    for line in summary:
        if line.repeated:
            logger.warning("part %s: %d rows for %d places in an epoch", line.name, line.rows, line.epoch)
    return Conversations(store.dataset(), places, held, store.lengths, store.trained, weights, seed, summary)


class _Store:
    """Collects tokenised conversations, in Arrow from chunk to chunk."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self.trained: list[int] = []
        self._done: list[Dataset] = []
        self._chunk: dict[str, list[Any]] = {"id": [], "input_ids": [], "assistant_masks": []}

    def add(self, row_id: str, ids: list[int], mask: list[int]) -> None:
        self.lengths.append(len(ids))
        self.trained.append(sum(mask))
        for column, value in zip(self._chunk.values(), (row_id, ids, mask), strict=True):
            column.append(value)
        if len(self._chunk["id"]) == _CHUNK:
            self._flush()

    def _flush(self) -> None:
        from datasets import Dataset, Features, List, Value

        features = {
            "id": Value("string"),
            "input_ids": List(Value("int32")),
            "assistant_masks": List(Value("int8")),
        }
        self._done.append(Dataset.from_dict(self._chunk, features=Features(features)))
        self._chunk = {name: [] for name in self._chunk}

    def dataset(self) -> Dataset:
        from datasets import concatenate_datasets

        if self._chunk["id"]:
            self._flush()
        return concatenate_datasets(self._done)


def _encode_part(
    part: Part,
    tokenizer: PreTrainedTokenizerBase,
    template: TrainingTemplate,
    sft: SftConfig,
    file: str | Path | None,
    store: _Store,
) -> int:
    """Store the part's conversations; how many were truncated."""
    before = len(store.lengths)
    truncated = 0
    for row in part.rows:
        try:
            messages = conversation_of(row.columns, system=part.config.system, mapped=part.config.columns)
            check_trained(messages)
            tools = tools_of(row.columns)
            check_kept(
                tokenizer,
                messages,
                tools=tools,
                template=template.source,
                keep=said(row.columns, form_of(row.columns, part.config.columns), part.config.columns).keep,
                tools_from=tools_column(row.columns),
            )
            ids, mask = encode_conversation(tokenizer, messages, tools=tools, template=template)
        except AlignError as error:
            raise at_row(error, row.id, file=file, key=f"data.parts.{part.name}") from error
        if len(ids) > sft.max_length:
            ids, mask = ids[: sft.max_length], mask[: sft.max_length]
            if sft.overlong == "drop" or not any(mask):
                continue
            truncated += 1
        store.add(row.id, ids, mask)
    if len(store.lengths) == before:
        cut = sft.overlong == "truncate"
        raise DataError(
            f"no conversation of part {part.name!r} has a trained token among its first {sft.max_length}"
            if cut
            else f"every conversation of part {part.name!r} is longer than {sft.max_length} tokens",
            file=file,
            key="sft.max_length",
            remedy="raise sft.max_length" if cut else "raise sft.max_length, or set sft.overlong=truncate",
        )
    return truncated


def _split(name: str, places: list[int], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """(held out, trained on): a seeded draw, at least one row for training, both in source order."""
    count = min(round(fraction * len(places)), len(places) - 1)
    picked = set(Random(derive_seed(seed, "heldout", name)).sample(places, count))
    return sorted(picked), [place for place in places if place not in picked]
