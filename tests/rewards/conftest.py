from __future__ import annotations

import gc
import time
from collections.abc import Callable
from functools import lru_cache
from itertools import count
from typing import Any

import pytest

from align.reward.contract import Sample
from align.reward.functions.registry import RewardFunction, resolve

Score = Callable[..., float | None]


@lru_cache
def resolved(spec: str, args: tuple[tuple[str, Any], ...]) -> RewardFunction:
    return resolve(spec, dict(args))


@pytest.fixture(scope="session", autouse=True)
def _small_heap() -> None:
    """What other tests left is collected no more: rewards are limited in processor time, which a search of
    millions of objects is a part of."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def score() -> Score:
    """Calls a shipped reward as a worker does: ``score("length", "text", args={...}, answer="4")``."""

    def score(
        spec: str,
        text: str,
        *,
        args: dict[str, Any] | None = None,
        tokens: int = 0,
        cut_off: bool = False,
        max_new_tokens: int = 0,
        prompt: str = "?",
        **columns: Any,
    ) -> float | None:
        found = resolved(spec, tuple((args or {}).items()))
        sample = Sample(
            prompt=({"role": "user", "content": prompt},),
            completion=text,
            token_ids=list(range(tokens)),
            finish_reason="length" if cut_off else "stop",
            max_new_tokens=max_new_tokens,
            columns=columns,
        )
        return found.function(sample, **found.args)

    return score


TextOf = Callable[[int], str]
SIZE = 20_000  # letters of the smaller text
TIMES = 4  # what is linear takes 4 times as long for the longer one, what is quadratic 16 times
FASTER = 9
NOISE = 0.03  # seconds: work of less says nothing


def of_size(text_of: TextOf, letters: int) -> str:
    """``text_of(n)`` for the first n, of few, with which it is so long."""
    each = (len(text_of(200)) - len(text_of(100))) / 100
    start = max(1, int((letters - len(text_of(0))) / each))
    return next(text for n in count(start, max(1, start // 50)) if len(text := text_of(n)) >= letters * 0.9)


def seconds(work: Callable[[str], object], text: str) -> float:
    start = time.process_time()
    work(text)
    return time.process_time() - start


@pytest.fixture(scope="session")
def grows_as_its_text() -> Callable[[Callable[[str], object], TextOf], None]:
    """Seconds of ``work(text_of(n))`` grow about as the text does; the clock of this machine says no more."""

    def grows_as_its_text(work: Callable[[str], object], text_of: TextOf) -> None:
        short, long = of_size(text_of, SIZE), of_size(text_of, SIZE * TIMES)
        work(short)  # imports and caches
        pairs = [(seconds(work, short), seconds(work, long))]
        if pairs[0][1] > NOISE:
            pairs += [(seconds(work, short), seconds(work, long)) for _ in range(2)]
            below, above = (min(each) for each in zip(*pairs, strict=True))
            assert above < FASTER * max(below, NOISE / FASTER), pairs

    return grows_as_its_text
