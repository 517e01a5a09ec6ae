"""Which engine samples which group, with engines that answer by a clock of their own."""

from __future__ import annotations

import heapq

import pytest

from align.cluster.dispatch import cost, sample_on
from align.errors import EngineError
from align.types import Completion, Group, Prompt

G, LONGEST = 4, 10


def prompts(count: int, tokens: int = 3) -> list[Prompt]:
    return [Prompt(f"p/{i}", (), [0] * tokens) for i in range(count)]


def completion(prompt: Prompt, index: int, tokens: int, reason: str = "stop") -> Completion:
    return Completion(prompt.id, index, [1] * tokens, [0.0] * tokens, "", reason, 0, 0)  # type: ignore[arg-type]


class Clocked:
    """Engines that take so many seconds a group, one after the other; some die at a time."""

    def __init__(self, seconds: list[float], dies: dict[int, float] | None = None) -> None:
        self.seconds, self.dies = seconds, dies or {}
        self.now, self.free = 0.0, dict.fromkeys(range(len(seconds)), 0.0)
        self.events: list[tuple[float, int, Group]] = []
        self.fed: list[tuple[float, int, str]] = []
        self.ended = False

    def begin(self, group_size: int, step: int) -> list[int]:
        return list(self.free)

    def feed(self, engine: int, work) -> None:
        for each in work:
            prompt = each if isinstance(each, Prompt) else each.prompt
            self.fed.append((self.now, engine, prompt.id))
            self.free[engine] = max(self.now, self.free[engine]) + self.seconds[engine]
            group = Group(prompt, [completion(prompt, i, 2) for i in range(G)])
            heapq.heappush(self.events, (self.free[engine], engine, group))

    def next(self) -> tuple[int, Group | EngineError]:
        when = min((time for engine, time in self.dies.items()), default=float("inf"))
        if not self.events or when <= self.events[0][0]:
            engine = min(self.dies, key=self.dies.__getitem__)
            self.now = self.dies.pop(engine)
            self.events = [each for each in self.events if each[1] != engine]
            heapq.heapify(self.events)
            return engine, EngineError("gone")
        self.now, engine, group = heapq.heappop(self.events)
        return engine, group

    def end(self) -> None:
        self.ended = True


def run(engines: Clocked, count: int, sequences: int = G) -> list[str]:
    found = sample_on(engines, prompts(count), group_size=G, step=1, longest=LONGEST, sequences=sequences)
    return [group.prompt.id for group in found]


def test_every_group_comes_once_and_a_fast_engine_makes_more() -> None:
    engines = Clocked([1.0, 3.0])
    assert sorted(run(engines, 12)) == sorted(f"p/{i}" for i in range(12))
    made = [engine for _, engine, _ in engines.fed]
    # One at work and one waiting each; from then on whoever is done gets the next.
    assert (made.count(0), made.count(1)) == (8, 4)
    assert engines.now <= 12.0
    assert engines.ended


def test_the_engine_with_the_fewest_tokens_is_asked_first() -> None:
    engines = Clocked([1.0, 1.0, 1.0])
    long, short = Prompt("long", (), [0] * 90), prompts(5)
    list(sample_on(engines, [long, *short], group_size=G, step=1, longest=LONGEST, sequences=2 * G))
    given = [engine for time, engine, _ in engines.fed if time == 0.0]
    # The long one is 130 tokens, the others 43 each: three of them are as much.
    assert [given.count(engine) for engine in range(3)] == [1, 3, 2]


def test_what_a_lost_engine_had_goes_to_the_others() -> None:
    engines = Clocked([1.0, 1.0], dies={0: 2.5})
    assert sorted(run(engines, 10, 2 * G)) == sorted(f"p/{i}" for i in range(10))
    assert all(engine == 1 for time, engine, _ in engines.fed if time >= 2.5)


def test_without_engines_the_last_one_s_fault_is_raised() -> None:
    engines = Clocked([1.0, 1.0], dies={0: 0.5, 1: 1.5})
    with pytest.raises(EngineError, match="gone"):
        run(engines, 10)
    assert engines.ended


def test_an_abandoned_step_is_ended() -> None:
    engines = Clocked([1.0])
    groups = sample_on(engines, prompts(3), group_size=G, step=1, longest=LONGEST, sequences=G)
    next(groups)
    groups.close()
    assert engines.ended


def test_a_group_larger_than_an_engine_s_places_is_sampled() -> None:
    assert len(run(Clocked([1.0]), 3, sequences=1)) == 3


def test_cost_counts_what_is_left() -> None:
    (prompt,) = prompts(1, 7)
    assert cost(prompt, G, LONGEST) == 7 + 40
    cut = Group(prompt, [completion(prompt, 0, 4, "cut"), completion(prompt, 1, 9)])
    assert cost(cut, G, LONGEST) == 7 + 6
