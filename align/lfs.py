"""Files that Git LFS keeps elsewhere: a clone without it has a pointer of a few lines in their place."""

from __future__ import annotations

from pathlib import Path

_BEGIN = b"version https://git-lfs.github.com/spec/"
POINTER = "this is a pointer: Git LFS keeps the file itself elsewhere"
"""What is wrong with such a file."""
FETCH = "fetch it: `git lfs install && git lfs pull` in the repository it was cloned from"
"""The remedy."""


def is_pointer(path: Path) -> bool:
    """Whether a file is such a pointer."""
    try:
        with path.open("rb") as file:
            return file.read(len(_BEGIN)) == _BEGIN
    except OSError:
        return False
