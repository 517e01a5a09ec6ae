from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Score = Callable[..., float | None]

OPTIONS = "Which is smallest?\n\nA. Monaco.\nB. Nauru.\nC. Malta.\nD. A dog."

PHRASES = [
    "{}",
    "{}.",
    "({})",
    "[{}]",
    '"{}"',
    "**{}**",
    "**{}.** Nauru",
    "{}) Nauru is",
    "{}: Nauru",
    "{} - Nauru",
    "\\boxed{{{}}}",
    "$\\boxed{{\\text{{{}}}}}$",
    "\\boxed{{({})}}",
    "\\boxed{{{}. Nauru}}",
    "The answer is ({}).",
    "The answer is {}",
    "the answer is: {}",
    "The answer is {} because the others are wrong.",
    "The correct answer is: **{}**",
    "The correct answer is {}) Nauru",
    "The best answer is **{}. Nauru**.",
    "My answer would be {}",
    "Therefore, the correct answer is:\n\n({}) Nauru",
    "Final Answer: The final answer is {}. I hope it is correct.",
    "Answer: {}",
    "Answer: {}\n\nThe others are too large.",
    "**Answer:** {}",
    "### Answer\n{}",
    "The correct option is {}",
    "The correct choice is letter {}.",
    "Option {} is correct.",
    "Choice ({})",
    "I would choose {}.",
    "I'd go with option {}, as the first is wrong",
    "It is ({}).",
    "First one thing, then another.\n\n{}",
    "{}\n\nExplanation: the others are too big.",
    "<answer>{}</answer>",
    "答案是{}。",
    "正确答案：{}",
    "正确答案是（{}）",
    "故选：{}",
    "我选择{}",
]


@pytest.mark.parametrize("phrase", PHRASES)
def test_phrases(score: Score, phrase: str) -> None:
    for letter in "ABCD":
        for answer in "ABCD":
            value = score("multiple_choice", phrase.format(letter), prompt=OPTIONS, answer=answer)
            assert value == float(letter == answer)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("b", "B"),
        ("Answer: (b)", "B"),
        ("答案：Ｂ", "B"),
        ("The answer is A. Wait, no. The answer is B.", "B"),
        ("<think>Maybe A. The answer is A.</think>\nB", "B"),
        ("A) is wrong because it is big.\nThe answer is B", "B"),
        ("Not (A), and C is odd.\n\\boxed{B}", "B"),
        ("The answer is B, not A", "B"),
        ("The answer is C, a country.", "C"),
        ("The answer is B and here is why", "B"),
        ("The answer is A - a city", "A"),
        ("The answer is D. A dog.", "D"),
        # a letter of a formula is no choice
        ("The circumference is \\boxed{C = 2\\pi r}.\nAnswer: D", "D"),
        ("\\boxed{A = \\pi r^2}\nThe answer is B", "B"),
        ("\\boxed{A+B}. Answer: C", "C"),
        ("\\boxed{P(A)=0.5}. So the answer is C.", "C"),
        ("\\boxed{\\frac{A}{B}}, so the answer is C", "C"),
        ("$\\boxed{D^2}$. Answer: B", "B"),
        ("\\boxed{A_1}. Answer: C", "C"),
        ("\\boxed{2B}. Answer: C", "C"),
        ("\\boxed{A \\cup B}; the answer is D", "D"),
        ("\\boxed{25^\\circ C}. Answer: A", "A"),
        ("\\boxed{\\triangle ABC}. Answer: B", "B"),
        ("The answer is B because C = 2πr, so\nAnswer: B", "B"),
        ("C = 2πr, so we pick D", "D"),
        ("Since P(A) = 0.5 and P(B) = 0.2, option D", "D"),
        ("\\boxed{x = 3}\n(B)", "B"),
        # a box that holds a choice and its text
        ("\\boxed{\\textbf{(B)}\\ 12}", "B"),
        ("\\boxed{(B)\\ 2\\pi}", "B"),
        ("\\boxed{B. 2x+1}", "B"),
        ("\\boxed{\\text{Option B}}", "B"),
        # the later of a box and a phrase
        ("\\boxed{A}? On reflection, the final answer is D.", "D"),
        ("Answer: A. No, \\boxed{B}", "B"),
    ],
)
def test_what_decides(score: Score, text: str, letter: str) -> None:
    assert score("multiple_choice", text, prompt=OPTIONS, answer=letter) == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I do not know.",
        "The answer is A or B",
        "The answer is A, B",
        "The answer is either A or C",
        "the answer is A/B",
        "\\boxed{A, B}",
        "\\boxed{A and B}",
        "\\boxed{A/B}",
        "\\boxed{C = 2\\pi r}",
        "The answer is C = 2πr.",
        "\\boxed{\\text{A dog}}",
        "(A) and (C)",
        "A and B",
        "A. x\nB. y",
        OPTIONS,
        "Nauru.",
        "A dog.",
        "The answer is A dog.",
        "Answer: A dog is small.",
        "The answer is not A",
        "The answer is I do not know",
        "The answer is Z",
        "The answer is E.T. of course",
        "\\boxed{Nauru}",
    ],
)
def test_ambiguous_or_no_letter(score: Score, text: str) -> None:
    for letter in "ABCD":
        assert score("multiple_choice", text, prompt=OPTIONS, answer=letter) == 0.0


