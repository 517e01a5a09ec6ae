"""What tests may say, how the sandbox answers, and what happens when it breaks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from align.errors import RewardError
from align.reward.sandbox import Limits, Protection, Sandbox, SandboxError, Verdict

WIDE = Limits(wall_seconds=20, cpu_seconds=20)


def statuses(sandbox: Sandbox, code: str, *tests: str, setup: str = "") -> tuple[str, ...]:
    verdict = sandbox.run(textwrap.dedent(code), list(tests), setup=setup, limits=WIDE)
    return verdict.statuses


# Values


@pytest.mark.parametrize(
    "value",
    [
        "None, True, False, 0, -1, 2**62, 2**63, -2**63, 2**64, -7**400, 0.1, 1e308, -0.0, 3j",
        "float('inf'), -float('inf'), 1e-320, '', 'é', '\\x00', '\\ud800', '𝄞', b'\\x00', bytearray(b'a')",
        "[], (), set(), {}, frozenset(), [[1], (2,)], {1: {2}}, {(1, 2): [3]}, {'a': None}, range(2, 9, 3)",
        "[1, '1', 1.0, True], {1.5, 'a', (1, 'b')}, frozenset({frozenset()})",
    ],
)
def test_plain_data_comes_back_as_it_was(plain_sandbox: Sandbox, value: str) -> None:
    tests = [f"assert repr(f({value})) == repr(({value}))", f"assert f({value}) == ({value})"]
    assert statuses(plain_sandbox, "def f(*values): return values", *tests) == ("passed", "passed")


def test_types_of_the_standard_library_come_back(plain_sandbox: Sandbox) -> None:
    names = "from decimal import Decimal\nfrom fractions import Fraction\nfrom collections import *\n"
    names += "from datetime import *\n"
    values = [
        "Decimal('1.50')",
        "Fraction(2, 3)",
        "deque([1, 2], 5)",
        "date(2024, 2, 29)",
        "datetime(2024, 2, 29, 1, 2, 3, 4)",
        "time(1, 2)",
        "timedelta(days=-1, microseconds=1)",
        "Counter('aab')",
        "OrderedDict(a=1)",
        "defaultdict(int, a=1)",
        "namedtuple('P', 'x y')(1, 2)",
    ]
    code = names + "def f(i): return [" + ", ".join(values) + "][i]"
    tests = [f"{names}assert f({place}) == {value}" for place, value in enumerate(values)]
    assert statuses(plain_sandbox, code, *tests) == ("passed",) * len(values)


def test_values_of_other_types_are_not_equal(plain_sandbox: Sandbox) -> None:
    code = "def f(x): return {'tuple': (1, 2), 'text': '4', 'object': object(), 'nan': float('nan')}[x]"
    tests = [
        "assert f('tuple') == [1, 2]",
        "assert f('text') == 4",
        "assert f('object') == 4",
        "assert f('nan') == f('nan')",
    ]
    assert statuses(plain_sandbox, code, *tests) == ("failed",) * 4


# Objects of the code

STACK = """
class Stack:
    size = 0
    def __init__(self, items=()): self.items = list(items)
    def push(self, item): self.items.append(item); self.size += 1
    def pop(self): return self.items.pop()
    def __len__(self): return len(self.items)
    def __bool__(self): return bool(self.items)
    def __iter__(self): return iter(self.items)
    def __getitem__(self, i): return self.items[i]
    def __setitem__(self, i, value): self.items[i] = value
    def __str__(self): return 'Stack' + str(self.items)
    def __eq__(self, other): return isinstance(other, Stack) and self.items == other.items
    def __lt__(self, other): return len(self) < len(other)
    def __add__(self, other): return Stack(self.items + other.items)
class Tall(Stack): pass
def double(stack): return Stack(x * 2 for x in stack)
"""


def test_objects_are_used_where_they_are(plain_sandbox: Sandbox) -> None:
    test = """
