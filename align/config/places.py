"""Whether a file or directory can be what a recipe says."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import NamedTuple

from pydantic_core import PydanticCustomError

from align.config.base import refusal
from align.errors import RecipeError

NAME_BYTES = 255
"""Longest name of a file or directory, on every file system in use."""
PATH_BYTES = 4095
"""Longest path that Linux takes."""
_HUB_ID = re.compile(r"[\w-]+(/[\w.-]+)?")
"""A name on the hub, whatever lies here under the name of its owner, which has no dot."""
INSIDE_BYTES = 160
"""What a run adds to its directory at most: ``rollouts/step-000001.parquet``, checkpoints, event files."""


def place_fault(directory: Path, *, key: str) -> PydanticCustomError | None:
    """Why no run directory can have this path, whatever the machine; None where one can.

    Args:
        directory: the run directory.
        key: where the recipe says it.
    """
    path = str(directory)
    if path in ("", "."):
        return refusal("a run needs a directory of its own", key=key, remedy="name one, or leave it out")
    if fault := path_fault(path):
        return refusal(fault.message, key=key, remedy=fault.remedy)
    size = len(os.fsencode(os.path.abspath(path)))
    if size + INSIDE_BYTES > PATH_BYTES:
        return refusal(
            f"the path has {size} bytes, and a run's files add up to {INSIDE_BYTES}, where Linux "
            f"takes {PATH_BYTES} in all",
            key=key,
            remedy="shorten it",
        )
    return None


class PathFault(NamedTuple):
    """Why nothing can be at a path."""

    message: str
    remedy: str


def path_fault(path: str) -> PathFault | None:
    """Why no file system takes a path, whatever the machine; None where one does."""
    if "\0" in path:
        return PathFault("the path holds a NUL character", "take the \\0 out")
    try:
        absolute = os.fsencode(os.path.abspath(os.path.expanduser(path)))
    except UnicodeEncodeError as error:
        return PathFault(
            f"the path holds {error.object[error.start]!r}, which is no character", "take it out"
        )
    for name in absolute.split(b"/"):
        if len(name) > NAME_BYTES:
            return PathFault(
                f"a name in the path has {len(name)} bytes, and file systems take {NAME_BYTES}: "
                f"{os.fsdecode(name[:40])}…",
                "shorten it",
            )
    if len(absolute) > PATH_BYTES:
        return PathFault(f"the path has {len(absolute)} bytes, and Linux takes {PATH_BYTES}", "shorten it")
    return None


def readable(path: str | None) -> str | None:
    """For validators of what is read: a path, a hub id, or a name that becomes part of a path.

    Raises:
        PydanticCustomError: no file system takes it, or it leads through a file.
    """
    fault = path_fault(path) if path else None
    if path and fault is None and not _HUB_ID.fullmatch(path):
        local = os.path.expanduser(path)
        above = next((each for each in map(str, Path(local).parents) if os.path.lexists(each)), "/")
        if not os.path.isdir(above):
            fault = PathFault(f"{path} cannot be there: {above} is no directory", "check the path")
    if fault:
        raise refusal(fault.message, key="", remedy=fault.remedy)
    return path


def is_there(path: Path) -> bool:
    """Whether a path is a file's; one that is too long for a file system is not."""
    try:
        return path.is_file()
    except OSError:
        return False


def check_place(directory: Path, *, key: str, file: str | Path | None = None) -> None:
    """See that a run directory can be made on this machine.

    Args:
        directory: the run directory; it need not be there.
        key: where the recipe says it.
        file: the recipe, for messages.

    Raises:
        RecipeError: it or a folder above it is no directory, may not be written to, or takes no files
            (/proc, /sys, a file system that is read-only or full).
    """
    there = next(
        path for path in (directory.absolute(), *directory.absolute().parents) if os.path.lexists(path)
    )
    if not there.is_dir():
        raise RecipeError(
            f"the run directory {directory} cannot be made: {there} is no directory",
            file=file,
            key=key,
            remedy="name another",
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise RecipeError(
            f"the run directory {directory} cannot be made: {there} may not be written to",
            file=file,
            key=key,
            remedy="name another, or change its permissions",
        )
    try:  # permissions say nothing of /proc, of control groups and of read-only file systems
        with tempfile.TemporaryDirectory(prefix=".align-", dir=there) as trial:
            (Path(trial) / "file").write_bytes(b"0")
    except OSError as error:
        raise RecipeError(
            f"the run directory {directory} cannot be made: {there} takes no files ({error.strerror})",
            file=file,
            key=key,
            remedy="name another",
        ) from error
