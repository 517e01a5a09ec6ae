"""The parts of a recipe's data or eval section: rows with new columns, filtered and named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.config.data import DataConfig, EvalConfig, PartConfig, PreferenceDataConfig
from align.dataset.messages.oasst import columns_of, is_flat, trees_of
from align.dataset.rows.expression import compile_expression
from align.dataset.rows.sources import load_rows
from align.errors import AlignError, DataError, RecipeError


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a part."""

    id: str
    """``part/row``, the row's place in its source: it does not change with ``where`` or ``limit``."""
    columns: dict[str, Any]
    """The source's columns and the new ones."""


@dataclass(frozen=True, slots=True)
class Part:
    """One named part with the rows that are left of it."""

    name: str
    config: PartConfig
    source: str
    found: int
    """Rows of the source; of OpenAssistant's messages, trees."""
    excluded: int
    """Rows that ``where`` left out."""
    rows: list[Row]


def load_parts(
    data: DataConfig | PreferenceDataConfig | EvalConfig,
    *,
    file: str | Path | None = None,
    key: str = "data",
) -> list[Part]:
    """Every part of a data or eval section, in the recipe's order.

    Args:
        data: the section.
        file: recipe, for error messages.
        key: dotted key of the section in the recipe, for error messages.

    Raises:
        RecipeError: some parts have a weight and some have none; an expression is malformed.
        DataError: no path; a source is missing, empty or malformed; an expression fails on a row
            (named as ``part/row``); ``where`` leaves nothing.
    """
    weighted = [name for name, part in data.parts.items() if part.weight is not None]
    if weighted and len(weighted) < len(data.parts):
        missing = next(name for name in data.parts if name not in weighted)
        raise RecipeError(
            f"part {missing!r} has no weight but part {weighted[0]!r} has",
            file=file,
            key=f"{key}.parts.{missing}.weight",
            remedy="give every part a weight, or none",
        )
    return [_load_part(name, part, data.path, file, key) for name, part in data.parts.items()]


def _load_part(name: str, part: PartConfig, default: str | None, file: str | Path | None, key: str) -> Part:
    at = f"{key}.parts.{name}"
    source = part.path or default
    if source is None:
        raise DataError(
            f"part {name!r} has no path", file=file, key=f"{at}.path", remedy=f"set {key}.path or {at}.path"
        )
    path_key = f"{at}.path" if part.path else f"{key}.path"
    found = load_rows(source, subset=part.subset, split=part.split, file=file, key=path_key)
    columns = {
        column: compile_expression(text, file=file, key=f"{at}.columns.{column}")
        for column, text in part.columns.items()
    }
    where = compile_expression(part.where, file=file, key=f"{at}.where") if part.where else None
    rows: list[Row] = []
    excluded = 0
    roots = trees_of(found) if is_flat(found[0]) else None
    for number, source_row in enumerate(found) if roots is None else roots:
        row_id = f"{name}/{number}"
        try:
            original = source_row if roots is None else columns_of(source_row)
            values = dict(original)
            values.update({column: apply(original) for column, apply in columns.items()})
            keep = where is None or bool(where(values))
        except DataError as error:
            raise at_row(error, row_id) from error
        if not keep:
            excluded += 1
            continue
        rows.append(Row(row_id, values))
        if len(rows) == part.limit:
            break
    if not rows:
        raise DataError(
            f"part {name!r} has no rows left: {part.where!r} is true for none of {len(found)}"
            if part.where
            else f"part {name!r} has no rows left: no message of {len(found)} is the root of a tree",
            file=file,
            key=f"{at}.where" if part.where else f"{at}.path",
            remedy="loosen the condition" if part.where else "name a file with whole trees",
        )
    return Part(name, part, source, len(found if roots is None else roots), excluded, rows)


def at_row(
    error: AlignError, row_id: str, *, file: str | Path | None = None, key: str | None = None
) -> AlignError:
    """The same error, naming the row; ``file`` and ``key`` fill in what it does not say."""
    return type(error)(
        f"row {row_id}: {error.message}", file=error.file or file, key=error.key or key, remedy=error.remedy
    )