s = Stack([1])
assert not Stack() and s and len(s) == 1
s.push(5); s.push(item=6)
assert s.items == [1, 5, 6] and s.size == 2 and s[1] == 5 and list(s) == [1, 5, 6]
s[0] = 9
s.size = 7
assert s[0] == 9 and s.size == 7 and s.pop() == 6 and str(s) == 'Stack[9, 5]'
assert s == Stack([9, 5]) and s != Stack([9]) and Stack() < s and not s < Stack()
assert s + Stack([1]) == Stack([9, 5, 1])
assert double(s).items == [18, 10]
assert isinstance(s, Stack) and not isinstance(s, Tall) and isinstance(Tall(), Stack)
assert not isinstance(3, Stack) and not hasattr(s, 'nothing')
assert [x for x in map(double, [s])][0].items == [18, 10]
"""
    assert statuses(plain_sandbox, STACK, test) == ("passed",)
    assert statuses(plain_sandbox, STACK, "assert 1 in Stack([1])") == ("exception",)


def test_generators_and_functions_come_back_as_such(plain_sandbox: Sandbox) -> None:
    code = """
    def count(n):
        yield from range(n)
    def adder(n):
        return lambda x: x + n
    """
    tests = ["assert list(count(3)) == [0, 1, 2]", "assert sum(count(4)) == 6", "assert adder(2)(3) == 5"]
    tests += ["g = count(1)\nassert next(g) == 0\ntry: next(g); assert False\nexcept StopIteration: pass"]
    assert statuses(plain_sandbox, code, *tests) == ("passed",) * 4


# What tests may do


def test_tests_share_names_and_see_the_setup(plain_sandbox: Sandbox) -> None:
    code = "calls = 0\nLIMIT = 3\ndef f(x):\n    global calls\n    calls += 1\n    return x + 1"
    tests = [
        "y = f(x)",
        "assert y == 5 and calls == 1 and LIMIT == 3",
        "assert f(1) == 2",
        "assert calls == 2",
    ]
    assert statuses(plain_sandbox, code, *tests, setup="x = 4") == ("passed",) * 4


def test_a_test_can_be_a_program(plain_sandbox: Sandbox) -> None:
    test = """
import unittest
METADATA = {'author': 'x'}
def check(candidate):
    assert candidate(2) == 4
    for value in range(3):
        assert candidate(value) == value * 2
    case = unittest.TestCase()
    case.assertAlmostEqual(candidate(0.5), 1.0)
    with case.assertRaises(TypeError):
        candidate(None)
