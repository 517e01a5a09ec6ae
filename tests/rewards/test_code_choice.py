"""Which code of an answer `unit_tests` runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from align.errors import RewardError

Score = Callable[..., Any]
ARGS = {"timeout": 20.0, "isolation": "best_effort"}
TESTS = ["assert double(2) == 4", "assert double(-1) == -2"]
CODE = "def double(x):\n    return 2 * x"
EVERY = pytest.param(1, marks=pytest.mark.slow, id="every row")


def scored(
    score: Score, text: str, prompt: str = "?", tests: Any = TESTS, **columns: Any
) -> dict[str, float]:
    return score("unit_tests", text, args=ARGS, prompt=prompt, tests=tests, **columns)


def fenced(*blocks: str) -> str:
    return "\n\nThat's it.\n\n".join(f"```python\n{block}\n```" for block in blocks)


RIGHT = {
    "imports in an earlier block": fenced("import math", "def double(x): return math.floor(2 * x)"),
    "a helper in an earlier block": fenced("def two(): return 2", "def double(x): return two() * x"),
    "a helper in a later block": fenced("def double(x): return two() * x", "def two(): return 2"),
    "a constant in a later block": fenced("def double(x): return TWO * x", "TWO = 2"),
    "a class in an earlier block": fenced("class A:\n    def go(self, x): return 2 * x", "double = A().go"),
    "the future first": fenced("from __future__ import annotations", "def double(x: Unknown): return 2 * x"),
    "tests of its own, wrong": fenced(CODE, "assert double(2) == 5"),
    "tests of its own, in the same block": fenced(f"{CODE}\n\nassert double(2) == 5"),
    "tests with unittest": fenced(
        CODE,
        "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(double(2), 5)\n"
        "unittest.main()",
    ),
    "tests with pytest": fenced(
        CODE, "import pytest\nfrom solution import double\ndef test(): assert double(2) == 4"
    ),
    "a demonstration": fenced(CODE, "x = double(5)\nprint(x)\nraise SystemExit(1)"),
    "a demonstration that asks": fenced(f"{CODE}\nprint(double(int(input())))"),
    "a demonstration that hides a built-in": fenced(
        "def double(x): return max(2 * x, 2 * x)", "max = double(3)"
    ),
    "a demonstration with what is not installed": fenced(f"import matplotlib_of_nobody as plt\n{CODE}"),
    "an endless demonstration": fenced(CODE, "while True:\n    pass"),
    "a corrected attempt": fenced("def double(x): return x", CODE),
    "a corrected attempt, the first hangs": fenced("def double(x): return x\nwhile True: pass", CODE),
    "a corrected helper": fenced("def h(x): return x\ndef double(x): return h(x)", "def h(x): return 2 * x"),
    "the signature again": fenced(CODE, "def double(x): ..."),
    "pseudo-code after": fenced(CODE, "def double(x) -> take x twice"),
    "a session after": fenced(CODE, ">>> double(2)\n4"),
    "other languages": f"```bash\npip install a\n```\n{fenced(CODE)}\n```\n4\n```\n```text\ndef double\n```",
    "tildes": f"~~~python\n{CODE}\n~~~\nDone.",
    "tildes around ticks": "~~~py\ndef double(x):\n    '''\n```\ntext\n```\n    '''\n    return 2 * x\n~~~",
    "four ticks": f"````python\n{CODE}\n````",
    "ticks in a docstring": fenced(
        "def double(x):\n    '''\n    ```\n    f(2)\n    ```\n    '''\n    return 2 * x"
    ),
    "attributes": f"```python title='a.py'\n{CODE}\n```",
    "attributes of pandoc": f"``` {{.python .numberLines}}\n{CODE}\n```",
    "an unknown tag": f"```code\n{CODE}\n```",
    "on the line of a list item": "1. ```python\n   def double(x):\n       return 2 * x\n   ```\n",
    "in a quotation": "> ```python\n> def double(x):\n>     return 2 * x\n> ```\n",
    "never closed, prose after": f"```python\n{CODE}\n\nThis doubles, doesn't it?",
    "after a thought": f"<think>\n{fenced('def double(x): return x')}\n</think>\n{CODE}",
    "commands of a notebook": fenced("!pip install a", f"%time\n{CODE}"),
    "a session in the block": fenced(f"{CODE}\n\n>>> double(2)\n4"),
    "a table filled in the block": fenced(
        "T = {}\nfor i in range(-9, 9):\n    T[i] = 2 * i\ndef double(x): return T[x]"
    ),
    "a table filled in another": fenced(
        "T = {}", "for i in range(-9, 9):\n    T[i] = 2 * i", "def double(x): return T[x]"
    ),
    "a decorator": fenced("from functools import cache", "@cache\ndef double(x): return 2 * x"),
    "a base class": fenced(
        "class A:\n    k = 2",
        "class B(A):\n    def go(self, x): return self.k * x\ndef double(x): return B().go(x)",
    ),
    "a deep recursion allowed": fenced(
        "import sys\nsys.setrecursionlimit(9000)",
        "def deep(n): return 0 if n == 0 else deep(n - 1)\ndef double(x): return 2 * x + deep(3000)",
    ),
    "a name used for something else after": fenced(CODE, "double = 5"),
    "files": "**a.py**\n" + fenced(CODE, "from solution import *\nassert double(2) == 5"),
    "a leading program": fenced(f"{CODE}\nimport sys\nsys.exit(0)"),
    "tags around the fence": f"<answer>```python\n{CODE}\n```</answer>",
    "tags around the code": f"<answer>\n{CODE}\n</answer>",
    "a fence behind words": f"Here it is: ```python\n{CODE}\n```\nDone.",
    "a closing fence behind code": f"```python\n{CODE}```\nDone.",
    "in one line": "```python def double(x): return 2 * x```",
    "in a span": "Use `double = lambda x: 2 * x` for that.",
    "no fence, prose around": f"Here's the code:\n\n{CODE}\n\nThis doubles the number. It doesn't fail!",
    "no fence, indented": "So:\n\n    def double(x):\n        return 2 * x\n\nThat's it.",
    "no fence, a demonstration": f"{CODE}\n\nprint(double(3))\nassert double(1) == 3",
    "no fence, marks of MBPP": f"[BEGIN]\n{CODE}\n[DONE]",
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_score_1_however_they_are_dressed(score: Score, name: str) -> None:
    assert scored(score, RIGHT[name]) == {"score": 1.0, "share": 1.0}


@pytest.mark.parametrize(
    "text",
    [
        fenced(CODE, "def double(x): return 3 * x"),  # many attempts: the last is judged
        fenced("def double(x): return 3 * x", "assert double(2) == 4"),
        fenced("def double(x): ..."),
        fenced("import sys\nsys.exit(0)"),
        fenced("class AssertionError(Exception): pass\ndef double(x): return 0"),
        "print(4)\nprint(-2)",
        "I would multiply it by two, as double(2) == 4 shows.",
        f"<think>{fenced(CODE)}</think>\nI don't know.",
    ],
)
def test_wrong_answers_score_0(score: Score, text: str) -> None:
    assert scored(score, text)["score"] == 0.0


SIGNATURE = (
    "from typing import List\n\n\ndef double(x: int) -> int:\n"
    '    """Double.\n\n    >>> double(2)\n    4\n    """\n'
)
PROMPTS = {
    "raw": SIGNATURE,
    "fenced": f"Complete the function:\n```python\n{SIGNATURE}```\nOnly code, please.",
    "unfenced": f"Please complete this:\n\n{SIGNATURE}",
    "without a docstring": "def double(x):\n",
}
BODIES = [
    "    return 2 * x",
    "return 2 * x",
    "    if x:\n        return 2 * x\n    return 0",
    "if x:\n        return 2 * x\n    return 0",  # the first indentation is lost, as decoders do
    "    return 2 * x\n\n\nprint(double(3))",
    "    return 2 * x\n\nThis doubles, doesn't it?",
    "```python\n    return 2 * x\n```",
    "```python\nreturn 2 * x\n```",
]


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("body", BODIES)
def test_a_bare_body_goes_under_the_signature_of_the_prompt(score: Score, prompt: str, body: str) -> None:
    assert scored(score, body, PROMPTS[prompt])["score"] == 1.0
    assert scored(score, body.replace("2 *", "3 *"), PROMPTS[prompt])["score"] == 0.0


def test_imports_of_the_prompt_are_there(score: Score) -> None:
    assert (
        scored(score, fenced("def double(x: List) -> List: return 2 * x"), PROMPTS["fenced"])["score"] == 1.0
    )


@pytest.mark.parametrize("text", ["Sorry, no.", "", fenced("import sys\nsys.exit(0)"), "print(4)", "pass"])
def test_a_solution_in_the_prompt_earns_nothing(score: Score, text: str) -> None:
    assert scored(score, text, f"What does this do?\n\n{CODE}")["score"] == 0.0
    assert scored(score, text, f"What does this do?\n\n{fenced(CODE)}")["score"] == 0.0


CHECK = "METADATA = {'author': 'x'}\n\n\ndef check(candidate):\n    assert candidate(2) == 4\n"


def test_check_of_humaneval_is_called(score: Score) -> None:
    row = {"tests": CHECK, "entry_point": "double"}
    assert scored(score, CODE, **row)["score"] == 1.0
    assert scored(score, "def double(x): return x", **row)["score"] == 0.0
    assert scored(score, "    return 2 * x", SIGNATURE, **row)["score"] == 1.0


@pytest.mark.parametrize("tests", [CHECK, ["import math", "x = 3"]])
def test_tests_that_test_nothing_are_an_error(score: Score, tests: Any) -> None:
    with pytest.raises(RewardError, match="every answer would pass"):
        scored(score, CODE, tests=tests)


@pytest.mark.parametrize(
    "text_of",
    [
        lambda n: "```python\n" * n,
        lambda n: "def f(\n" * n,
        lambda n: "import a\n(\n" * n,
        lambda n: "(" * n,
        lambda n: "x = " + "-" * n + "1",
        lambda n: "~" * n,
        lambda n: "> " * n,
        lambda n: "def f():\n" + "    if x:\n" * n,
        lambda n: "</think>" * n,
        lambda n: "```python\ndef f(): ...\n```\n" * n,
        lambda n: "".join(f"```python\ndef f{i}(): return f{i + 1}()\nx.y = 1\n```\n" for i in range(n)),
        lambda n: "```python\n" + "def f(): ...\nx[0] = 1\n" * n + "```",
        lambda n: "`x = 1` " * n,
    ],
)
def test_hostile_answers_are_wrong_and_quick(score: Score, text_of, grows_as_its_text) -> None:
    def wrong(text: str) -> None:
        assert scored(score, text, SIGNATURE)["score"] == 0.0

    grows_as_its_text(wrong, text_of)


# MBPP


def dressed(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    code, tests = row["code"].replace("\r\n", "\n"), "\n".join(row["test_list"])
    imports = [line for line in code.split("\n") if line.startswith(("import ", "from "))]
    rest = "\n".join(line for line in code.split("\n") if line not in imports)
    yield "prose around", f"Here's the solution:\n\n```python\n{code}\n```\n\nIt works, doesn't it?"
    yield "tests in a block", f"{fenced(code, tests, 'assert False')}"
    yield "tests in the block", fenced(f"{code}\n\n{tests}\nassert False\nprint(input())")
    yield "tildes", f"~~~python\n{code}\n~~~"
    yield "no fence", code
    yield "no fence, prose", f"The function is below; it's short.\n\n{code}\n\nThat's all, isn't it?"
    yield "imports apart", fenced("\n".join(imports) or "import os", rest)
    yield "after a wrong one", fenced(wrong(row), code)


def wrong(row: dict[str, Any]) -> str:
    """A definition of every function of the reference that returns what no test wants."""
    names = [line[4 : line.index("(")].strip() for line in row["code"].split("\n") if line.startswith("def ")]
    return "\n".join(f"def {name}(*args, **more): return ['wrong']" for name in names)


@pytest.mark.parametrize("every", [12, EVERY])
def test_references_of_mbpp_score_1_however_they_are_dressed(
    score: Score, shared_data: Path, every: int
) -> None:
    lines = (shared_data / "mbpp" / "mbpp.jsonl").read_text().splitlines()
    failed, total = [], 0
    for row in map(json.loads, lines[::every]):
        columns = {"tests": row["test_list"], "setup": row["test_setup_code"]}
        for way, text in dressed(row):
            total += 1
            if scored(score, text, row["text"], **columns)["score"] != 1.0:
                failed.append((row["task_id"], way))
        assert scored(score, fenced(row["code"], wrong(row)), row["text"], **columns)["score"] == 0.0
    print(f"mbpp: {total - len(failed)} of {total} dressed references score 1")
    assert failed == []
