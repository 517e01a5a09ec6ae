"""Every error that align raises on purpose.

    AlignError
    ├── RecipeError        a recipe, an override or a combination of settings is wrong
    ├── DataError          a data set is missing, empty or malformed
    ├── ModelError         a model directory, tokenizer or template is unusable
    ├── RewardError        a reward function cannot be used, or the error budget is spent
    ├── EngineError        a rollout engine or a worker process failed
    │   ├── SyncError      trainer and engine do not hold the same weights
    │   └── NonFiniteError a reward, loss or gradient is no finite number
    └── CheckpointError    a checkpoint is incomplete, corrupt or of another recipe

Each carries where the fault is (file, key) and what to do about it (remedy), so that the
command line can show one clear message and leave the traceback to ``--debug``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_REMEDY = re.compile(r"\n  remedy: ([^\n]*)")


class AlignError(Exception):
    """A fault that the user can mend. Where the message quotes another such error, the remedies become one.

    Args:
        message: what is wrong, in one sentence.
        file: the file that holds the fault.
        key: the dotted key, column or function name inside that file.
        remedy: what to do about it, in one sentence.
    """

    #: Exit status of the command line: 2 for bad input, 1 for a run that failed.
    exit_code = 2

    def __init__(
        self,
        message: str,
        *,
        file: str | Path | None = None,
        key: str | None = None,
        remedy: str | None = None,
    ) -> None:
        remedies = [*_REMEDY.findall(message), *([remedy] if remedy else [])]
        message = _REMEDY.sub("", message)
        super().__init__(message)
        self.message = message
        self.file = None if file is None else str(file)
        self.key = key
        self.remedy = "; ".join(dict.fromkeys(remedies)) or None

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.file, self.key) if part)
        text = f"{where}: {self.message}" if where else self.message
        return f"{text}\n  remedy: {self.remedy}" if self.remedy else text

    def __reduce__(self) -> tuple[Any, ...]:  # keyword arguments must survive the trip between processes
        return _rebuild, (type(self), self.message, self.file, self.key, self.remedy)


def _rebuild(
    kind: type[AlignError], message: str, file: str | None, key: str | None, remedy: str | None
) -> AlignError:
    return kind(message, file=file, key=key, remedy=remedy)


class RecipeError(AlignError):
    """A recipe, an override or a combination of settings is wrong."""


class DataError(AlignError):
    """A data set is missing, empty or malformed."""


class ModelError(AlignError):
    """A model directory, tokenizer or chat template is unusable."""


class RewardError(AlignError):
    """A reward function cannot be used, or the error budget is spent."""


class EngineError(AlignError):
    """A rollout engine or a worker process failed while the run was under way."""

    exit_code = 1


class SyncError(EngineError):
    """Trainer and rollout engine do not hold the same weights."""


class NonFiniteError(EngineError):
    """A reward, loss, gradient or weight is not finite. The policy is as it was before the update."""


class CheckpointError(AlignError):
    """A checkpoint is incomplete, corrupt or belongs to another recipe."""
