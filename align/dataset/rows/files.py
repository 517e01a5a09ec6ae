"""One data file as a list of rows, with file and line in every error."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from align.dataset.rows.json_text import read_json
from align.errors import DataError
from align.lfs import FETCH, POINTER, is_pointer

EXTENSIONS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
PACKED = (".gz", ".zst", ".xz", ".bz2")
"""Each file may be packed so."""

csv.field_size_limit(2**31 - 1)  # the default refuses a cell of more than 128 KiB


def data_extension(name: str) -> str | None:
    """The extension of a data file, without that of its packing; None for another file."""
    lower = name.lower()
    for packing in PACKED:
        lower = lower.removesuffix(packing)
    return next((extension for extension in EXTENSIONS if lower.endswith(extension)), None)


def read_file(path: Path) -> Sequence[Mapping[str, Any]]:
    """The rows of one file, all with the same columns; a value that a row lacks is None.

    Raises:
        DataError: not a data file, unreadable, or a malformed row.
    """
    readers: dict[str | None, Callable[[Path], Sequence[Mapping[str, Any]]]] = {
        ".jsonl": _read_json,
        ".ndjson": _read_json,
        ".json": _read_json,
        ".csv": _read_csv,
        ".tsv": _read_csv,
        ".parquet": _read_parquet,
        ".arrow": _read_arrow,
    }
    reader = readers.get(data_extension(path.name))
    if reader is None:
        raise DataError(
            "not a data file",
            file=path,
            remedy=f"use {', '.join(EXTENSIONS)}, or one of these packed as {', '.join(PACKED)}",
        )
    if is_pointer(path):
        raise DataError(POINTER, file=path, remedy=FETCH)
    try:
        return reader(path)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"cannot be read: {error}", file=path, remedy="check the file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 text: {error}", file=path, remedy="save it as UTF-8") from error


def _content(path: Path) -> bytes:
    packing = path.suffix.lower()
    if packing == ".zst":
        import pyarrow

        with pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd") as stream:
            return bytes(stream.read())
    openers: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
    with openers.get(packing, open)(path, "rb") as stream:
        return bytes(stream.read())


def _text(path: Path) -> str:
    return _content(path).decode("utf-8-sig")


def _read_json(path: Path) -> list[dict[str, Any]]:
    return read_json(_text(path), path)


def _read_csv(path: Path) -> list[dict[str, Any]]:
    delimiter = "\t" if data_extension(path.name) == ".tsv" else ","
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True, delimiter=delimiter)
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
                apart = "commas" if delimiter == "," else "tabs"
                raise DataError(
                    f"line {reader.line_num}: {len(cells)} cells under {len(columns)} column names",
                    file=path,
                    remedy=f"put cells with {apart} or line feeds in double quotes",
                )
            rows.append(dict(zip(columns, cells, strict=True)))
    except csv.Error as error:
        raise DataError(
            f"line {reader.line_num}: {error}", file=path, remedy="write a quote inside a cell twice"
        ) from error
    return rows


def _read_parquet(path: Path) -> Sequence[Mapping[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    return _table(path, "Parquet", lambda source: pyarrow.parquet.read_table(source))


def _read_arrow(path: Path) -> Sequence[Mapping[str, Any]]:
    import pyarrow

    def read(source: Any) -> Any:
        """A file of Arrow's IPC format, or a stream, as ``datasets`` writes it."""
        try:
            return pyarrow.ipc.open_file(source).read_all()
        except pyarrow.ArrowInvalid:
            source.seek(0)
            return pyarrow.ipc.open_stream(source).read_all()

    return _table(path, "Arrow", read)


def _table(path: Path, kind: str, read: Callable[[Any], Any]) -> Sequence[Mapping[str, Any]]:
    import datasets
    import pyarrow

    try:
        rows: Sequence[Mapping[str, Any]] = datasets.Dataset(read(pyarrow.BufferReader(_content(path))))
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"not {kind}: {error}", file=path, remedy="check the file") from error
    return rows
