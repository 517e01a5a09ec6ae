"""Where conversations and prompts come from."""

from __future__ import annotations

from pydantic import Field, field_validator

from align.config.base import Section
from align.config.places import readable


class PartConfig(Section):
    """One named part of a mixture."""

    path: str | None = None
    """Hub id, file (.jsonl .ndjson .json .csv .tsv .parquet .arrow, each also .gz .zst .xz .bz2) or folder,
    also of ``save_to_disk``; default: ``data.path``."""
    subset: str | None = None
    """Configuration of a hub data set (``main`` for openai/gsm8k); in a folder, its sub-folder of that
    name if there is one."""
    split: str = "train"
    """Split of a hub data set or folder; a single file has only one."""
    weight: float | None = Field(None, gt=0)
    """Share of this part in the mixture, relative to the other parts. Give every part a weight, or
    none: then each counts by its rows, and the parts are simply put together."""
    columns: dict[str, str] = {}
    """New column → expression over the row's own columns, which stay; a bare column name is the
    simplest one. Sandboxed Jinja: ``answer.split('####')[-1].strip()``, ``chosen | transcript``. A column
    mapped here goes before all that the source has."""
    where: str | None = None
    """Keep only rows for which this expression over the row's own and new columns is true."""
    limit: int | None = Field(None, ge=1, strict=True)
    """Use at most this many rows (the first ones, after ``where``)."""
    system: str | None = None
    """System message put before every conversation of this part that has none of its own."""

    _readable = field_validator("path", "subset", "split")(readable)


class DataConfig(Section):
    """A mixture of parts."""

    path: str | None = None
    """Source of every part that names none of its own."""
    parts: dict[str, PartConfig] = Field(default={"train": PartConfig()}, min_length=1)
    """Named parts; names show up in prompt ids, metrics and errors."""

    _readable = field_validator("path")(readable)


class PreferencePartConfig(PartConfig):
    """A part of a reward model's mixture."""

    pairs_by: str | None = None
    """Column with a number. The rows are then single answers (``prompt``, ``completion``), as in the
    rollout files of a run, and each prompt gives one pair: its best answer against its worst. Pairwise
    loss only."""


class PreferenceDataConfig(Section):
    """A mixture of parts for a reward model."""

    path: str | None = None
    """Source of every part that names none of its own."""
    parts: dict[str, PreferencePartConfig] = Field(default={"train": PreferencePartConfig()}, min_length=1)
    """Named parts; names show up in row ids, metrics and errors."""

    _readable = field_validator("path")(readable)


class EvalPartConfig(PartConfig):
    """A held-out part and the function that scores it."""

    metric: str
    """Reward function whose mean is reported, e.g. ``exact_answer`` or ``rewards/mine.py:f``."""
    args: dict[str, object] = {}
    """Keyword arguments for that function."""

    _readable_metric = field_validator("metric")(readable)


class EvalConfig(Section):
    """Held-out measurements: before the first step, every so many steps, and at the end."""

    path: str | None = None
    """Source of every part that names none of its own."""
    parts: dict[str, EvalPartConfig] = {}
    """Named held-out parts."""
    every: int = Field(0, ge=0)
    """Steps between evaluations; 0: only at the start and at the end."""
    max_new_tokens: int = Field(256, ge=1)
    """Longest answer."""
    temperature: float = Field(0.0, ge=0)
    """0 is greedy decoding."""

    _readable = field_validator("path")(readable)
