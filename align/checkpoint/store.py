"""Checkpoints that are either whole or not there.

A checkpoint is written aside, made durable and then renamed, so a run that dies at any moment
leaves the earlier one in force. Its manifest holds a digest of each file; loading compares them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.errors import CheckpointError

_MANIFEST = "manifest.json"
_STATE = "state.json"
_POINTER = "latest"
_ASIDE = ".tmp-"
_NAME = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One saved step on disk, as its manifest describes it."""

    path: Path
    step: int
    recipe_hash: str
    files: Mapping[str, tuple[int, str]]
    """Relative path → (bytes, sha256)."""

    def verify(self) -> None:
        """Compare every file with the manifest.

        Raises:
            CheckpointError: naming the first file that is missing, cut short or altered.
        """
        for name, (size, digest) in self.files.items():
            file = self.path / name
            if not file.is_file():
                raise self._corrupt(file, "the file is missing from the checkpoint")
            found = file.stat().st_size
            if found != size:
                raise self._corrupt(file, f"the file has {found} bytes, {size} were saved")
            if _digest(file) != digest:
                raise self._corrupt(file, "the content is not what was saved (sha256 differs)")

    def state(self) -> dict[str, Any]:
        """What the run stored beside the weights (data cursor, weight version, …)."""
        state: dict[str, Any] = json.loads((self.path / _STATE).read_text(encoding="utf-8"))
        return state

    def _corrupt(self, file: Path, message: str) -> CheckpointError:
        return CheckpointError(message, file=file, remedy=_remedy(self.path))


class CheckpointStore:
    """The ``checkpoints/`` directory of one run."""

    def __init__(self, root: Path, keep: int, recipe_hash: str) -> None:
        """
        Args:
            root: directory of the checkpoints; made at the first save.
            keep: how many checkpoints stay.
            recipe_hash: see ``align.report.run_directory.recipe_hash``.
        """
        self.root = Path(root)
        self.keep = keep
        self.recipe_hash = recipe_hash

    def save(self, step: int, write: Callable[[Path], None], state: dict[str, Any]) -> Path:
        """Save one step and prune.

        Checkpoints of later steps (left when the run went back to an earlier one) go as well.

        Args:
            step: optimiser steps done.
            write: fills the given empty directory.
            state: JSON values kept beside the weights.

        Returns:
            The directory of the new checkpoint.

        Raises:
            CheckpointError: the directory cannot be written, for instance on a full disk.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._clean()
            target = self.root / f"step-{step:06d}"
            aside = self.root / f"{_ASIDE}{target.name}"
            try:
                aside.mkdir()
                write(aside)
                self._describe(aside, step, state)
                self._commit(aside, target)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
            self._prune(step)
        except OSError as error:
            raise CheckpointError(
                f"cannot save step {step}: {error.strerror or error}",
                file=error.filename or self.root,
                remedy="free or mount the disk, then continue with --resume; earlier checkpoints are intact",
            ) from error
        return target

    def latest(self) -> Checkpoint | None:
        """The checkpoint to resume from; None before the first save.

        Raises:
            CheckpointError: the pointer names nothing, the manifest is unreadable, or the
                checkpoint belongs to another recipe.
        """
        found = self.latest_of(self.root)
        if found is not None and found.recipe_hash != self.recipe_hash:
            raise CheckpointError(
                "the checkpoint was saved under another recipe",
                file=found.path,
                remedy="resume with the resolved.yaml of the run directory, or start under another name",
            )
        return found

    @staticmethod
    def latest_of(root: Path) -> Checkpoint | None:
        """The checkpoint in force under ``root``, whatever its recipe."""
        pointer = root / _POINTER
        if pointer.is_file():
            path = root / pointer.read_text(encoding="utf-8").strip()
            if not path.is_dir():
                raise CheckpointError(
                    f"the pointer names {path.name!r}, which is not there", file=pointer, remedy=_remedy(path)
                )
            return open_checkpoint(path)
        # The first save was cut off between its rename and the pointer: the rename counts.
        saved = _saved(root)
        return open_checkpoint(saved[-1][1]) if saved else None

    def _describe(self, aside: Path, step: int, state: dict[str, Any]) -> None:
        """Write state and manifest, and push every file to the disk."""
        (aside / _STATE).write_text(json.dumps(state, indent=2), encoding="utf-8")
        files = sorted(path for path in aside.rglob("*") if path.is_file())
        entries = {
            path.relative_to(aside).as_posix(): {"bytes": path.stat().st_size, "sha256": _digest(path)}
            for path in files
        }
        manifest = {"step": step, "recipe_hash": self.recipe_hash, "files": entries}
        (aside / _MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
        for path in [*files, aside / _MANIFEST, *_folders(aside)]:
            _sync(path)

    def _commit(self, aside: Path, target: Path) -> None:
        if target.exists():  # saved by an earlier attempt that went past this step
            replaced = self.root / f"{_ASIDE}replaced-{target.name}"
            target.rename(replaced)
        aside.rename(target)
        _sync(self.root)
        pointer = self.root / f"{_ASIDE}{_POINTER}"
        pointer.write_text(target.name + "\n", encoding="utf-8")
        _sync(pointer)
        pointer.replace(self.root / _POINTER)
        _sync(self.root)
        self._clean()

    def _prune(self, step: int) -> None:
        saved = _saved(self.root)
        kept = [path for number, path in saved if number <= step][-self.keep :]
        for _, path in saved:
            if path not in kept:
                shutil.rmtree(path)

    def _clean(self) -> None:
        """Remove what an interrupted save left."""
        for path in self.root.glob(f"{_ASIDE}*"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def open_checkpoint(path: Path) -> Checkpoint:
    """Read the manifest of one checkpoint directory; the files are compared by ``verify``.

    Raises:
        CheckpointError: no manifest, or one that cannot be read.
    """
    file = path / _MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        files = {name: (entry["bytes"], entry["sha256"]) for name, entry in manifest["files"].items()}
        checkpoint = Checkpoint(path, int(manifest["step"]), manifest["recipe_hash"], files)
    except FileNotFoundError as error:
        raise CheckpointError("the manifest is missing", file=file, remedy=_remedy(path)) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"the manifest cannot be read: {error}", file=file, remedy=_remedy(path)
        ) from error
    named = _NAME.fullmatch(path.name)
    if named and int(named[1]) != checkpoint.step:
        raise CheckpointError(
            f"the manifest is of step {checkpoint.step}, the directory of step {int(named[1])}",
            file=file,
            remedy=_remedy(path),
        )
    return checkpoint


def _remedy(path: Path) -> str:
    """Point at the newest other checkpoint, if there is one."""
    others = [name.name for _, name in _saved(path.parent) if name != path]
    if not others:
        return "no other checkpoint is left: restore the directory from a copy, or start the run anew"
    return f"write {others[-1]} into {path.parent / _POINTER} to go on from there"


def _saved(root: Path) -> list[tuple[int, Path]]:
    """Complete checkpoints, oldest first."""
    matches = [(_NAME.fullmatch(path.name), path) for path in root.iterdir()] if root.is_dir() else []
    return sorted((int(match[1]), path) for match, path in matches if match and path.is_dir())


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _folders(root: Path) -> Iterator[Path]:
    yield from (path for path in root.rglob("*") if path.is_dir())
    yield root


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
