"""Preference pairs and scored conversations for reward models, tokenised once and split by prompt.

Rows that say nothing are left out and counted, by part:

    identical  both sides are the same
    differing  the two sides do not answer the same prompt
    empty      a turn has no text (the answer's, or one before it)
    unscored   an answer that was to be paired has no score
    tied       the answers to a prompt that were to be paired have all the same score

A malformed row (a wrong role, no answer at the end, a score that is no number) is an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.config.data import PreferenceDataConfig
from align.config.reward_model import RewardModelConfig
from align.dataset.messages.said import said
from align.dataset.preference.answer_pairs import best_against_worst
from align.dataset.preference.rows import (
    NOISE,
    Noise,
    Pair,
    Point,
    columns_of,
    group_of,
    is_held_out,
    read_row,
)
from align.dataset.preference.tokens import cut, encode
from align.dataset.rows.mixture import epoch_counts, epoch_rows
from align.dataset.rows.parts import Part, Row, at_row, load_parts
from align.errors import AlignError, DataError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_CHUNK = 10_000
"""Rows that are held as Python lists before they go to Arrow, at a tenth of the memory."""
_COMMON = {"id": "string", "part": "string", "group": "int64"}
_PAIR = {"chosen_ids": "int32", "rejected_ids": "int32"}
_POINT = {"input_ids": "int32"}


@dataclass(frozen=True, slots=True)
class PreferenceSummary:
    """One line of the data's table."""

    name: str
    source: str
    found: int
    """Rows of the source."""
    excluded: int
    """Left out by ``where``."""
    noise: Mapping[Noise, int]
    """Left out because they say nothing, by kind: rows, or prompts where it says ``tied``."""
    truncated: int
    """Usable rows that lost the beginning of a conversation."""
    train: int
    held_out: int
    epoch: int
    """Rows of this part in one epoch."""


@dataclass(frozen=True, slots=True)
class Preferences:
    """A tokenised mixture; all that a trainer needs.

    Columns of pairs: ``chosen_ids`` [L], ``rejected_ids`` [L], ``margin``; of scored conversations:
    ``input_ids`` [L], ``score``. Both: ``id`` (``part/row``), ``part``, ``group`` (of one prompt), and in
    held-out rows the answers' lengths in tokens: ``chosen_length``, ``rejected_length`` or ``length``.
    """

    rows: Dataset
    """Every usable row once, part after part."""
    parts: Mapping[str, list[int]]
    """What is trained on: per part, places in ``rows``."""
    held: list[int]
    """What is held out: places in ``rows``, longest first, so that neighbours pad little."""
    weights: Mapping[str, float | None]
    seed: int
    summary: list[PreferenceSummary]

    def epoch(self, number: int = 0) -> Dataset:
        """The rows of one epoch (see ``mixture``) in order of training."""
        sizes = {name: len(places) for name, places in self.parts.items()}
        order = epoch_rows(sizes, self.weights, seed=self.seed, epoch=number)
        return self.rows.select([self.parts[name][place] for name, place in order])

    @property
    def heldout(self) -> Dataset:
        """The held-out rows, every one once."""
        return self.rows.select(self.held)


def load_preferences(
    data: PreferenceDataConfig,
    tokenizer: PreTrainedTokenizerBase,
    rm: RewardModelConfig,
    *,
    seed: int,
    file: str | Path | None = None,
) -> Preferences:
    """Read, check, clean, split and tokenise the rows of a recipe.

    Args:
        data: the recipe's data section.
        tokenizer: with its template set (``chat.set_template``).
        rm: ``loss``, ``max_length`` and ``eval_fraction`` are read.
        seed: the run's seed; the order of rows derives from it, the split does not.
        file: recipe, for error messages.

    Raises:
        DataError: from the sources; a malformed row (named as ``part/row``); nothing left of a part;
            nothing on one side of the split.
        ModelError: the template refuses a conversation.
        RecipeError: malformed weights or expressions.
    """
    store = _Store(pairs=rm.loss == "bradley_terry")
    reader = _Reader(tokenizer, rm, file, store)
    parts = load_parts(data, file=file)
    places: dict[str, list[int]] = {}
    for part in parts:
        places[part.name] = reader.read(part, data.parts[part.name].pairs_by)
    if not any(places.values()) or not reader.held:
        side = "training" if reader.held else "held-out"
        raise DataError(
            f"no prompt of {len(store.lengths)} usable rows falls on the {side} side of the split",
            file=file,
            key="rm.eval_fraction",
            remedy="change rm.eval_fraction, or add rows with other prompts",
        )
    weights = {part.name: part.config.weight for part in parts}
    used = {name: rows for name, rows in places.items() if rows}  # a tiny part may be held out whole
    counts = epoch_counts({name: len(rows) for name, rows in used.items()}, weights)
    summary = [
        PreferenceSummary(
            name=part.name,
            source=part.source,
            found=part.found,
            excluded=part.excluded,
            noise={kind: reader.noise[part.name][kind] for kind in NOISE},
            truncated=reader.truncated[part.name],
            train=len(places[part.name]),
            held_out=reader.held_of[part.name],
            epoch=counts.get(part.name, 0),
        )
        for part in parts
    ]
    held = sorted(reader.held, key=lambda place: (-store.lengths[place], place))
    return Preferences(store.dataset(), used, held, weights, seed, summary)


