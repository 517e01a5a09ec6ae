"""Rows from a local file, a folder or the hub.

Local files are read into memory and leave no cache behind. JSON keeps its types, a CSV or TSV cell is
always text, Parquet and Arrow keep their columns in Arrow.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from align.config.places import is_there
from align.dataset.rows.files import EXTENSIONS, PACKED, data_extension, read_file
from align.errors import DataError

Rows = Sequence[Mapping[str, Any]]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_HUB_SECONDS = 5.0
_LOCAL = (
    "=LOCAL (a .jsonl, .json, .csv, .tsv, .parquet or .arrow file, also packed as "
    f"{', '.join(PACKED)}, or a folder of them)"
)
_NO_DATA = re.compile(r"\.(zip|tar|7z|rar|lz4|txt|md|xlsx?|pkl|pickle|yaml|yml|bin|db|sqlite)(\.\w+)?$", re.I)
"""Files that are none of a hub data set's name, and not read."""
_SHARD = r"-\d{5,}(-of-\d+)?"


def load_rows(
    path: str,
    *,
    subset: str | None = None,
    split: str = "train",
    file: str | Path | None = None,
    key: str | None = None,
) -> Rows:
    """Every row of one source, each a mapping of column to value.

    Args:
        path: local file, local folder, or hub id where nothing of that name exists.
        subset: configuration of a hub data set; in a folder, its sub-folder of that name if there
            is one; nothing to a file.
        split: split of a hub data set or a folder; nothing to a file.
        file: recipe, for error messages.
        key: dotted key of the path in the recipe, for error messages.

    Raises:
        DataError: missing file, folder or split; malformed row (file and line); no rows; the hub
            cannot be reached or has no such data set.
    """
    local = Path(path).expanduser()
    if local.is_dir():
        rows = _from_folder(local, subset, split, file=file, key=key)
    elif local.is_file():
        rows = read_file(local)
    elif _looks_local(path):
        raise DataError(
            f"no such file or folder: {path}",
            file=file,
            key=key,
            remedy=f"check the path, or {_name_local(key)}",
        )
    else:
        rows = _from_hub(path, subset, split, file=file, key=key)
    if not len(rows):
        raise DataError(f"{path} has no rows", file=file, key=key, remedy="name a source with rows in it")
    return rows


def _name_local(key: str | None) -> str:
    return f"set {key or 'data.path'}{_LOCAL}"


def _looks_local(path: str) -> bool:
    return not _HUB_ID.fullmatch(path) or bool(data_extension(path) or _NO_DATA.search(path))


def _from_folder(
    folder: Path, subset: str | None, split: str, *, file: str | Path | None, key: str | None
) -> Rows:
    if subset and (folder / subset).is_dir():
        folder = folder / subset
    if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
        return _from_disk(folder, split, file=file, key=key)
    names = [split + extension + packing for extension in EXTENSIONS for packing in ("", *PACKED)]
    found = [folder / name for name in names if is_there(folder / name)]
    if len(found) > 1:
        both = ", ".join(path.name for path in found)
        raise DataError(
            f"{folder} has the split {split!r} more than once: {both}",
            file=file,
            key=key,
            remedy="name one of these files as the path",
        )
    shards = _shards(folder / "data", split) or _shards(folder, split)
    if not found and shards:
        return _joined([read_file(shard) for shard in shards])
    candidates = sorted(path for path in folder.iterdir() if path.is_file() and data_extension(path.name))
    if not found and len(candidates) == 1:
        found = candidates
    if not found:
        more = [f"{len(candidates) - 4} more"] if len(candidates) > 4 else []
        there = ", ".join([path.name for path in candidates[:4]] + more) or "none"
        raise DataError(
            f"{folder} has no split {split!r}; data files there: {there}",
            file=file,
            key=key,
            remedy=f"set split to one of {_split_names(candidates)}" if candidates else _name_local(key),
        )
    return read_file(found[0])


