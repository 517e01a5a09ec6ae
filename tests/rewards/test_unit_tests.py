"""Code by unit tests: hand-made answers, and the reference solutions of MBPP."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from align.errors import RewardError
from align.reward.calls.score import call
from align.reward.contract import Sample
from align.reward.functions.registry import resolve
from align.reward.sandbox import protection

Score = Callable[..., Any]
ARGS = {"timeout": 20.0, "isolation": "best_effort"}
TESTS = ["assert double(2) == 4", "assert double(-1) == -2", "assert double(0) == 0"]
GOOD = "Here it is:\n```python\ndef double(x):\n    return 2 * x\n```\nIt doubles."


EVERY = pytest.param(1, marks=pytest.mark.slow, id="every row")
"""Beside a part of the rows."""


@pytest.fixture(scope="module")
def mbpp(shared_data: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (shared_data / "mbpp" / "mbpp.jsonl").read_text().splitlines()]


def scored(score: Score, text: str, **args: Any) -> dict[str, float]:
    return score("unit_tests", text, args=ARGS | args, tests=TESTS)


def test_right_code_scores_1(score: Score) -> None:
    assert scored(score, GOOD) == {"score": 1.0, "share": 1.0}


@pytest.mark.parametrize(
    ("text", "share", "reason"),
    [
        ("```python\ndef double(x): return x + 2\n```", 1 / 3, "failed"),
        ("```python\ndef double(x): return 1 // x * 0 + 2 * x\n```", 2 / 3, "exception"),
        ("```python\ndef twice(x): return 2 * x\n```", 0, "exception"),
        ("```python\ndef double(x) return 2 * x\n```", 0, "syntax"),
        ("I would multiply it by two.", 0, "syntax"),
        ("", 0, "no_code"),
        (" \n", 0, "no_code"),
        ("```python\nimport os; os._exit(0)\n```", 0, "exited"),
        ("```python\ndef double(x): return [0] * 10**12\n```", 0, "memory"),
        ("```python\ndef double(x):\n    print('x' * 10**7)\n    return 2 * x\n```", 0, "output"),
    ],
)
def test_wrong_code_scores_0_and_says_why(score: Score, text: str, share: float, reason: str) -> None:
    found = scored(score, text)
    assert found == {"score": 0.0, "share": pytest.approx(share), reason: 1.0}
    assert scored(score, text, partial_credit=True)["score"] == pytest.approx(share)


def test_endless_code_scores_0_within_the_limit(score: Score) -> None:
    found = scored(score, "```python\ndef double(x):\n    while True: pass\n```", timeout=0.5)
    assert found == {"score": 0.0, "share": 0.0, "timeout": 1.0}


@pytest.mark.parametrize(
    "text",
    [
        "def double(x):\n    return 2 * x",
        " def double(x):\n    return 2 * x",  # after a prompt that ends in "Assistant:"
        "    def double(x):\n        return 2 * x\n",
        "1. So:\n   ```python\n   def double(x):\n       return 2 * x\n   ```\n"
        "2. Try:\n   ```python\n   print(double(4))\n   ```",
        "```\ndef double(x): return 2 * x\n```",
        "```py\ndef double(x): return 2 * x",  # never closed
        "Or:\n```python\ndef double(x): return x\n```\nBetter:\n```python\ndef double(x): return 2 * x\n```",
        GOOD + "\n```python\nprint(double(4))\n```",
        GOOD + "\n```\n8\n```\n```bash\npython double.py\n```",
        "1. So:\n   ```python\ndouble = lambda x: 2 * x\n   ```",
        "```python\ndef double(x):\n    '''```'''\n    return 2 * x\n```",
    ],
)
def test_the_block_that_counts(score: Score, text: str) -> None:
    assert scored(score, text)["score"] == 1.0


def test_setup_runs_between_code_and_tests(score: Score) -> None:
    code = "class Node:\n    def __init__(self, v): self.v = v\ndef value(n): return n.v + n.w"
    row = {"setup": "n = Node(3)\nn.w = 4", "tests": ["assert value(n) == 7"]}
    assert score("unit_tests", code, args=ARGS, **row)["score"] == 1.0
    row = {"setup": "", "tests": "x = Node(3)\nx.w = 1\nassert value(x) == 4"}
    assert score("unit_tests", code, args=ARGS, **row)["score"] == 1.0


def test_it_abstains_without_tests(score: Score) -> None:
    assert score("unit_tests", GOOD, args=ARGS, tests=None) is None


@pytest.mark.parametrize("columns", [{}, {"tests": []}, {"tests": ["assert f("]}])
def test_unusable_rows_are_errors(columns: dict[str, Any]) -> None:
    function = resolve("unit_tests", ARGS)
    sample = Sample(prompt=(), completion=GOOD, columns=columns)
    outcome = call(function, [sample])[0]
    assert outcome.kind == "error"
    assert "tests" in outcome.detail
    assert "remedy" in outcome.detail


def test_arguments_are_checked(score: Score) -> None:
    with pytest.raises(ValueError, match="best_effort"):
        scored(score, GOOD, isolation="none")
    with pytest.raises(ValueError, match="wall_seconds"):
        scored(score, GOOD, timeout=0)


def test_isolation_is_demanded_unless_the_recipe_says_otherwise(score: Score) -> None:
    if protection().missing:
        with pytest.raises(RewardError, match="cannot isolate"):
            score("unit_tests", GOOD, tests=TESTS)
    else:
        assert score("unit_tests", GOOD, tests=TESTS)["score"] == 1.0


# MBPP


def verdict(score: Score, row: dict[str, Any], code: str) -> float:
    columns = {"tests": row["test_list"], "setup": row["test_setup_code"]}
    return score("unit_tests", f"```python\n{code}\n```", args=ARGS, **columns)["score"]


@pytest.mark.parametrize("every", [8, EVERY])
def test_reference_solutions_of_mbpp_score_1(score: Score, mbpp: list[dict[str, Any]], every: int) -> None:
    special = [row for row in mbpp if row["test_setup_code"] or row["task_id"] in (533, 596, 601)]
    rows = mbpp if every == 1 else [*mbpp[::every], *special]
    assert len(rows) >= 60
    assert [row["task_id"] for row in rows if verdict(score, row, row["code"]) != 1.0] == []


def corrupted(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The reference with the tested function spoilt, in ways that no test can mistake for right."""
    name = re.search(r"assert \(?(?:int\(|set\()?(\w+)\(", row["test_list"][0])
    assert name is not None
    code, function = row["code"], name[1]
    yield "says nothing", f"{code}\ndef {function}(*a, **k): return None"
    yield "wraps", f"{code}\n_f = {function}\ndef {function}(*a, **k): return [_f(*a, **k), 'x']"
    yield "is another", code.replace(function, "other")
    yield "is cut off", code[: len(code) // 2] + "\n("
    yield "exits", f"{code}\nimport os\ndef {function}(*a, **k): os._exit(0)"
    yield (
        "agrees",
        (
            f"{code}\nclass Yes:\n    __eq__ = __ne__ = lambda self, other: True\n"
            f"    __int__ = __hash__ = lambda self: 7\ndef {function}(*a, **k): return Yes()"
        ),
    )


@pytest.mark.parametrize("every", [24, EVERY])
def test_corrupted_solutions_of_mbpp_score_0(score: Score, mbpp: list[dict[str, Any]], every: int) -> None:
    wrong = [
        (row["task_id"], way)
        for row in mbpp[::every]
        for way, code in corrupted(row)
        if verdict(score, row, code) != 0.0
    ]
    assert wrong == []
