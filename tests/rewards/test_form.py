"""Format, length and repetition: hand-worked."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest

Score = Callable[..., float | None]


@pytest.mark.parametrize(
    ("pattern", "text", "value"),
    [
        ("boxed", "so \\boxed{\\frac{1}{2}} it is", 1),
        ("boxed", "so \\boxed{\\frac{1}{2}", 0),
        ("boxed", "so 1/2", 0),
        ("gsm8k", "9 * 2 = 18\n#### 18", 1),
        ("gsm8k", "9 * 2 = 18\n#### 18\n", 1),
        ("gsm8k", "#### 18", 0),
        ("gsm8k", "9 * 2 = 18\n#### 18\nand more", 0),
        ("gsm8k", "a\n#### 1\n#### 2", 0),
        ("answer_line", "thinking\nAnswer: 4", 1),
        ("answer_line", "Answer: 4", 1),
        ("answer_line", "The Answer: 4 is it\nbut", 0),
        ("think_answer", "<think>2+2</think>\n<answer>4</answer>", 1),
        ("think_answer", "<think>2+2</think> so <answer>4</answer>", 0),
        ("think_answer", "<think></think><answer>4</answer>", 0),
        ("think_answer", "<think>a</think><think>b</think><answer>4</answer>", 0),
        ("think", "<think>2+2</think>4", 1),
        ("think", "<think>2+2</think> ", 0),
        ("think", "2+2</think>4", 0),
        (r"\d+", "42", 1),
        (r"\d+", "42 apples", 0),
    ],
)
def test_format(score: Score, pattern: str, text: str, value: float) -> None:
    assert score("format", text, args={"pattern": pattern}) == value


def test_format_with_a_broken_expression(score: Score) -> None:
    with pytest.raises(re.error):
        score("format", "x", args={"pattern": "("})


def test_named_forms_are_quick_on_hostile_text(score: Score) -> None:
    texts = [
        "\\boxed{" * 3000,
        "{" * 20000,
        "<think>" * 3000,
        "<think>" + "a " * 10000,
        "<think>" + "a " * 10000 + "</think>" + " " * 20000,
        "#### " * 4000,
        "\n" * 20000,
        "a\n#### b\n" * 2000,
        "\\boxed{" + "{a}" * 5000,
    ]
    start = time.perf_counter()
    for pattern in ("boxed", "gsm8k", "answer_line", "think_answer", "think"):
        for text in texts:
            assert score("format", text, args={"pattern": pattern}) == 0.0
    assert time.perf_counter() - start < 5


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