def remarks(summary: Sequence[PreferenceSummary], max_length: int) -> Iterator[str]:
    """One sentence for each part that lost rows or beginnings."""
    for line in summary:
        lost = [
            f"{count} {'tied prompts' if kind == 'tied' else kind}"
            for kind, count in line.noise.items()
            if count
        ]
        if lost:
            yield f"part {line.name}: left out of {line.found} rows: {', '.join(lost)}"
        if line.truncated:
            usable = line.train + line.held_out
            yield (
                f"part {line.name}: {line.truncated} of {usable} rows are longer than {max_length} tokens "
                "and lost their beginning"
            )


class _Store:
    """Collects tokenised rows, in Arrow from chunk to chunk."""

    def __init__(self, *, pairs: bool) -> None:
        self.lengths: list[int] = []
        lists = _PAIR if pairs else _POINT
        numbers = ("margin", "chosen_length", "rejected_length") if pairs else ("score", "length")
        self._types = {**_COMMON, **lists, **dict.fromkeys(numbers, "float32")}
        self._lists = set(lists)
        self._done: list[Dataset] = []
        self._chunk: dict[str, list[Any]] = {name: [] for name in self._types}

    def add(self, *values: Any) -> int:
        """Store one row, values in the order of the columns; its place."""
        for column, value in zip(self._chunk.values(), values, strict=True):
            column.append(value)
        self.lengths.append(sum(len(self._chunk[name][-1]) for name in self._lists))
        if len(self._chunk["id"]) == _CHUNK:
            self._flush()
        return len(self.lengths) - 1

    def _flush(self) -> None:
        from datasets import Dataset, Features, List, Value

        features = {
            name: List(Value(kind)) if name in self._lists else Value(kind)
            for name, kind in self._types.items()
        }
        self._done.append(Dataset.from_dict(self._chunk, features=Features(features)))
        self._chunk = {name: [] for name in self._types}

    def dataset(self) -> Dataset:
        from datasets import concatenate_datasets

        if self._chunk["id"]:
            self._flush()
        return concatenate_datasets(self._done)


class _Reader:
    """Reads part after part into a store, counting what it leaves out."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        rm: RewardModelConfig,
        file: str | Path | None,
        store: _Store,
    ) -> None:
        self.tokenizer, self.rm, self.file, self.store = tokenizer, rm, file, store
        self.held: list[int] = []
        self.held_of: Counter[str] = Counter()
        self.noise: dict[str, Counter[Noise]] = {}
        self.truncated: Counter[str] = Counter()

    def read(self, part: Part, pairs_by: str | None) -> list[int]:
        """Store the part's usable rows; the places of those that are trained on."""
        noise: Counter[Noise] = Counter()
        self.noise[part.name] = noise
        before = len(self.store.lengths)
        train: list[int] = []
        for row in self._rows(part, pairs_by, noise):
            try:
                found = read_row(
                    row.columns, self.rm.loss, system=part.config.system, mapped=part.config.columns
                )
                if not isinstance(found, Pair | Point):
                    noise[found] += 1
                    continue
                group = group_of(found[0])
                held = is_held_out(group, self.rm.eval_fraction)
                values = self._encode(found, row, part, held)
            except AlignError as error:
                raise at_row(error, row.id, file=self.file, key=f"data.parts.{part.name}") from error
            place = self.store.add(row.id, part.name, group, *values)
            if held:
                self.held.append(place)
                self.held_of[part.name] += 1
            else:
                train.append(place)
        if len(self.store.lengths) == before:
            raise DataError(
                f"nothing is left of part {part.name!r}: {dict(noise)}",
                file=self.file,
                key=f"data.parts.{part.name}",
                remedy="check how its columns are mapped",
            )
        return train

    def _rows(self, part: Part, pairs_by: str | None, noise: Counter[Noise]) -> list[Row]:
        if pairs_by is None:
            return part.rows
        key = f"data.parts.{part.name}"
        return best_against_worst(part.rows, pairs_by, noise, file=self.file, key=key)

    def _encode(self, found: Pair | Point, row: Row, part: Part, held: bool) -> list[Any]:
        """The row's own columns, in the order of the store."""
        sides = [found.chosen, found.rejected] if isinstance(found, Pair) else [found.messages]
        keeps = [said(row.columns, each, part.config.columns).keep for each in columns_of(found, row.columns)]
        ids = [encode(self.tokenizer, side, keep=keep) for side, keep in zip(sides, keeps, strict=True)]
        if max(map(len, ids)) > self.rm.max_length:
            self.truncated[part.name] += 1
            ids = cut(ids, self.rm.max_length, self.tokenizer.bos_token_id)
        # Lengths are asked for on the held-out side only.
        lengths = [self._tokens(side[-1]["content"]) if held else 0 for side in sides]
        return [*ids, found.margin if isinstance(found, Pair) else found.score, *lengths]

    def _tokens(self, text: str) -> int:
        return len(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
