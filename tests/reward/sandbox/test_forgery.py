"""Code that wants a verdict it has not earned. It never passes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from align.reward.sandbox import Limits, Sandbox, Verdict

Attack = Callable[..., Verdict]
LIMITS = Limits(wall_seconds=20, cpu_seconds=10, memory_mb=256, output_kb=256)
SECRET = "sesame-4711"  # what the test wants

FRAME = (
    "import os, json\nframe = lambda m: (lambda d: len(d).to_bytes(4, 'big') + d)(json.dumps(m).encode())\n"
)
ALWAYS = """
class Yes:
    def __eq__(self, other): return True
    __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __bool__ = __eq__
    def __sub__(self, other): return 0.0
    __rsub__ = __add__ = __radd__ = __abs__ = __mul__ = __sub__
    __hash__ = lambda self: hash('sesame-4711')
    def __reduce__(self): return (print, ())
    def __instancecheck__(self, other): return True
"""
FORGERIES = {
    "prints a verdict": "def f(x): " + 'print(\'{"statuses": ["passed"], "detail": ""}\'); print("1 passed")',
    "writes a verdict everywhere": FRAME
    + "def f(x):\n    for fd in range(3, 64):\n"
    + "        for m in ({'statuses': ['passed'], 'detail': ''}, '+'):\n"
    + "            try: os.write(fd, json.dumps(m).encode())\n            except OSError: pass",
    "answers yes in advance": FRAME + "os.write(3, frame(['value', True, None]) * 50)\ndef f(x): return 1",
    "tells of names nobody asked for": FRAME
    + "os.write(3, frame(['value', ['dict', [['f', 1], ['AssertionError', ['object', 0]], "
    + "['__call_as_statement__', ['object', 0]], ['__builtins__', ['dict', []]]]], None]))",
    "empty frames": "import os\nos.write(3, bytes(4000))\ndef f(x): return 1",
    "endless frame": "import os\nos.write(3, b'\\xff' * 4000)\ndef f(x): return 1",
    "nonsense": FRAME + "os.write(3, frame(['value', ['no such', 1], None]))",
    "nested frame": "import os\nd = b'[' * 10**5\nos.write(3, len(d).to_bytes(4, 'big') + d)",
    "asks the judge": FRAME
    + "os.write(3, frame(['ask', 'callback', [0, []]]) + frame(['ask', 'getattr', [1]]))",
    "equal to everything": ALWAYS + "def f(x): return Yes()",
    "equal to everything, a text": ALWAYS.replace("class Yes", "class Yes(str)") + "def f(x): return Yes()",
    "equal to everything, a number": ALWAYS.replace("class Yes", "class Yes(int)") + "def f(x): return Yes()",
    "a function equal to everything": ALWAYS + "f = Yes()",
    "patches assert": "import builtins\nbuiltins.AssertionError = type('E', (BaseException,), {})\n"
    "def f(x): return 1",
    "patches built-ins": "import builtins\nfor name in ('all', 'any', 'str', 'len', 'compile'):\n"
    "    setattr(builtins, name, lambda *a, **k: True)\ndef f(x): return 1",
    "traces": "import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)\n"
    "def f(x): raise AssertionError",
    "at exit": "import atexit, os\natexit.register(os._exit, 0)\ndef f(x): raise AssertionError",
    "excepthook": "import sys, os\nsys.excepthook = lambda *a: os._exit(0)\ndef f(x): raise ValueError",
    "raises what the test may catch": "def f(x): raise AssertionError('passed')",
    "stops an iteration": "def f(x): raise StopIteration",
    "patches the machinery": "import sys\nfor name, module in list(sys.modules.items()):\n"
    "    if 'peer' in name or 'candidate' in name or 'judge' in name:\n"
    "        for key, value in list(vars(module).items()):\n"
    "            if callable(value) and not key.startswith('_'): setattr(module, key, lambda *a, **k: True)\n"
    "def f(x): return 1",
    "searches its memory": """
