"""Where conversations and prompts come from."""

from __future__ import annotations

from pydantic import Field

from align.config.base import Section


class PartConfig(Section):
    """One named part of a mixture."""

    path: str | None = None
    """Hub id, file (.jsonl .json .csv .parquet, each also .gz) or folder; default: ``data.path``."""
    subset: str | None = None
    """Configuration name of a hub data set (``main`` for openai/gsm8k). Ignored for local files."""
    split: str = "train"
    """Split of a hub data set or folder; a single file has only one."""
    weight: float = Field(1.0, gt=0)
    """Share of this part in the mixture, relative to the other parts."""
    columns: dict[str, str] = {}
    """New column → expression over the row's columns; a bare column name is the simplest one.
    Expressions are sandboxed Jinja: ``answer.split('####')[-1].strip()``, ``chosen | transcript``."""
    where: str | None = None
    """Keep only rows for which this expression is true."""
    limit: int | None = Field(None, ge=1)
    """Use at most this many rows (the first ones, after ``where``)."""
    system: str | None = None
    """System message put before every conversation of this part."""


class DataConfig(Section):
    """A mixture of parts."""

    path: str | None = None
    """Source of every part that names none of its own."""
    parts: dict[str, PartConfig] = Field(default={"train": PartConfig()}, min_length=1)
    """Named parts; names show up in prompt ids, metrics and errors."""


class EvalPartConfig(PartConfig):
    """A held-out part and the function that scores it."""

    metric: str
    """Reward function whose mean is reported, e.g. ``exact_answer`` or ``rewards/mine.py:f``."""
    args: dict[str, object] = {}
    """Keyword arguments for that function."""


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
