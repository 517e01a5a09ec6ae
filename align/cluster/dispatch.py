"""Which engine samples which group: always the one with the fewest tokens before it.

Pure of Ray: engines are numbers, and what asks them is a Protocol.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush
from typing import Protocol

from align.errors import EngineError
from align.rollout.feed import Work
from align.types import Group, Prompt

_log = logging.getLogger(__name__)


class Engines(Protocol):
    """Engines that sample at the same time."""

    def begin(self, group_size: int, step: int) -> Sequence[int]:
        """Have every engine get ready for work; their numbers."""
        ...

    def feed(self, engine: int, work: Sequence[Work]) -> None:
        """Give an engine work; returns at once."""
        ...

    def next(self) -> tuple[int, Group | EngineError]:
        """Wait for the next group, and who made it; or for what ended an engine."""
        ...

    def end(self) -> None:
        """No engine gets more, and what some still have is dropped."""
        ...


def sample_on(
    engines: Engines,
    work: Sequence[Work],
    *,
    group_size: int,
    step: int,
    longest: int,
    sequences: int,
) -> Iterator[Group]:
    """All groups, in the order in which they end, whichever engine made them.

    An engine is given as many sequences as it decodes at once and one group more, so that it never waits;
    the rest stays here until some engine has room. What an engine had when it died goes to the others.

    Args:
        engines: who samples.
        work: prompts, and groups that an earlier step left unfinished.
        group_size: G.
        step: enters the seeds.
        longest: tokens of a completion at most.
        sequences: that an engine decodes at once.

    Raises:
        EngineError: no engine is left.
    """
    waiting = deque(work)
    load = _Load(engines.begin(group_size, step), group_size, longest, room=sequences + group_size)

    def hand_out() -> None:
        given: dict[int, list[Work]] = {}
        while waiting and (engine := load.least()) is not None:
            load.add(engine, waiting[0])
            given.setdefault(engine, []).append(waiting.popleft())
        for engine, share in given.items():
            engines.feed(engine, share)

    try:
        hand_out()
        while load.groups or waiting:
            engine, found = engines.next()
            if isinstance(found, EngineError):
                lost = load.lose(engine)
                if not load.held:
                    raise found
                _log.warning("%s; its %d groups go to the others", found.message, len(lost))
                waiting.extendleft(reversed(lost))
            else:
                load.remove(engine, found.prompt.id)
                yield found
            hand_out()
    finally:
        engines.end()


class _Load:
    """What every engine has before it. Each change costs the logarithm of the engines' number."""

    def __init__(self, engines: Sequence[int], group_size: int, longest: int, room: int) -> None:
        self.held: dict[int, dict[str, Work]] = {engine: {} for engine in engines}
        self.groups = 0
        self._group_size, self._longest = group_size, longest
        self._most = room // group_size
        self._tokens = dict.fromkeys(engines, 0)
        self._heap = [(0, engine) for engine in engines]
        """Every engine that has room, with its tokens; entries that a change made untrue stay until met."""
        heapify(self._heap)

    def least(self) -> int | None:
        """The engine with the fewest tokens of those that have room for a group."""
        while self._heap:
            tokens, engine = self._heap[0]
            held = self.held.get(engine)
            if held is not None and self._tokens[engine] == tokens and len(held) < self._most:
                return engine
            heappop(self._heap)
        return None

    def add(self, engine: int, work: Work) -> None:
        self.held[engine][name_of(work)] = work
        self._change(engine, 1, self._cost(work))

    def remove(self, engine: int, name: str) -> None:
        self._change(engine, -1, -self._cost(self.held[engine].pop(name)))

    def lose(self, engine: int) -> list[Work]:
        """What an engine that is gone had."""
        lost = list(self.held.pop(engine).values())
        self.groups -= len(lost)
        return lost

    def _cost(self, work: Work) -> int:
        return cost(work, self._group_size, self._longest)

    def _change(self, engine: int, groups: int, tokens: int) -> None:
        self.groups += groups
        self._tokens[engine] += tokens
        heappush(self._heap, (self._tokens[engine], engine))


def cost(work: Work, group_size: int, longest: int) -> int:
    """Tokens that sampling it may compute."""
    if isinstance(work, Prompt):
        return len(work.token_ids) + group_size * longest
    left = [longest - len(each.token_ids) for each in work.completions if each.finish_reason == "cut"]
    return len(work.prompt.token_ids) + sum(left)


def name_of(work: Work) -> str:
    """Id of its prompt."""
    return work.id if isinstance(work, Prompt) else work.prompt.id
