"""Length: hand-worked."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Score = Callable[..., float | None]


@pytest.mark.parametrize(
    ("tokens", "value"), [(0, 0.0), (80, 0.0), (81, -0.05), (90, -0.5), (100, -1.0), (101, -1.0), (500, -1.0)]
)
def test_length_follows_dapo(score: Score, tokens: int, value: float) -> None:
    assert score("length", "", tokens=tokens, args={"max_length": 100, "buffer": 20}) == pytest.approx(value)


def test_length_limits(score: Score) -> None:
    assert score("length", "", tokens=30, max_new_tokens=32, args={"buffer": 4}) == -0.5
    assert score("length", "", tokens=32, max_new_tokens=32) == 0.0
    assert score("length", "", tokens=32, max_new_tokens=32, cut_off=True) == -1.0
    assert score("length", "", tokens=5, cut_off=True, args={"max_length": 100, "buffer": 20}) == -1.0
    with pytest.raises(ValueError, match="needs a limit"):
        score("length", "", tokens=5)
    with pytest.raises(ValueError, match="buffer=33"):
        score("length", "", tokens=5, max_new_tokens=32, args={"buffer": 33})
