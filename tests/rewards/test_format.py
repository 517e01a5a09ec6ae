"""Format: hand-worked."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

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
    start = time.process_time()
    for pattern in ("boxed", "gsm8k", "answer_line", "think_answer", "think"):
        for text in texts:
            assert score("format", text, args={"pattern": pattern}) == 0.0
    assert time.process_time() - start < 5
