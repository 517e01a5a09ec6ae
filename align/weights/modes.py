"""Who may read written weights."""

from __future__ import annotations

from pathlib import Path


def open_weights(folder: Path, *, like: str = "config.json") -> None:
    """Let whoever may read the file ``like`` read the weights beside it: safetensors makes files for their
    owner alone."""
    mode = (folder / like).stat().st_mode & 0o777
    for file in folder.glob("*.safetensors"):
        file.chmod(mode)
