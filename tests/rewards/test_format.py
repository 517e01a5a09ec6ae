"""Format: hand-worked."""

from __future__ import annotations

import re
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
        ("think", "<think>2+2</think>4</think>", 0),
        ("think", "<think>2+2</think>4<think>5</think>6", 0),
        ("think", "<think><think>2+2</think>4", 0),
        ("think", "so <think>2+2</think>4", 0),
        ("think", "<think>2+2", 0),
        ("think", "4", 0),
        # the prompt opened the thought
        ("think", "2+2</think>4", 1),
        ("think", "\n2+2\n</think>\n\n4", 1),
        ("think", "2+2</think>", 0),
        ("think", "2+2</think> \n", 0),
        ("think", "</think>4", 0),
        ("think", "2+2</think>4</think>5", 0),
        ("think", "2+2</think><think>4", 0),
        ("think", "2+2</think>4<think>5</think>6", 0),
        ("think_answer", "2+2</think>\n<answer>4</answer>\n", 1),
        ("think_answer", "2+2</think><answer>4</answer> so", 0),
        ("think_answer", "2+2</think><answer>4", 0),
        ("think_answer", "2+2</think>3</think><answer>4</answer>", 0),
        ("think_answer", "<answer>4</answer>", 0),
        (r"\d+", "42", 1),
        (r"\d+", "42 apples", 0),
    ],
)
def test_format(score: Score, pattern: str, text: str, value: float) -> None:
    assert score("format", text, args={"pattern": pattern}) == value


def test_format_with_a_broken_expression(score: Score) -> None:
    with pytest.raises(re.error):
        score("format", "x", args={"pattern": "("})


@pytest.mark.parametrize("pattern", ["boxed", "gsm8k", "answer_line", "think_answer", "think"])
@pytest.mark.parametrize(
    "text_of",
    [
        lambda n: "\\boxed{" * n,
        lambda n: "{" * n,
        lambda n: "<think>" * n,
        lambda n: "<think>" + "a " * n,
        lambda n: "<think>" + "a " * n + "</think>" + " " * n,
        lambda n: "#### " * n,
        lambda n: "\n" * n,
        lambda n: "a\n#### b\n" * n,
        lambda n: "\\boxed{" + "{a}" * n,
    ],
)
def test_named_forms_are_quick_on_hostile_text(
    score: Score, pattern: str, text_of, grows_as_its_text
) -> None:
    def wrong(text: str) -> None:
        assert score("format", text, args={"pattern": pattern}) == 0.0

    grows_as_its_text(wrong, text_of)
