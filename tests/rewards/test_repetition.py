"""Repetition: hand-worked, and on real solutions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest

Score = Callable[..., float | None]


@pytest.mark.parametrize(
    ("text", "n", "value"),
    [
        ("", 4, 0.0),
        ("one two three", 4, 0.0),
        ("one two three four", 4, 0.0),
        ("a b a b a b", 2, -0.6),  # ab ba ab ba ab: 2 of 5 are new
        ("A b, a B! a b", 2, -0.6),
        ("no no no no no no no no no no no", 1, 1 / 11 - 1),
        ("好的好的好的", 2, -0.6),
        ("好的，很高兴", 2, 0.0),
    ],
)
def test_repetition(score: Score, text: str, n: int, value: float) -> None:
    assert score("repetition", text, args={"n": n}) == pytest.approx(value)


def test_repetition_tells_real_solutions_from_loops(score: Score, shared_data: Path) -> None:
    lines = (shared_data / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()[:300]
    answers = [json.loads(line)["answer"] for line in lines]
    human = [score("repetition", answer) or 0.0 for answer in answers]
    looped = [score("repetition", answer * 8) or 0.0 for answer in answers]
    print(f"repetition: reference solutions {fmean(human):.3f}, the same eight times {fmean(looped):.3f}")
    assert fmean(human) > -0.05
    assert max(looped) < -0.8