def test_letters_of_the_prompt_bound_the_choice(score: Score) -> None:
    assert score("multiple_choice", "(E)", prompt=OPTIONS, answer="E") == 0.0
    assert score("multiple_choice", "(E)", prompt="Which one?", answer="E") == 1.0
    assert score("multiple_choice", "not (E) but (B)", prompt=OPTIONS, answer="B") == 1.0


def test_column(score: Score) -> None:
    assert score("multiple_choice", "B", answer=None) is None
    assert score("multiple_choice", "B", answer="(b)") == 1.0
    with pytest.raises(ValueError, match="is no letter"):
        score("multiple_choice", "B", answer="Nauru")


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("A and C", "AC"),
        ("ACD", "ACD"),
        ("A, C, D", "ACD"),
        ("答案：B、D", "BD"),
        ("The answers are A and C.", "A, C"),
        ("答案：ABD", ["A", "B", "D"]),
        ("C and A", "A and C"),
        ("\\boxed{A, C}", "AC"),
    ],
)
def test_several_letters_are_right_together(score: Score, text: str, truth: Any) -> None:
    assert score("multiple_choice", text, answer=truth) == 1.0
    assert score("multiple_choice", "The answer is A", answer=truth) == 0.0
    assert score("multiple_choice", text + ", E", answer=truth) == 0.0


PETS = ["dog", "cat", "fish", "bird"]
LETTERED = dict(zip("ABCD", PETS, strict=True))


@pytest.mark.parametrize("choices", [PETS, LETTERED, {"text": PETS, "label": list("ABCD")}])
@pytest.mark.parametrize("truth", ["cat", "B", "b"])
def test_a_row_may_name_the_text_of_an_option(score: Score, choices: Any, truth: str) -> None:
    for text in ("The answer is B", "cat", "The answer is cat.", "(B) cat", "B. Cat"):
        assert score("multiple_choice", text, answer=truth, choices=choices) == 1.0, text
    for text in ("The answer is A", "dog", "A cat may be a dog", "The answer is E"):
        assert score("multiple_choice", text, answer=truth, choices=choices) == 0.0, text


def test_a_row_may_name_the_place_of_an_option(score: Score) -> None:
    assert score("multiple_choice", "The answer is B", answer=1, choices=PETS) == 1.0
    with pytest.raises(ValueError, match="holds 4"):
        score("multiple_choice", "B", answer=4, choices=PETS)


@pytest.mark.parametrize(
    "text",
    [
        "A. Wait, actually B.",
        "The answer is A. Wait, actually it's B.",
        "Option (b)",
        "Definitely B!",
        "我认为是B",
    ],
)
def test_what_is_said_last_or_plainly_counts(score: Score, text: str) -> None:
    assert score("multiple_choice", text, answer="B") == 1.0
    assert score("multiple_choice", text, answer="A") == 0.0


@pytest.mark.parametrize(
    "text_of",
    [
        lambda n: "answer is " * n,
        lambda n: "answer" + " " * n,
        lambda n: "answer is (" + "(" * n,
        lambda n: "\\boxed{" * n,
        lambda n: "(A" * n,
        lambda n: " \n" * n,
        lambda n: "the answer is not " * n,
        lambda n: "A, " * n,
    ],
)
def test_hostile_answers_are_wrong_and_quick(score: Score, text_of, grows_as_its_text) -> None:
    def wrong(text: str) -> None:
        assert score("multiple_choice", text, prompt=OPTIONS, answer="B") == 0.0

    grows_as_its_text(wrong, text_of)


def test_truthfulqa(score: Score, shared_data: Path) -> None:
    """Every phrase with the right letter and with a wrong one; the option's text alone names no letter."""
    with (shared_data / "truthfulqa_mc" / "truthful_qa.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 817
    right = wrong = bare = options = 0
    for number, row in enumerate(rows):
        texts = dict(re.findall(r"(?m)^([A-Z])\. (.*)", row["prompt"]))
        other = sorted(set(texts) - {row["answer"]})[number % (len(texts) - 1)]
        phrase = PHRASES[number % len(PHRASES)]
        asked = {"prompt": row["prompt"], "answer": row["answer"]}
        right += score("multiple_choice", phrase.format(row["answer"]), **asked) == 1.0
        wrong += score("multiple_choice", phrase.format(other), **asked) == 0.0
        assert score("multiple_choice", row["prompt"], **asked) == 0.0
        for letter, text in texts.items():
            options += 2
            assert score("multiple_choice", f"{letter}. {text}", **asked) == float(letter == row["answer"])
            bare += (
                score("multiple_choice", f"The answer is {text}", prompt=row["prompt"], answer=letter) == 0
            )
            bare += score("multiple_choice", text, prompt=row["prompt"], answer=letter) == 0
    print(f"truthfulqa: right {right}, wrong {wrong} of 817; {bare} of {options} option texts name no letter")
    assert (right, wrong, bare) == (817, 817, options)
