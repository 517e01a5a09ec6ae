"""One data file as a list of rows, with file and line in every error."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from align.errors import DataError

EXTENSIONS = (".jsonl", ".json", ".csv", ".parquet")

csv.field_size_limit(2**31 - 1)  # the default refuses a cell of more than 128 KiB


def read_file(path: Path) -> Sequence[Mapping[str, Any]]:
    """The rows of one file, all with the same columns; a value that a row lacks is None.

    Raises:
        DataError: not a data file, unreadable, or a malformed row.
    """
    extension = Path(path.name.removesuffix(".gz")).suffix
    readers: dict[str, Callable[[Path], Sequence[Mapping[str, Any]]]] = {
        ".jsonl": _read_json,
        ".json": _read_json,
        ".csv": _read_csv,
        ".parquet": _read_parquet,
    }
    if extension not in readers:
        raise DataError(
            "not a data file", file=path, remedy=f"use {', '.join(EXTENSIONS)}, or one of these with .gz"
        )
    try:
        return readers[extension](path)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot be read: {error}", file=path, remedy="check the file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 text: {error}", file=path, remedy="save it as UTF-8") from error


def _open(path: Path) -> io.BufferedIOBase:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _text(path: Path) -> str:
    with _open(path) as stream:
        return stream.read().decode("utf-8-sig")


def _read_json(path: Path) -> list[dict[str, Any]]:
    """JSON lines, or one array of objects; which of the two is told by the first character."""
    text = _text(path)
    if text.lstrip().startswith("["):
        try:
            items = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(
                f"line {error.lineno}: not JSON: {error.msg}", file=path, remedy="mend the file"
            ) from error
        return _even(((f"item {number}", item) for number, item in enumerate(items, 1)), path)
    return _even(_lines(text, path), path)


def _lines(text: str, path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: U+2028 may stand in a text
        if not line.strip():
            continue
        try:
            yield f"line {number}", json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"line {number}: not JSON: {error.msg} (column {error.colno})",
                file=path,
                remedy="write one object per line, or one array of objects",
            ) from error


def _even(items: Iterator[tuple[str, Any]], path: Path) -> list[dict[str, Any]]:
    """Objects with the same columns, in the order in which the columns first occur."""
    rows: list[dict[str, Any]] = []
    columns: dict[str, None] = {}
    for place, item in items:
        if not isinstance(item, dict):
            raise DataError(
                f"{place}: a row is an object, not {type(item).__name__}",
                file=path,
                remedy='write {"column": value, …}',
            )
        rows.append(item)
        columns.update(dict.fromkeys(item))
    return [row if len(row) == len(columns) else {name: row.get(name) for name in columns} for row in rows]


def _read_csv(path: Path) -> list[dict[str, Any]]:
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    rows: list[dict[str, Any]] = []
    try:
        columns = next(reader, None)
        if columns is None:
            return []
        if len(set(columns)) < len(columns):
            raise DataError("line 1: a column name occurs twice", file=path, remedy="rename the column")
        for cells in reader:
            if not cells:  # a blank line
                continue
            if len(cells) != len(columns):
                raise DataError(
                    f"line {reader.line_num}: {len(cells)} cells under {len(columns)} column names",
                    file=path,
                    remedy="put cells with commas or line feeds in double quotes",
                )
            rows.append(dict(zip(columns, cells, strict=True)))
    except csv.Error as error:
        raise DataError(
            f"line {reader.line_num}: {error}", file=path, remedy="write a quote inside a cell twice"
        ) from error
    return rows


def _read_parquet(path: Path) -> Sequence[Mapping[str, Any]]:
    import datasets
    import pyarrow
    import pyarrow.parquet

    with _open(path) as stream:
        content = pyarrow.BufferReader(stream.read())
    try:
        rows: Sequence[Mapping[str, Any]] = datasets.Dataset(pyarrow.parquet.read_table(content))
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"not Parquet: {error}", file=path, remedy="check the file") from error
    return rows