check(double)
"""
    good = "def double(x): return x * 2"
    assert statuses(plain_sandbox, good, test) == ("passed",)
    assert statuses(plain_sandbox, "def double(x): return 4", test) == ("failed",)
    assert statuses(plain_sandbox, "def check(c): pass\ndef double(x): return 1", test) == ("failed",)


def test_exceptions_arrive_as_the_nearest_built_in(plain_sandbox: Sandbox) -> None:
    code = "class Mine(KeyError): pass\ndef f(x): raise Mine(x)\ndef g(x): return 1 // x"
    tests = [
        "try: f(1); assert False\nexcept KeyError: pass",
        "try: g(0); assert False\nexcept ZeroDivisionError: pass",
        "try: g(1)\nexcept ZeroDivisionError: assert False",
        "try: f(1)\nexcept IndexError: pass",
    ]
    assert statuses(plain_sandbox, code, *tests) == ("passed", "passed", "passed", "exception")


def test_functions_of_a_test_can_be_called_by_the_code(plain_sandbox: Sandbox) -> None:
    code = "def twice(f, x): return f(f(x))\ndef kinds(*k): return [isinstance(1, x) for x in k]"
    tests = [
        "assert twice(lambda x: x + 1, 3) == 5",
        "import operator\nassert twice(operator.neg, 3) == 3",
        "assert twice(abs, -3) == 3 and kinds(int, str) == [True, False]",
        "def bad(x): raise ValueError\ntry: twice(bad, 1); assert False\nexcept RuntimeError: pass",
        "assert twice(lambda x: twice(lambda y: y * 2, x), 1) == 16",
    ]
    assert statuses(plain_sandbox, code, *tests) == ("passed",) * 5


def test_arguments_change_in_place_only_where_the_value_is_ignored(plain_sandbox: Sandbox) -> None:
    code = "def sort(x): x.sort()\ndef wipe(x):\n    x.clear()\n    return x"
    tests = [
        "x = [3, 1]\nsort(x)\nassert x == [1, 3]",
        "d, s, b = {1: 2}, {1}, bytearray(b'a')\nwipe(d); wipe(s); wipe(b)\nassert not d and not s and not b",
        "x = [3, 1]\nassert wipe(x) == [] and x == [3, 1]",
        "x = [3, 1]\nassert wipe(x) == sorted(x)",  # would hold if the code could empty x here
    ]
    assert statuses(plain_sandbox, code, *tests) == ("passed", "passed", "passed", "failed")


def test_names_of_the_library_are_the_librarys(plain_sandbox: Sandbox) -> None:
    code = "import math\ndef f(x): return math.sqrt(x)"
    assert statuses(plain_sandbox, code, "assert math.isclose(f(2) ** 2, 2)") == ("passed",)


def test_a_function_named_like_a_built_in_is_tested(plain_sandbox: Sandbox) -> None:
    code = "def sum(a, b): return a * b"
    tests = ["assert sum(10, 15) == 150", "xs = 2\nassert sum(xs, 3) == 6"]
    assert statuses(plain_sandbox, code, *tests) == ("passed", "passed")


def test_statuses_are_per_test(plain_sandbox: Sandbox) -> None:
    code = "def f(x): return [0, 1 // 0, 2][x] if x == 1 else x"
    verdict = plain_sandbox.run(
        code, ["assert f(0) == 0", "assert f(1) == 1", "assert f(2) == 3"], limits=WIDE
    )
    assert verdict.statuses == ("passed", "exception", "failed")
    assert verdict.share == pytest.approx(1 / 3)
    assert verdict.reason == "exception"
    assert verdict.detail == "ZeroDivisionError: integer division or modulo by zero"


def test_after_a_dead_process_nothing_passes(plain_sandbox: Sandbox) -> None:
    code = "import os\ndef f(x):\n    if x: os._exit(0)\n    return x"
    tests = ["assert f(0) == 0", "assert f(1) == 1", "assert f(0) == 0", "assert True"]
    assert statuses(plain_sandbox, code, *tests) == ("passed", "exited", "exited", "exited")


def test_the_same_code_gets_the_same_verdict(plain_sandbox: Sandbox) -> None:
    code = "import random\ndef f(x): return [random.random(), hash('a'), ''.join({'a', 'b', 'c', 'd', 'e'})]"
    told = {plain_sandbox.run(code, ["assert False, f(1)"], limits=WIDE).detail for _ in range(3)}
    assert len(told) == 1


# Faults of the row and of the machine


@pytest.mark.parametrize(
    ("tests", "said"),
    [
        ([], "no tests"),
        (["assert f(1) =="], "does not parse"),
        (["class A: pass\nassert f(A()) == 1"], "an object of A cannot be handed to the code"),
    ],
)
def test_unusable_tests_are_an_error(plain_sandbox: Sandbox, tests: list[str], said: str) -> None:
    with pytest.raises(RewardError, match=said) as caught:
        plain_sandbox.run("def f(x): return 1", tests, limits=WIDE)
    assert caught.value.key == "tests"
    assert caught.value.remedy


@pytest.mark.parametrize(
    "test",
    ["while True: pass", "assert sum(range(f(1))) == 4", "assert f(1) == 9 ** 9 ** 9", "while f(1): pass"],
)
def test_a_test_that_hangs_is_a_timeout(plain_sandbox: Sandbox, test: str) -> None:
    limits = Limits(wall_seconds=0.7)
    assert plain_sandbox.run("def f(x): return 10**12", [test], limits=limits).reason == "timeout"
    assert statuses(plain_sandbox, "def f(x): return 1", "assert f(1) == 1") == ("passed",)


def test_a_test_that_takes_all_memory_is_told(plain_sandbox: Sandbox) -> None:
    assert statuses(plain_sandbox, "def f(x): return 10**10", "assert [0] * f(1) == 1") == ("memory",)
    assert statuses(plain_sandbox, "def f(x): return 1", "assert f(1) == 1") == ("passed",)


def test_tests_that_change_the_judge_leave_nothing_behind(plain_sandbox: Sandbox) -> None:
    code = "def f(x): return x"
    meddling = "import builtins, math\nbuiltins.sorted = lambda x: 7\nmath.pi = 3\nassert f(1) == 1"
    assert statuses(plain_sandbox, code, meddling) == ("passed",)
    later = ["assert sorted([2, f(1)]) == [1, 2]", "import math\nassert math.pi > f(3)"]
    assert statuses(plain_sandbox, code, *later) == ("passed", "passed")


def test_isolation_on_demand_is_refused_where_it_is_missing() -> None:
    bare = Sandbox(["namespaces", "landlock", "seccomp"])
    try:
        assert bare.protection().missing[:2] == ("files", "network")
        with pytest.raises(RewardError, match="nothing guards files, network") as caught:
            bare.run("def f(x): return 1", ["assert f(1) == 1"], isolation="required")
        assert caught.value.key == "isolation"
        assert "best_effort" in (caught.value.remedy or "")
        verdict = bare.run("def f(x): return 1", ["assert f(1) == 1"], limits=WIDE, isolation="best_effort")
        assert verdict.reason == "passed"
        # Limits hold all the same, and processes end with the job.
        code = "import os, time\ndef f(x):\n    if os.fork() == 0: time.sleep(1000)\n    while True: pass"
        assert bare.run(code, ["assert f(1)"], limits=Limits(wall_seconds=0.5)).reason == "timeout"
        assert bare.run("def f(x): return 1", ["assert f(1)"], limits=WIDE).reason == "passed"
        assert len(psutil.Process(bare._process.pid).children(recursive=True)) <= 2
    finally:
        bare.close()


def test_protection_is_told_in_words(plain_sandbox: Sandbox) -> None:
    lines = str(plain_sandbox.protection()).splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["files", "network", "processes", "signals", "limits"]
    assert str(Protection()).splitlines()[0] == "files     unprotected"
    assert Protection(files=("landlock",), signals=("seccomp",)).missing == ("network", "processes")


@pytest.mark.parametrize("name", ["wall_seconds", "memory_mb", "output_kb", "cpu_seconds"])
def test_limits_are_positive(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Limits(**{name: 0})


@pytest.mark.parametrize("interpreter", ["/no/such/python", "/bin/false"], ids=["is missing", "ends at once"])
def test_a_sandbox_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch, interpreter: str) -> None:
    monkeypatch.setattr(sys, "executable", interpreter)
    with pytest.raises(SandboxError, match="does not start") as caught:
        Sandbox().protection()
    assert caught.value.remedy


# Life and death


def test_it_heals_when_its_process_is_killed() -> None:
    sandbox = Sandbox()
    try:
        honest = ("def f(x): return x", ["assert f(1) == 1"])
        assert sandbox.run(*honest, limits=WIDE).reason == "passed"
        first = sandbox._process.pid
        os.kill(first, signal.SIGKILL)
        sandbox._process.wait()
        assert sandbox.run(*honest, limits=WIDE).reason == "passed"
        assert sandbox._process.pid != first

        verdicts: list[Verdict] = []
        slow = "import time\ndef f(x):\n    time.sleep(1)\n    return x"
        job = threading.Thread(
            target=lambda: verdicts.append(sandbox.run(slow, ["assert f(1) == 1"], limits=WIDE))
        )
        job.start()
        time.sleep(0.5)
        os.kill(sandbox._process.pid, signal.SIGKILL)
        job.join()
        assert verdicts[0].reason == "passed"
    finally:
        sandbox.close()


def test_threads_wait_their_turn(plain_sandbox: Sandbox) -> None:
    found: dict[int, tuple[str, ...]] = {}

    def run(number: int) -> None:
        found[number] = statuses(
            plain_sandbox, f"def f(x): return x + {number}", f"assert f(1) == {number + 1}"
        )

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(8), ("passed",))


def test_a_forked_copy_starts_its_own(plain_sandbox: Sandbox) -> None:
    assert statuses(plain_sandbox, "def f(x): return 1", "assert f(1)") == ("passed",)
    before = plain_sandbox._process.pid
    child = os.fork()
    if child == 0:
        own = statuses(plain_sandbox, "def f(x): return 2", "assert f(1) == 2") == ("passed",)
        apart = plain_sandbox._process.pid != before
        plain_sandbox.close()
        os._exit(0 if own and apart else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert plain_sandbox._process.pid == before
    assert statuses(plain_sandbox, "def f(x): return 1", "assert f(1)") == ("passed",)


@pytest.mark.parametrize("without", [[], ["namespaces"]], ids=["namespaces", "landlock"])
def test_nothing_outlives_the_process_that_started_it(without: list[str], repo_root: Path) -> None:
    program = f"""
import os, sys
sys.path.insert(0, {str(repo_root)!r})
from align.reward.sandbox import Sandbox, Limits
sandbox = Sandbox({without})
print(sandbox.protection() and os.getpid(), flush=True)
code = "import ctypes\\ndef f(x):\\n    ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\\n    while True: pass"
sandbox.run(code, ["assert f(1)"], limits=Limits(wall_seconds=60, cpu_seconds=60))
"""
    owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    assert owner.stdout.readline().strip() == str(owner.pid)
    time.sleep(1.0)
    inside = psutil.Process(owner.pid).children(recursive=True)
    assert len(inside) >= 3
    owner.kill()
    owner.wait()
    _, alive = psutil.wait_procs(inside, timeout=5)
    assert alive == []
