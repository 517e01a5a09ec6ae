"""Where sampler, rewards and carried groups stood after each of the last steps' samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

KEPT = 3
"""Steps: the one sampled ahead, the one that is trained, the one before it."""


class Marks:
    """Notes states by step, so that a checkpoint of step t says where t ends, though t + 1 is drawn already.

    Usage: ``marks.note(step)`` after sampling and scoring; ``marks.at(step)`` when it is saved.
    """

    def __init__(self, state: Callable[[], Mapping[str, Any]]) -> None:
        """``state`` gives the present state as JSON values."""
        self._state = state
        self._noted: dict[int, Mapping[str, Any]] = {}

    def note(self, step: int) -> None:
        """Note the present state as that of ``step``."""
        self._noted[step] = self._state()
        for old in sorted(self._noted)[:-KEPT]:
            del self._noted[old]

    def at(self, step: int) -> Mapping[str, Any]:
        """The state of a step noted lately; the present one for a step that never was."""
        return self._noted.get(step) or self._state()
