"""A reward file on its way to a machine that does not have it: its text and that of the files beside it."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

LARGEST = 1 << 20
"""Bytes of a parcel: Python files alone, of one folder."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """What travels."""

    path: str
    """Of the reward file where the run was started."""
    files: tuple[tuple[str, bytes], ...]
    """(name, contents) of it and of the Python files beside it, which it may import."""

    @property
    def digest(self) -> str:
        """Of its contents."""
        found = hashlib.sha256()
        for name, contents in self.files:
            found.update(f"{name}\0{len(contents)}\0".encode() + contents)
        return found.hexdigest()


def pack(reference: str) -> Parcel | None:
    """The parcel of a function's file; None for one of an installed package, which every machine has.

    Of a folder that is too large for a parcel the reward file goes alone.

    Args:
        reference: ``file.py:member``, or what a package is found by.
    """
    path = Path(reference.rpartition(":")[0])
    if path.suffix != ".py" or not path.is_file():
        return None
    beside = sorted(path.parent.glob("*.py"))
    if sum(each.stat().st_size for each in beside) > LARGEST:
        beside = [path]
    return Parcel(str(path), tuple((each.name, each.read_bytes()) for each in beside))


def arrived(parcel: Parcel | None, reference: str) -> str:
    """The reference to resolve on this machine: the same where the file is there as it was sent, else to a
    copy that only this user can write."""
    if parcel is None:
        return reference
    path, sent = Path(parcel.path), dict(parcel.files)
    if path.is_file() and path.read_bytes() == sent[path.name]:
        return reference
    home = Path(tempfile.gettempdir()) / f"align-rewards-{os.getuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    if home.is_symlink() or home.stat().st_uid != os.getuid():
        home = Path(tempfile.mkdtemp(prefix="align-rewards-"))
    folder = home / parcel.digest[:24]
    if not folder.is_dir():
        aside = Path(tempfile.mkdtemp(dir=home))
        for name, contents in parcel.files:
            (aside / name).write_bytes(contents)
        try:
            aside.rename(folder)
        except OSError:  # another process of this machine was faster
            return f"{folder / path.name}:{reference.rpartition(':')[2]}"
    return f"{folder / path.name}:{reference.rpartition(':')[2]}"
