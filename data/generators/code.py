"""Small functions to write: one to three steps on a number, or a choice and a total over a list.

Some answers forget the brackets that they need. A task's tests come from carrying out its steps in Python one by one, not from the code that answers it.
A held-out task, whatever its wording, never occurs in training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random

TESTS = 4
"""Tests of a task; the arguments differ."""
LIST_SHARE = 0.12
"""Share of draws that are about a list; of the tasks, about a quarter, as more of the others are dropped."""
PLAIN_SHARE = 0.2
"""Share that is kept of the tasks about a number that need no brackets; they would be five sixths."""
FORMS = ("Write {f}: {steps}.", "Write a function {f}: {steps}.", "Code {f}: {steps}.")


@dataclass(frozen=True)
class Step:
    """One thing to do to a number, for a constant ``k`` that not all of them have."""

    words: str
    code: str
    """``{e}`` stands for the expression before it."""
    apply: Callable[[int, int], int]
    binds: int
    """How tightly, in Python's order: 1 sum, 2 product, 3 sign, 4 power, 5 call."""
    brackets_below: int = 0
    """An expression that binds less than this needs brackets."""


STEPS = (
    Step("add {k}", "{e} + {k}", lambda x, k: x + k, 1),
    Step("subtract {k}", "{e} - {k}", lambda x, k: x - k, 1),
    Step("multiply by {k}", "{e} * {k}", lambda x, k: x * k, 2, 2),
    Step("double it", "{e} * 2", lambda x, k: x + x, 2, 2),
    Step("take the remainder by {k}", "{e} % {k}", lambda x, k: x - k * (x // k), 2, 2),
    Step("change its sign", "-{e}", lambda x, k: 0 - x, 3, 3),
    Step("square it", "{e} ** 2", lambda x, k: x * x, 4, 5),
    Step("make it at least {k}", "max({e}, {k})", lambda x, k: x if x > k else k, 5),
    Step("make it at most {k}", "min({e}, {k})", lambda x, k: x if x < k else k, 5),
    Step("drop its sign", "abs({e})", lambda x, k: x if x > 0 else 0 - x, 5),
)

KEEP: dict[str, tuple[str, Callable[[int, int], bool]]] = {
    "take the items": ("", lambda x, k: True),
    "take the items above {k}": (" if x > {k}", lambda x, k: x > k),
    "take the items below {k}": (" if x < {k}", lambda x, k: x < k),
    "take the even items": (" if x % 2 == 0", lambda x, k: x in range(-100, 101, 2)),
    "take the odd items": (" if x % 2 == 1", lambda x, k: x in range(-99, 101, 2)),
}
CHANGE: dict[str, tuple[str, Callable[[int, int], int]]] = {
    "": ("x", lambda x, k: x),
    "add {k} to each": ("x + {k}", lambda x, k: x + k),
    "multiply each by {k}": ("x * {k}", lambda x, k: x * k),
    "square each": ("x ** 2", lambda x, k: x * x),
}
TOTAL: dict[str, tuple[str, Callable[[list[int]], int]]] = {
    "add them up": ("sum", sum),
    "find the largest": ("max", max),
    "find the smallest": ("min", min),
}


@dataclass(frozen=True)
class Task:
    """One function to write."""

    kind: str
    """``steps_1`` to ``steps_3``, or ``list``."""
    question: str
    expression: str
    careless: str
    """The same without brackets, which is right where it needs none."""
    tests: tuple[str, ...]

    @property
    def meaning(self) -> str:
        """What is asked without its wording, to tell tasks apart."""
        return self.expression

    def direct(self) -> str:
        return self._function(self.careless)

    def worked(self) -> str:
        return self._function(self.expression)

    def _function(self, expression: str) -> str:
        return f"def f({'a' if self.kind == 'list' else 'x'}):\n    return {expression}"


def make_tasks(rng: Random, count: int, *, held_out: set[str], distinct: bool = False) -> list[Task]:
    """``count`` tasks whose meaning is not in ``held_out``.

    With ``distinct`` none means what another does, and each is added to ``held_out``.
    """
    tasks: list[Task] = []
    while len(tasks) < count:
        task = _list_task(rng) if rng.random() < LIST_SHARE else _number_task(rng)
        if task is None or task.meaning in held_out:
            continue
        if distinct:
            held_out.add(task.meaning)
        tasks.append(task)
    return tasks


def _number_task(rng: Random) -> Task | None:
    steps = [(rng.choice(STEPS), rng.randint(2, 9)) for _ in range(rng.choice((1, 2, 2, 2, 3)))]
    words, code, careless, binds = [], "x", "x", 5
    for step, k in steps:
        code = step.code.format(e=f"({code})" if binds < step.brackets_below else code, k=k)
        careless = step.code.format(e=careless, k=k)
        words.append(step.words.format(k=k))
        binds = step.binds
    if code == careless and rng.random() > PLAIN_SHARE:
        return None
    cases = {}
    for argument in rng.sample(range(-9, 13), TESTS):
        result = argument
        for step, k in steps:
            result = step.apply(result, k)
        cases[str(argument)] = result
    return _task(rng, f"steps_{len(steps)}", "x", words, code, careless, cases)


def _list_task(rng: Random) -> Task | None:
    keep, change, total = rng.choice(list(KEEP)), rng.choice(list(CHANGE)), rng.choice(list(TOTAL))
    k, n = rng.randint(2, 9), rng.randint(2, 9)
    (condition, wanted), (item, apply), (name, reckon) = KEEP[keep], CHANGE[change], TOTAL[total]
    condition, item = condition.format(k=k), item.format(k=n)
    code = f"{name}(a)" if (item, condition) == ("x", "") else f"{name}({item} for x in a{condition})"
    cases = {}
    for _ in range(TESTS):
        items = [rng.randint(-9, 12) for _ in range(rng.randint(4, 6))]
        kept = [apply(x, n) for x in items if wanted(x, k)]
        if not kept:
            return None  # the largest of nothing is an error, not an answer
        cases[str(items)] = reckon(kept)
    words = [each for each in (keep.format(k=k), change.format(k=n), total) if each]
    return _task(rng, "list", "a", words, code, code, cases)


def _task(
    rng: Random,
    kind: str,
    name: str,
    words: list[str],
    code: str,
    careless: str,
    cases: dict[str, int],
) -> Task | None:
    if len(cases) < TESTS or len(set(cases.values())) == 1:
        return None  # such tests would pass a constant
    question = rng.choice(FORMS).format(f=f"f({name})", steps=_sentence(words))
    tests = tuple(f"assert f({argument}) == {result}" for argument, result in cases.items())
    return Task(kind, question, code, careless, tests)


def _sentence(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)}, then {last}" if first else last
