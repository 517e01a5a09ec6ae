"""Exact answers on real data: verdicts, reference solutions, LaTeX answers, answers in sentences."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from align.reward.contract import Sample
from align.reward.functions.registry import resolve

EXACT = resolve("exact_answer").function


def exact(text: str, answer: object) -> float | None:
    result = EXACT(Sample((), text, columns={"answer": answer}))
    return None if result is None else float(result)


def test_agreement_with_the_labelled_gsm8k_solutions(shared_data: Path) -> None:
    """1,600 model solutions of 400 test questions, labelled by the data set's makers."""
    lines = (
        (shared_data / "gsm8k" / "example_model_solutions_400.jsonl").read_text(encoding="utf-8").splitlines()
    )
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    agree, total = 0, 0
    for row in rows:
        answer = row["ground_truth"].rpartition("A: ")[2]
        for entry in row.values():
            if isinstance(entry, dict):
                total += 1
                agree += (exact(entry["solution"], answer) == 1.0) == entry["is_correct"]
    assert total == 1600
    assert agree == 1600


def test_every_gsm8k_reference_solution_is_right(shared_data: Path) -> None:
    lines = (shared_data / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    answers = [json.loads(line)["answer"] for line in lines]
    assert len(answers) == 1319
    assert all(exact(answer, answer.rpartition("#### ")[2]) == 1.0 for answer in answers)


def test_deepmath_latex_answers(shared_data: Path) -> None:
    lines = (shared_data / "deepmath" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    truths = sorted({json.loads(line)["ground_truth"] for line in lines})
    assert len(truths) == 1551
    assert [truth for truth in truths if exact(f"Hence \\boxed{{{truth}}}.", truth) != 1.0] == []
    # written otherwise, so that SymPy decides and not the text
    fractions = [
        truth for truth in truths if re.search(r"\\d?frac", truth) and not re.search("[=<>,]", truth)
    ]
    picked = random.Random(0).sample(fractions, 60)
    for rewrite in ("\\frac{{2}}{{2}} \\cdot ({})", "({}) \\times \\frac{{3}}{{3}}", "({}) + 1 - 1"):
        assert [truth for truth in picked if exact(f"\\boxed{{{rewrite.format(truth)}}}", truth) != 1.0] == []
    assert [truth for truth in picked if exact(f"\\boxed{{({truth}) + 1}}", truth) != 0.0] == []
    # an answer to another question is wrong
    pairs = [random.Random(seed).sample(truths, 2) for seed in range(150)]
    accepted = [(truth, other) for truth, other in pairs if exact(f"\\boxed{{{other}}}", truth) != 0.0]
    print(f"deepmath: {len(accepted)} of {len(pairs)} foreign answers accepted: {accepted}")
    assert len(accepted) <= 1


ENGLISH = [
    "The answer is {}.", "So she has {} apples in total.", "#### {}", "Therefore, the total is ${}.",
    "Thus, \\boxed{{{}}}.",
    "**Answer:** {}", "\\boxed{{{} \\text{{ dollars}}}}", "3 + 4 = 7, so it is {}",
    "<think>Perhaps 17.</think>\nHence it is {}.",
    "The final answer is ${}$. I hope it is correct.", "He needs to pay ${} each month.", "x = {}",
    "\\[ \\boxed{{{}}} \\]",
    "So **{}** cookies remain.",
]  # fmt: skip
CHINESE = [
    "答案是{}。", "所以一共有{}个苹果。", "答：{}元。", "答案：{}", "最终答案是 \\boxed{{{}}}。",
    "因此，小明还剩下{}本书。",
    "\\boxed{{{}人}}", "答：还剩{}千克。", "答案是：\\({}\\)", "所以答案为${}$。",
    "<think>也许是17</think>共{}只。", "{} 元",
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "column", "rows", "phrases"),
    [
        ("svamp", "Answer", 1000, ENGLISH),
        ("cmath_zh", "golden", 549, CHINESE),
        ("mgsm_zh", "answer", 250, CHINESE),
    ],
)
def test_answers_in_sentences(
    shared_data: Path, name: str, column: str, rows: int, phrases: list[str]
) -> None:
    """Every reference in a sentence is right; another row's answer in the same sentence is wrong."""
    lines = (shared_data / name / "test.jsonl").read_text(encoding="utf-8").splitlines()
    truths = [str(json.loads(line)[column]).removesuffix(".0") for line in lines]
    chance = random.Random(0)
    missed, mistaken = [], []
    for truth in truths:
        phrase, other = chance.choice(phrases), chance.choice(truths)
        if exact(phrase.format(truth), truth) != 1.0:
            missed.append((truth, phrase))
        if other != truth and exact(phrase.format(other), truth) != 0.0:
            mistaken.append((truth, other, phrase))
    assert len(truths) == rows
    assert (missed, mistaken) == ([], [])
