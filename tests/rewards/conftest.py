from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest

from align.reward.contract import Sample
from align.reward.registry import RewardFunction, resolve

Score = Callable[..., float | None]


@lru_cache
def resolved(spec: str, args: tuple[tuple[str, Any], ...]) -> RewardFunction:
    return resolve(spec, dict(args))


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
