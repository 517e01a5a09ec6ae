"""Multiple choice: letters that are denied, praised, or one of several."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Score = Callable[..., float | None]

NO_LETTER = [
    "\\boxed{A}, \\boxed{B}, \\boxed{C}",
    "\\boxed{A} or \\boxed{C}",
    "The answer is B, maybe C",
    "The answer is B or perhaps C.",
    "The answer is B; C",
    "The answer is (B)(C)",
    "<think>\nThe answer is B",
    "<think>\\boxed{B}",
    "The correct answer is not (B).",
    "It is definitely not (B)",
    "Option B is incorrect.",
    "(B) is incorrect.",
    "不选B",
    "The wrong answer is B.",
    "It is false that the answer is B.",
    "The answer is never B",
    "I don't think the answer is B.",
    "The answer is not \\boxed{B}",
    "答案不是B",
    "B选项错误",
    "B是错误的",
    "B is wrong.",
    "(B) cannot be right.",
    "Option B is not correct.",
    "The answer is anything but B",
    "The incorrect option is B",
    "The answer is B or maybe even D",
    "答案是B或C",
    "答案是B、C",
    "答案是BC",
    "B isn't correct",
    "The answer is B. But that is wrong.",
    "排除B",
    "Eliminate (B).",
    "I would not choose B",
    "The answer is either B or D",
    "<reasoning>Answer: B",
    "B and C are correct",
    "Both B and C are correct.",
    "Options B and C",
]

LETTER = {
    "C": [
        "答案不是B，而是C",
        "The answer isn't B, it's C.",
        "The answer is not B but C.",
        "\\boxed{B}. Wait, no: \\boxed{C}",
        "The answer is C, not B",
        "不选B，选C",
        "(B) is incorrect. (C) is correct.",
        "A and B are wrong. C is right.",
        "\\boxed{C}. Again: \\boxed{C}",
        "C, because B is wrong",
    ],
    "B": [
        "B is the correct answer.",
        "B is correct.",
        "B、巴黎",
        "B．巴黎",
        "B：巴黎",
        "【答案】B",
        "答案是「B」",
        "B选项正确。",
        "所以B是正确答案。",
        "应该选择B选项",
        "正确的是B",
        "Option A is wrong. Option C is wrong. Option B is correct.",
        "Thus, B.",
        "So B.",
        "Therefore B",
        "因此选B",
        "B is right",
        "(B) is the right choice.",
        "Option B",
        "the correct one is B",
        "B is the answer",
        "B项正确",
        "B正确",
        "本题选B",
        "A错误，C错误，B正确",
        "<think>A?</think>B",
        "The answer is B.\n\nA is wrong and C is wrong.",
        "Hence (B).",
        "I believe B is correct",
    ],
}


LETTERS = [(answer, text) for answer, texts in LETTER.items() for text in texts]


def test_every_text_is_there() -> None:
    assert (len(NO_LETTER), len(LETTERS)) == (40, 39)


@pytest.mark.parametrize("text", NO_LETTER)
def test_no_letter_is_chosen(score: Score, text: str) -> None:
    assert [score("multiple_choice", text, answer=letter) for letter in "ABCD"] == [0.0] * 4


@pytest.mark.parametrize(("answer", "text"), LETTERS)
def test_one_letter_is_chosen(score: Score, answer: str, text: str) -> None:
    for letter in "ABCD":
        assert score("multiple_choice", text, answer=letter) == float(letter == answer)