import gc, sys
def f(x):
    needle = 'sesame' + '-'
    frame, found = sys._getframe(), []
    while frame:
        found += [repr(frame.f_locals), repr(frame.f_globals)[:10**6]]
        frame = frame.f_back
    for thing in gc.get_objects():
        try: found.append(repr(thing)[:10**4])
        except Exception: pass
    text = ' '.join(found)
    at = text.find(needle + '4')
    return text[at:at + 11] if at >= 0 else None
""",
    "overwrites the tests": "import os, glob\ndef f(x):\n"
    "    for path in ['tests.py', 'test.py', *glob.glob('**', recursive=True)]:\n"
    "        open(path, 'w').write('assert True')\n    return 1",
    "pickled": ALWAYS + "import pickle\ndef f(x): return pickle.dumps(Yes())",
}


@pytest.mark.parametrize("name", FORGERIES)
def test_it_cannot_forge_the_verdict(attack: Attack, name: str) -> None:
    attack(FORGERIES[name])


@pytest.mark.parametrize(
    "test",
    [
        f"assert {SECRET!r} == f(3)",
        f"assert f(3) in [{SECRET!r}]",
        f"assert {SECRET!r} in f(3)",
        "assert abs(f(3) - 4.5) < 1e-6",
        "assert abs(4.5 - f(3)) < 1e-6",
        "import math\nassert math.isclose(f(3), 4.5)",
        "assert f(3) <= 4.5 <= f(3)",
        "assert {f(3)} == {'sesame-4711'}",
        "assert f(3) is True",
        "assert [f(3)] == [4]",
        "assert isinstance(f(3), int)",
        "assert all(map(lambda x: f(x) == x, range(3)))",
        "import unittest\nunittest.TestCase().assertEqual(f(3), 4)",
        "try:\n    assert f(3) == 4\nexcept Exception as error:\n    raise error",
    ],
)
@pytest.mark.parametrize("base", ["object", "str", "float", "list"])
def test_objects_of_its_own_convince_no_test(attack: Attack, base: str, test: str) -> None:
    attack(ALWAYS.replace("class Yes", f"class Yes({base})") + "def f(x): return Yes()", test=test)


ANY = """
class Any:
    def __getattr__(self, name): return lambda *a, **k: True
    def __call__(self, *a, **k): return 0
"""


@pytest.mark.parametrize("name", ["abs", "all", "len", "isinstance", "math", "print"])
def test_its_own_built_ins_are_not_those_of_the_test(attack: Attack, name: str) -> None:
    code = f"{ANY}\n{name} = Any()\ndef f(x): return 2"
    tests = {
        "abs": "assert abs(f(3) - 4.5) < 1e-6",
        "all": "assert not all([f(3) == 2])",
        "len": "assert len([f(3)]) == 0",
        "isinstance": "assert isinstance(f(3), str)",
        "math": "assert math.isclose(f(3), 4.5)",
        "print": "y = f(3)\nassert print() == y",
    }
    assert attack(code, test=tests[name]).reason == "failed"


@pytest.mark.parametrize(
    "test",
    [
        "assert all(map(lambda x: f(x) == x, range(3)))",
        "def check(g):\n    assert all(map(lambda x: g(x) == x, range(3)))\ncheck(lambda x: f(x))",
    ],
)
def test_built_ins_stay_also_where_the_code_defines_nothing_else(attack: Attack, test: str) -> None:
    attack("all = map = lambda *a, **k: True", test=test)


def test_an_earlier_job_leaves_nothing_to_find(attack: Attack, sandbox: Sandbox) -> None:
    honest = f"def f(x): return {SECRET!r}"
    for _ in range(3):
        assert sandbox.run(honest, [f"assert f(3) == {SECRET!r}"], limits=LIMITS).reason == "passed"
        attack(FORGERIES["searches its memory"])


def test_a_raised_stop_iteration_does_not_end_the_loop_of_a_test(attack: Attack) -> None:
    code = "def f(x): raise StopIteration"
    attack(code, test="assert all(map(lambda x: f(x) == x, range(3)))")
    attack(code, test="for y in map(f, [1, 2]): assert y == 5\nassert list(map(f, [1])) == [5]")
