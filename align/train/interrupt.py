"""Ctrl-C that lets the step in hand finish."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_log = logging.getLogger(__name__)


_asked = threading.Event()


def ask_to_stop() -> None:
    """As the first Ctrl-C, where no signal can be caught: training in an actor is in a thread of its own."""
    _asked.set()


class StopRequest:
    """Turns the first SIGINT or SIGTERM, or :func:`ask_to_stop`, into a wish, a second signal into
    KeyboardInterrupt.

    Usage::

        with StopRequest() as stop:
            for step in …:
                if stop.requested:
                    save(); break

    Outside the main thread, where signals cannot be caught, it is only asked.
    """

    def __init__(self) -> None:
        self._noted = False
        self._before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether to stop after the step in hand."""
        return self._noted or _asked.is_set()

    def __enter__(self) -> StopRequest:
        _asked.clear()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self._noted = True
        _log.warning("stopping after this step with a checkpoint; press Ctrl-C again to stop at once")
