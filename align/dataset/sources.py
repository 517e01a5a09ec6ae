"""Rows from a local file, a folder or the hub.

Local files are read into memory and leave no cache behind. JSON keeps its types, a CSV cell is
always text, Parquet keeps its columns in Arrow.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from align.dataset.files import EXTENSIONS, read_file
from align.errors import DataError

Rows = Sequence[Mapping[str, Any]]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_HUB_SECONDS = 5.0
_REMEDY = "set data.path=LOCAL (a .jsonl, .json, .csv or .parquet file, also .gz, or a folder of them)"


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
            f"no such file or folder: {path}", file=file, key=key, remedy=f"check the path, or {_REMEDY}"
        )
    else:
        rows = _from_hub(path, subset, split, file=file, key=key)
    if not len(rows):
        raise DataError(f"{path} has no rows", file=file, key=key, remedy="name a source with rows in it")
    return rows


def _looks_local(path: str) -> bool:
    return not _HUB_ID.fullmatch(path) or _is_data(path)


def _is_data(name: str) -> bool:
    return name.removesuffix(".gz").endswith(EXTENSIONS)


def _from_folder(
    folder: Path, subset: str | None, split: str, *, file: str | Path | None, key: str | None
) -> Rows:
    if subset and (folder / subset).is_dir():
        folder = folder / subset
    names = [split + extension + gz for extension in EXTENSIONS for gz in ("", ".gz")]
    found = [folder / name for name in names if (folder / name).is_file()]
    if len(found) > 1:
        both = ", ".join(path.name for path in found)
        raise DataError(
            f"{folder} has the split {split!r} more than once: {both}",
            file=file,
            key=key,
            remedy="name one of these files as the path",
        )
    shards = sorted(folder.glob(f"data/{split}-*.parquet")) or sorted(folder.glob(f"{split}-*.parquet"))
    if not found and shards:
        import datasets

        joined: Rows = datasets.concatenate_datasets([read_file(shard) for shard in shards])
        return joined
    candidates = sorted(path for path in folder.iterdir() if path.is_file() and _is_data(path.name))
    if not found and len(candidates) == 1:
        found = candidates
    if not found:
        more = [f"{len(candidates) - 4} more"] if len(candidates) > 4 else []
        there = ", ".join([path.name for path in candidates[:4]] + more) or "none"
        raise DataError(
            f"{folder} has no split {split!r}; data files there: {there}",
            file=file,
            key=key,
            remedy=f"set split to one of {_split_names(candidates)}" if candidates else _REMEDY,
        )
    return read_file(found[0])


def _split_names(files: Sequence[Path]) -> str:
    """Names of files without extension, and of shards without their number."""
    pattern = "|".join(re.escape(extension) for extension in EXTENSIONS)
    names = (re.sub(rf"(-\d{{5,}}(-of-\d+)?)?({pattern})(\.gz)?$", "", path.name) for path in files)
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
            remedy=f"check name, subset and split, or {_REMEDY}",
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
