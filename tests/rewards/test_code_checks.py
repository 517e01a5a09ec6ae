"""`unit_tests` with tests that a runner would run, and with tests that check nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from align.errors import RewardError

Score = Callable[..., Any]
ARGS = {"timeout": 20.0, "isolation": "best_effort"}
RIGHT = "def f(x): return x + 1"
WRONG = "def f(x): return x + 2"
AGREES = "class Yes:\n    def __eq__(self, other): return True\ndef f(x): return Yes()\ndef exit(*a): pass"
LEAVES = "def f(x): raise SystemExit(0)"
CASE = "import unittest\nclass T(unittest.TestCase):\n    def test_a(self): self.assertEqual(f(1), 2)\n"

RUN = {
    "unittest.main": CASE + "unittest.main()",
    "unittest.main, no exit": CASE + "unittest.main(exit=False)",
    "guarded": CASE + "if __name__ == '__main__':\n    unittest.main()",
    "a runner": CASE + "unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromTestCase(T))",
    "a case that nothing runs": CASE,
    "subtests": CASE.replace(": self.assert", ":\n        with self.subTest(1): self.assert"),
    "guarded statements": "if __name__ == '__main__':\n    assert f(1) == 2",
    "a function of pytest": "def test_a():\n    assert f(1) == 2",
    "a class of pytest": "class TestF:\n    def setup_method(self): self.v = 2\n"
    "    def test_a(self): assert f(1) == self.v",
    "KodCode": "from solution import f\n\ndef test_a():\n    assert f(1) == 2",
    "another name": "from solution import f as g\nassert g(1) == 2",
    "the module": "import solution\nassert solution.f(1) == 2",
    "all of the module": "from solution import *\nassert f(1) == 2",
    "exit": "if f(1) != 2: exit(1)\nexit(0)",
    "sys.exit": "import sys\nsys.exit(f(1) != 2)",
    "raise": "if f(1) != 2: raise ValueError",
    "doctest": "import doctest\ndef t():\n    '''\n    >>> f(1) == 2\n    True\n    '''\ndoctest.testmod()",
}


@pytest.mark.parametrize("form", RUN)
def test_what_a_runner_finds_counts(score: Score, form: str) -> None:
    assert score("unit_tests", RIGHT, args=ARGS, tests=RUN[form]) == {"score": 1.0, "share": 1.0}
    for code in (WRONG, LEAVES) if form == "sys.exit" else (WRONG, LEAVES, AGREES):
        if not (form == "doctest" and code == AGREES):  # there both sides are the code's
            assert score("unit_tests", code, args=ARGS, tests=RUN[form])["score"] == 0.0


@pytest.mark.parametrize(
    ("tests", "why"),
    [
        ("f(1) == 2", "drops the result"),
        (["assert f(1) == 3", "f(1) == 2"], "drops the result"),
        ("print(f(1) == 2)", "check nothing"),
        ("pass", "check nothing"),
        ("f(1)", "check nothing"),
        ("def check(g): print(g(1) == 2)\ncheck(f)", "check nothing"),
        ("import doctest\ndoctest.testmod()", "no example"),
        ("import unittest\nclass T(unittest.TestCase): pass\nunittest.main()\nassert f(1)", "ran no test"),
        ("import numpy as np\nassert f(1) == 2", "numpy"),
        ("import pytest\nassert f(1) == 2", "pytest"),
        ("def t():\n    import numpy\nt()\nassert f(1)", "numpy"),
        ("from elsewhere import f\nassert f(1) == 2", "elsewhere"),
        ("def test_a(capsys): assert f(1) == 2", "takes arguments"),
    ],
)
def test_tests_that_cannot_tell_are_an_error_of_the_row(score: Score, tests: Any, why: str) -> None:
    for code in (RIGHT, WRONG):
        with pytest.raises(RewardError, match=why):
            score("unit_tests", code, args=ARGS, tests=tests)


@pytest.mark.parametrize("raised", ["ImportError('no', name='numpy')", "StopIteration", "SystemExit(0)"])
def test_code_cannot_blame_the_row(score: Score, raised: str) -> None:
    found = score("unit_tests", f"def f(x): raise {raised}", args=ARGS, tests=CASE)
    assert found["score"] == 0.0


@pytest.mark.parametrize(
    "tests",
    [
        "import asyncio\nassert asyncio.run(f(1)) == 2",
        "import asyncio\nasync def m():\n    assert await asyncio.gather(f(1), f(2)) == [2, 3]\n"
        "asyncio.run(m())",
        "async def test_a():\n    assert await f(1) == 2",
        "import unittest\nclass T(unittest.IsolatedAsyncioTestCase):\n"
        "    async def test_a(self): self.assertEqual(await f(1), 2)",
    ],
)
def test_coroutines(score: Score, tests: str) -> None:
    assert score("unit_tests", f"async {RIGHT}", args=ARGS, tests=tests)["score"] == 1.0
    assert score("unit_tests", f"async {WRONG}", args=ARGS, tests=tests)["score"] == 0.0


@pytest.mark.parametrize(
    "tests",
    [
        "import io, contextlib\nout = io.StringIO()\nwith contextlib.redirect_stdout(out):\n    f(1)\n"
        "assert out.getvalue() == 'hi 1\\n'",
        "import io\nfrom unittest.mock import patch\n"
        "with patch('sys.stdout', new_callable=io.StringIO) as out:\n    f(1)\n    f(2)\n"
        "assert out.getvalue() == 'hi 1\\nhi 2\\n'",
    ],
)
def test_what_the_code_prints_reaches_the_test(score: Score, tests: str) -> None:
    code = "import sys\nprint('at first')\ndef f(x):\n    print('aside', file=sys.stderr)\n    print('hi', x)"
    assert score("unit_tests", code, args=ARGS, tests=tests)["score"] == 1.0
    assert score("unit_tests", code.replace("hi", "ho"), args=ARGS, tests=tests)["score"] == 0.0


@pytest.mark.parametrize(
    "deep",
    [
        "0 and " + "**".join(["9"] * 1000),
        "1 if 1 else " * 1500 + "1",
        "-" * 3000 + "1",
        "+".join(["1"] * 5000),
        "f(" * 999,
    ],
    ids=["powers", "conditions", "signs", "sum", "unclosed"],
)
@pytest.mark.parametrize("tests", [["assert f(1) == 2"], {"inputs": ["1"], "outputs": ["2"]}])
def test_deep_code_is_scored(score: Score, deep: str, tests: Any) -> None:
    for code in (f"def f(x):\n    return {deep}", f"y = {deep}", f"def f(x):\n    raise {deep}"):
        assert score("unit_tests", f"```python\n{code}\n```", args=ARGS, tests=tests)["score"] == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "```python\ndef f(x):\n\u00a0\u00a0\u00a0\u00a0return x + 1\n```",
        "```python\ndef f(x):\n    return\u00a0x + 1\n```",
        "\ufeffdef f(x):\n    return x + 1",
        'So:\n<pre><code class="language-python">'
        "def f(x):\n    return x + 1 if x &lt; 9 else 0\n</code></pre>",
    ],
)
def test_code_that_was_copied_from_a_page(score: Score, text: str) -> None:
    assert score("unit_tests", text, args=ARGS, tests=["assert f(1) == 2"])["score"] == 1.0


@pytest.mark.parametrize(
    "program",
    [
        "import sys\nassert sys.stdin.mode == 'r'\nprint(input())",
        "print(open('/dev/stdin').read())",
        "import os\nprint(os.read(os.open('/dev/stdin', 0), 9).decode())",
        "import pathlib\nprint(pathlib.Path('/dev/stdin').read_text())",
        "with open('/dev/stdout', 'w') as out: out.write(open(0).read())",
    ],
)
def test_standard_streams_by_name(score: Score, program: str) -> None:
    row = {"inputs": ["3\n"], "outputs": ["3\n"]}
    assert score("unit_tests", f"```python\n{program}\n```", args=ARGS, tests=row)["score"] == 1.0


@pytest.mark.parametrize(
    ("code", "wanted", "right"),
    [
        ("def f(x): return gcd(x, 8)", 4, True),
        ("def f(x): return ceil(sqrt(x)) if x < inf else 0", 4, True),
        ("def f(x): return pow(x, 2, 5)", 4, True),
        ("class Solution:\n    def f(self, x: Optional[TreeNode]) -> Optional[ListNode]: return x", 12, True),
        ("def f(x): return 0", 4.2e-7, False),
        ("def f(x): return 4.2e-7 + 1e-16", 4.2e-7, True),
        ("def f(x): return 1e-17", 0.0, True),
    ],
)
def test_calls_have_the_usual_names_and_a_relative_tolerance(
    score: Score, code: str, wanted: Any, right: bool
) -> None:
    row = {"inputs": [[12]], "outputs": [wanted], "fn_name": "f"}
    assert score("unit_tests", code, args=ARGS, tests=row)["score"] == float(right)
