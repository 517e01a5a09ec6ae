"""Rows from JSON text, with their line in every error.

Read are one object a line, one array of objects, objects spread over several lines, and one object that
holds the rows under a name such as ``data``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from align.errors import DataError

_ROWS = ("data", "rows", "examples", "instances", "items", "records", "samples")
"""Names under which one object holds rows."""
_SPLITS = ("train", "test", "validation", "valid", "val", "dev", "eval")
_SOLID = re.compile(r"\S")
_WRITE = "write one object per line, or one array of objects"


def read_json(text: str, path: Path) -> list[dict[str, Any]]:
    """The rows in a text, all with the same columns in the order in which these first occur.

    Args:
        text: of the whole file.
        path: the file, for error messages.

    Raises:
        DataError: not JSON (naming the line); a row is no object; the file holds columns or several splits.
    """
    if text.lstrip().startswith("["):
        try:
            items = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(
                f"line {error.lineno}: not JSON: {error.msg}", file=path, remedy="mend the file"
            ) from error
        except (ValueError, RecursionError) as error:
            raise _beyond("the array", error, path) from error
        return _even([(f"item {number}", item) for number, item in enumerate(items, 1)], path)
    found: list[tuple[str, Any]] = []
    try:
        found.extend(_lines(text, path))
    except json.JSONDecodeError as error:
        spread = _spread(text, path, begun=bool(found))
        if spread is None:
            line, column = error.lineno, error.colno
            raise DataError(
                f"line {line}: not JSON: {error.msg} (column {column})", file=path, remedy=_WRITE
            ) from error
        found = spread
    if len(found) == 1 and isinstance(found[0][1], dict):
        found = _inside(found[0][1], path) or found
    return _even(found, path)


def _lines(text: str, path: Path) -> Iterator[tuple[str, Any]]:
    """The value of each line with its place.

    Raises:
        JSONDecodeError: with the line's number in the text.
        DataError: as :func:`_beyond`.
    """
    start = 0
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: U+2028 may stand in a text
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except json.JSONDecodeError as error:
                raise json.JSONDecodeError(error.msg, text, start + error.pos) from None
            except (ValueError, RecursionError) as error:
                raise _beyond(f"line {number}", error, path) from error
        start += len(line) + 1


def _spread(text: str, path: Path, *, begun: bool) -> list[tuple[str, Any]] | None:
    """Objects of several lines each, every one begun on a line of its own; None where these are none.

    Args:
        text: of the whole file.
        path: the file, for error messages.
        begun: lines before the faulty one are whole values: the file has a value a line.

    Raises:
        DataError: no line of the text is a value, and what is spread over several is none either.
    """
    decoder = json.JSONDecoder()
    found: list[tuple[str, Any]] = []
    place = len(text) - len(text.lstrip())
    number, counted = 1, 0
    while place < len(text):
        number += text.count("\n", counted, place)
        counted = place
        try:
            value, end = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            if begun or error.lineno == number:
                return None
            raise DataError(
                f"line {error.lineno}: not JSON: {error.msg} (column {error.colno})",
                file=path,
                remedy=f"mend the object that begins in line {number}, or {_WRITE}",
            ) from error
        except (ValueError, RecursionError) as error:
            raise _beyond(f"line {number}", error, path) from error
        found.append((f"line {number}", value))
        found_next = _SOLID.search(text, end)
        place = found_next.start() if found_next else len(text)
        if "\n" not in text[end:place] and found_next:
            return None
    return found


def _inside(whole: dict[str, Any], path: Path) -> list[tuple[str, Any]] | None:
    """The rows that a file's one object holds; None where the object is a row itself.

    Raises:
        DataError: it holds several splits, or columns.
    """
    names = [name for name in _ROWS if _is_rows(whole.get(name))]
    others = [value for name, value in whole.items() if name not in names[:1]]
    if len(names) == 1 and not any(isinstance(value, dict | list) for value in others):
        return [(f"{names[0]}: item {number}", item) for number, item in enumerate(whole[names[0]], 1)]
    splits = [name for name, value in whole.items() if name.lower() in _SPLITS and _is_rows(value)]
    if splits and len(splits) == len(whole):
        raise DataError(
            f"the file is one object with the rows of {', '.join(splits)} inside",
            file=path,
            remedy=f"write each to a file of its own, {splits[0]}.jsonl, with one object per line",
        )
    columns = list(whole.values())
    as_pandas = all(isinstance(value, dict) and value and all(map(str.isdigit, value)) for value in columns)
    sizes = {len(value) if isinstance(value, list) else None for value in columns}
    as_lists = (
        len(columns) > 1 and len(sizes) == 1 and not sizes & {None, 0} and not any(map(_is_nested, columns))
    )
    if whole and (as_pandas or as_lists):
        raise DataError(
            f"the file is one object of columns ({', '.join(whole)}), not of rows",
            file=path,
            remedy=f"{_WRITE}; pandas does so by to_json(orient='records', lines=True)",
        )
    return None


def _is_rows(value: Any) -> bool:
    """Whether it is a list of objects that are no messages of one conversation."""
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        return False
    return not all("role" in item or "from" in item for item in value)


def _is_nested(values: Any) -> bool:
    return any(isinstance(item, dict | list) for item in values)


def _beyond(place: str, error: Exception, path: Path) -> DataError:
    """JSON that Python does not read: a number of thousands of digits, nesting of thousands of brackets."""
    deep = isinstance(error, RecursionError)
    what = "brackets inside brackets, too deep to read" if deep else f"a number too long to read: {error}"
    return DataError(f"{place}: {what}", file=path, remedy="take it out, or write it as text")


def _even(items: list[tuple[str, Any]], path: Path) -> list[dict[str, Any]]:
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