def _from_disk(folder: Path, split: str, *, file: str | Path | None, key: str | None) -> Rows:
    """What ``datasets`` wrote by ``save_to_disk``: one data set, or one for each split."""
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:  # a broken folder fails in any way
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(
            f"{folder} was written by save_to_disk and cannot be read: {reason}",
            file=file,
            key=key,
            remedy="write it again, or name one of its .arrow files as the path",
        ) from error
    if not isinstance(loaded, Mapping):
        whole: Rows = loaded
        return whole
    if split not in loaded:
        raise DataError(
            f"{folder} has no split {split!r}",
            file=file,
            key=key,
            remedy=f"set split to one of {', '.join(map(str, loaded))}",
        )
    rows: Rows = loaded[split]
    return rows


def _shards(folder: Path, split: str) -> list[Path]:
    """``{split}-00000-of-00002.parquet`` and the others, in order."""
    if not folder.is_dir():
        return []
    shards = [path for path in folder.iterdir() if path.is_file() and data_extension(path.name)]
    any_name = sorted(path for path in shards if path.match(f"{split}-*.parquet"))
    found = any_name or sorted(
        path for path in shards if re.match(rf"{re.escape(split)}{_SHARD}\.", path.name)
    )
    _check_complete(found)
    return found


def _check_complete(shards: Sequence[Path]) -> None:
    """Refuse a split of which a file is missing, where the names say how many there are."""
    numbered = [match for path in shards if (match := re.search(r"-(\d{5,})-of-(\d+)", path.name))]
    for total in {match[2] for match in numbered}:
        there = {int(match[1]) for match in numbered if match[2] == total}
        absent = sorted(set(range(int(total))) - there)
        if absent:
            sample = next(match for match in numbered if match[2] == total)
            number = str(absent[0]).zfill(len(sample[1]))
            name = sample.string.replace(sample[0], f"-{number}-of-{total}")
            raise DataError(
                f"{len(absent)} of {int(total)} files of this split are missing, the first is {name}",
                file=shards[0].parent,
                remedy="copy it there, or name the files that there are",
            )


def _joined(shards: Sequence[Rows]) -> Rows:
    import datasets

    if all(isinstance(shard, datasets.Dataset) for shard in shards):
        joined: Rows = datasets.concatenate_datasets(list(shards))
        return joined
    rows = [dict(row) for shard in shards for row in shard]
    columns = dict.fromkeys(column for row in rows for column in row)
    return [{column: row.get(column) for column in columns} for row in rows]


def _split_names(files: Sequence[Path]) -> str:
    """Names of files without extension, and of shards without their number."""
    extensions, packings = ("|".join(map(re.escape, names)) for names in (EXTENSIONS, PACKED))
    pattern = rf"({_SHARD})?({extensions})({packings})?$"
    names = (re.sub(pattern, "", path.name, flags=re.IGNORECASE) for path in files)
    return ", ".join(dict.fromkeys(names))


def _from_hub(name: str, subset: str | None, split: str, *, file: str | Path | None, key: str | None) -> Rows:
    import datasets
    import huggingface_hub

    # The libraries retry an unreachable hub for half a minute. Ask once, and if nobody answers let
    # them look in their own cache only.
    offline = bool(datasets.config.HF_HUB_OFFLINE)
    asked = offline or not _reachable(huggingface_hub)
    switches = [(datasets.config, "HF_HUB_OFFLINE"), (huggingface_hub.constants, "HF_HUB_OFFLINE")]
    before = [getattr(module, switch) for module, switch in switches]
    try:
        for module, switch in switches:
            setattr(module, switch, asked)
        rows: Rows = datasets.load_dataset(name, subset, split=split)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if offline:
            why = "the hub is off (HF_HUB_OFFLINE is set) and the data set is not in the local cache"
        elif asked:
            why = f"the hub ({huggingface_hub.constants.ENDPOINT}) cannot be reached"
        else:
            why = reason
        raise DataError(
            f"{name!r} is no local file or folder, and as a hub data set it cannot be loaded: {why}",
            file=file,
            key=key,
            remedy=f"check name, subset and split, or {_name_local(key)}",
        ) from error
    finally:
        for (module, switch), value in zip(switches, before, strict=True):
            setattr(module, switch, value)
    return rows


def _reachable(huggingface_hub: Any) -> bool:
    """Whether the hub answers one request within seconds."""
    from huggingface_hub import get_session

    try:
        get_session().head(huggingface_hub.constants.ENDPOINT, timeout=_HUB_SECONDS)
    except Exception:  # name, route, proxy, certificate, time: whatever the cause, it is out of reach
        return False
    return True
