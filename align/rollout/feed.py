"""Work that reaches an engine while it samples."""

from __future__ import annotations

from collections.abc import Sequence
from queue import Empty, SimpleQueue

from align.types import Group, Prompt

Work = Prompt | Group
"""A prompt to be asked G times, or a group that an earlier step left unfinished."""


class Abandoned(Exception):
    """Nobody wants what is still sampled."""


class Feed:
    """Filled by one thread, emptied by the one that samples.

    Usage: ``put`` any number of times, then ``close`` or ``abandon``; the other side calls ``take`` until it
    gives None.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[list[Work] | Abandoned | None] = SimpleQueue()

    def put(self, work: Sequence[Work]) -> None:
        """Hand over more."""
        self._queue.put(list(work))

    def close(self) -> None:
        """Nothing more comes."""
        self._queue.put(None)

    def abandon(self) -> None:
        """Nothing more comes, and what is not finished is dropped."""
        self._queue.put(Abandoned())

    def take(self, *, wait: bool) -> list[Work] | None:
        """What came since last asked; None once nothing comes any more.

        Args:
            wait: for something, when nothing has come.

        Raises:
            Abandoned: what runs is to be dropped.
        """
        try:
            found = self._queue.get(block=wait)
        except Empty:
            return []
        if isinstance(found, Abandoned):
            raise found
        return found


def closed(work: Sequence[Work]) -> Feed:
    """All the work there will be."""
    feed = Feed()
    feed.put(work)
    feed.close()
    return feed
