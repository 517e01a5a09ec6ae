"""A push leaves no cached prefix of the weights before. vLLM's part is its answers alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from align.errors import EngineError
from align.rollout.engine import Engine
from align.rollout.sleep import CpuSleeper


def engine(*, busy: bool) -> Engine:
    """Without vLLM, which keeps its cache while requests use blocks of it."""
    made: Any = Engine.__new__(Engine)
    made.llm = SimpleNamespace(collective_rpc=lambda *_, **__: None, reset_prefix_cache=lambda: not busy)
    made.version, made._filled, made._asleep = 3, True, set()
    made._sleeper = CpuSleeper(made.llm)
    return made


SOURCE: Any = SimpleNamespace(whole=True, first=True, last=True)


def test_a_cache_that_was_dropped_lets_the_push_pass() -> None:
    idle = engine(busy=False)
    idle.load_weights(SOURCE, 4)
    assert (idle.version, idle.filled) == (4, True)


def test_a_cache_that_stays_fails_the_push_and_the_engine_is_not_asked_again() -> None:
    busy = engine(busy=True)
    with pytest.raises(EngineError, match="keeps prefixes of the old ones"):
        busy.load_weights(SOURCE, 4)
    assert (busy.version, busy.filled) == (3, False)
    with pytest.raises(EngineError, match="before new ones came"):
        busy.score([1, 2])
