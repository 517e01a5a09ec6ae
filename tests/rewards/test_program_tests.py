"""`unit_tests` by inputs and outputs: of programs, and of functions."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from align.errors import RewardError
from align.reward.functions.registry import resolve

Score = Callable[..., Any]
ARGS = {"timeout": 20.0, "isolation": "best_effort"}
PROGRAM = "n = int(input())\nprint(sum(map(int, input().split())))"
PAIRS = {"inputs": ["3\n1 2 3\n", "1\n5\n"], "outputs": ["6\n", "5\n"]}
LISTED = [{"input": a, "output": b} for a, b in zip(PAIRS["inputs"], PAIRS["outputs"], strict=True)]
SAME: Callable[[str, str], bool] = resolve("unit_tests").function.__globals__["same_output"]


def scored(score: Score, text: str, **row: Any) -> dict[str, float]:
    args = ARGS | row.pop("args", {})
    return score("unit_tests", text, args=args, **row)


FORMS: dict[str, dict[str, Any]] = {
    "APPS": {"input_output": json.dumps(PAIRS)},
    "APPS, no function": {"input_output": json.dumps(PAIRS | {"fn_name": None})},
    "APPS, lists of lines": {
        "input_output": {"inputs": [["3", "1 2 3"], ["1", "5"]], "outputs": [["6"], ["5"]]}
    },
    "a mapping": {"tests": PAIRS},
    "CodeContests": {"tests": {"input": PAIRS["inputs"], "output": PAIRS["outputs"]}},
    "two columns": PAIRS,
    "a list of mappings": {"tests": LISTED},
    "JSON of a list": {"tests": json.dumps(LISTED)},
    "DeepCoder": {
        "tests": json.dumps([{**row, "testtype": "stdin", "metadata": {"func_name": None}} for row in LISTED])
    },
    "verl": {"reward_model": {"style": "rule", "ground_truth": json.dumps(PAIRS)}},
    "verl, mapped": {"ground_truth": json.dumps(PAIRS)},
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_the_data_sets(score: Score, form: str) -> None:
    assert scored(score, PROGRAM, **FORMS[form]) == {"score": 1.0, "share": 1.0}
    wrong = scored(score, PROGRAM.replace("sum", "max"), **FORMS[form])
    assert wrong == {"score": 0.0, "share": 0.5, "failed": 1.0}


@pytest.mark.parametrize(
    "text",
    [
        f"```python\n{PROGRAM}\n```\nInput:\n```\n3\n1 2 3\n```\nOutput:\n```\n6\n```",
        "```python\nimport sys\ndef line(): return sys.stdin.readline()\n```\nand\n"
        "```python\nn = line()\nprint(sum(map(int, line().split())))\n```",
        "```python\ndef "
        "solve():\n    input()\n    print(sum(map(int, input().split())))\n```\n```python\nsolve()\n```",
        f"```python\nprint(input())\n```\nBetter:\n```python\n{PROGRAM}\n```",
        "```python\ndef f(a): return sum(a)\ninput()\nprint(f(map(int, input().split())))\n```\n"
        "For example:\n```python\nprint(f([1, 2]))\n```",
        "```python\nimport "
        "sys\ndef main():\n    data = sys.stdin.read().split()\n    print(sum(map(int, data[1:])))\n"
        "if __name__ == '__main__':\n    main()\n```",
        f"{PROGRAM}\nexit()",
        f"The program:\n\n{PROGRAM}\n\nIt's linear.",
        f"~~~\n{PROGRAM}\n~~~",
    ],
)
def test_the_program_in_an_answer(score: Score, text: str) -> None:
    assert scored(score, text, tests=PAIRS)["score"] == 1.0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("print(6)", "failed"),
        (f"{PROGRAM}\nprint()\nprint(1)", "failed"),
        (f"{PROGRAM}\nraise ValueError", "exception"),
        (f"{PROGRAM}\nimport sys\nsys.exit(1)", "exited"),
        ("import os\nprint(6, flush=True)\nos._exit(0)", "failed"),
        ("```python\nprint(\n```", "syntax"),
        ("", "no_code"),
        ("def solve(): print(6)", "failed"),
        # many attempts: only the last is run
        (f"```python\n{PROGRAM}\n```\n```python\n{PROGRAM.replace('sum', 'max')}\n```", "failed"),
    ],
)
def test_wrong_programs(score: Score, text: str, reason: str) -> None:
    found = scored(score, text, tests=PAIRS)
    assert found["score"] == 0.0
    assert found[reason] == 1.0


def test_share_and_time(score: Score) -> None:
    half = "n = int(input())\nif n == 3:\n    print(6)\nwhile n < 3: pass"
    found = scored(score, half, tests=PAIRS, args={"timeout": 1.0, "partial_credit": True})
    assert found == {"score": 0.5, "share": 0.5, "timeout": 1.0}


@pytest.mark.parametrize(
    ("wanted", "printed", "same"),
    [
        ("1 2\n3\n", "1 2\n3", True),
        ("1 2\n3", "1 2  \n3\n\n", True),
        ("1 2", "1  2", True),
        ("1\r\n2", "1\n2", True),
        ("1\n\n2", "1\n\n2", True),
        ("0.5", "0.50000001", True),
        ("1e-3", "0.001", True),
        ("2.0", "2", True),
        ("", "\n", True),
        ("0.5", "0.50001", False),
        ("2", "2.0", False),  # an integer is an integer
        ("10000000", "10000001", False),
        ("1 2", "1\n2", False),
        ("1 2", "2 1", False),
        ("Yes", "YES", False),
        ("1", "1 1", False),
        ("1", "", False),
        ("", "1", False),
        ("0.5", "nan", False),
        ("4.2e-7", "0", False),
        ("0.000001", "0", False),
        ("0.000000", "0.0000004", True),
        ("0.333333", "0.3333333333", True),
        ("1e400", "1", False),
    ],
)
def test_same_output(wanted: str, printed: str, same: bool) -> None:
    assert SAME(wanted, printed) == same


TOTAL = "def total(a, n):\n    return sum(a)"
METHOD = "class Solution:\n    def total(self, a: List[int], n: int) -> int:\n        return sum(a)"
CALLS: dict[str, dict[str, Any]] = {
    "APPS": {"tests": {"inputs": [[[1, 2], 2], [[3], 1]], "outputs": [3, 3], "fn_name": "total"}},
    "APPS, results in lists": {
        "input_output": json.dumps(
            {"inputs": [[[1, 2], 2], [[4], 1]], "outputs": [[3], [4]], "fn_name": "total"}
        )
    },
    "arguments by line": {
        "tests": [
            {
                "input": "[1, 2]\n2",
                "output": "3",
                "metadata": {"func_name": "total"},
                "testtype": "functional",
            }
        ]
    },
}


@pytest.mark.parametrize("form", CALLS)
@pytest.mark.parametrize(
    "code", [TOTAL, METHOD, f"```python\n{METHOD}\n```\n```python\nprint(Solution().total(1))\n```"]
)
def test_calls_of_a_function_or_a_method(score: Score, form: str, code: str) -> None:
    assert scored(score, code, **CALLS[form])["score"] == 1.0
    assert scored(score, code.replace("sum(a)", "len(a) + 7"), **CALLS[form])["score"] == 0.0


def test_results_written_as_json(score: Score) -> None:
    row = {"tests": {"inputs": [[1]], "outputs": [[[1, 2], {"1": 0.5}, None]], "fn_name": "f"}}
    assert scored(score, "def f(x): return ((1, 2), {1: 0.5}, None)", **row)["score"] == 1.0
    assert scored(score, "def f(x): return ((1, 2), {1: 0.6}, None)", **row)["score"] == 0.0
    always = "class Yes:\n    def __eq__(self, other): return True\ndef f(x): return Yes()"
    assert scored(score, always, **row)["score"] == 0.0


def test_starter_code_gives_the_signature(score: Score) -> None:
    starter = "class Solution:\n    def total(self, a: List[int], n: int) -> int:\n        "
    assert scored(score, "        return sum(a)", starter_code=starter, **CALLS["APPS"])["score"] == 1.0


@pytest.mark.parametrize(
    "tests",
    [
        [],
        {},
        {"inputs": ["1"], "outputs": []},
        {"inputs": [], "outputs": []},
        {"inputs": ["1"]},
        [{"input": "1"}],
        [1, 2],
        7,
        [{"input": "1", "output": "1", "fn_name": "f"}, {"input": "1", "output": "1", "fn_name": "g"}],
    ],
)
def test_unusable_rows_are_errors(score: Score, tests: Any) -> None:
    with pytest.raises(RewardError, match="remedy"):
        scored(score, PROGRAM, tests=tests)


def test_null_abstains(score: Score) -> None:
    assert scored(score, PROGRAM, tests=None) is None
    assert scored(score, PROGRAM, input_output=None) is None


def test_a_whole_class_does_not_go_into_the_starter_code(score: Score) -> None:
    starter = "class Solution:\n    def total(self, a: List[int], n: int) -> int:\n        "
    for code in (METHOD, METHOD.replace(": List[int]", "").replace(": int", "").replace(" -> int", "")):
        answer = f"```python\n{code}\n```"
        assert scored(score, answer, starter_code=starter, **CALLS["APPS"])["score"] == 1.0
