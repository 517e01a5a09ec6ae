"""Small functions to write: one to three steps on a number, or a choice and a total over a list.

There are two answers to each: ``direct`` leaves out all brackets, ``worked`` has those that are needed.
A task's tests come from carrying out its steps in Python one by one, not from the code that answers it,
and fail a function that leaves out a step. A held-out function, however it is asked for or computed,
never occurs in training.
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


EVERYWHERE = range(-40, 41)
LISTS = tuple(tuple(rng.sample(EVERYWHERE, 6)) for rng in map(Random, range(40)))
"""Two tasks that agree on all of these ask for the same function."""


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
    function: tuple[int | None, ...]
    """Its results on ``EVERYWHERE``, or on ``LISTS``."""

    def direct(self) -> str:
        """An answer without brackets."""
        return self._definition(self.careless)

    def worked(self) -> str:
        """An answer with the brackets that it needs."""
        return self._definition(self.expression)

    def _definition(self, expression: str) -> str:
        return f"def f({'a' if self.kind == 'list' else 'x'}):\n    return {expression}"


def make_tasks(
    rng: Random, count: int, *, held_out: set[tuple[int | None, ...]], distinct: bool = False
) -> list[Task]:
    """``count`` tasks whose functions are not in ``held_out``.

    With ``distinct`` no two ask for the same function, and each is added to ``held_out``.
    """
    tasks: list[Task] = []
    while len(tasks) < count:
        task = _list_task(rng) if rng.random() < LIST_SHARE else _number_task(rng)
        if task is None or task.function in held_out:
            continue
        if distinct:
            held_out.add(task.function)
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
    arguments = rng.sample(range(-9, 13), TESTS)
    results = _results(steps, arguments)
    less = [_results([*steps[:i], *steps[i + 1 :]], arguments) for i in range(len(steps))]
    if results in less or len(set(results)) == 1:
        return None  # a function that leaves out a step, or a constant, would pass the tests
    question = _question(rng, "f(x)", words)
    tests = _tests(arguments, results)
    function = tuple(_results(steps, EVERYWHERE))
    return Task(f"steps_{len(steps)}", question, code, careless, tests, function)


def _results(steps: Iterable[tuple[Step, int]], arguments: Iterable[int]) -> list[int]:
    found = list(arguments)
    for step, k in steps:
        found = [step.apply(x, k) for x in found]
    return found


def _list_task(rng: Random) -> Task | None:
    keep, change, total = rng.choice(list(KEEP)), rng.choice(list(CHANGE)), rng.choice(list(TOTAL))
    k, n = rng.randint(2, 9), rng.randint(2, 9)
    (condition, wanted), (item, apply), (name, reckon) = KEEP[keep], CHANGE[change], TOTAL[total]
    condition, item = condition.format(k=k), item.format(k=n)
    code = f"{name}(a)" if (item, condition) == ("x", "") else f"{name}({item} for x in a{condition})"

    def result(items: Iterable[int], *, all_kept: bool = False, unchanged: bool = False) -> int | None:
        kept = [x if unchanged else apply(x, n) for x in items if all_kept or wanted(x, k)]
        return reckon(kept) if kept else None  # the largest of nothing is an error, not an answer

    lists = [[rng.randint(-9, 12) for _ in range(rng.randint(4, 6))] for _ in range(TESTS)]
    results = [result(items) for items in lists]
    without_condition = [result(items, all_kept=True) for items in lists]
    without_change = [result(items, unchanged=True) for items in lists]
    if None in results or len(set(results)) == 1:
        return None
    if (condition and results == without_condition) or (item != "x" and results == without_change):
        return None
    words = [each for each in (keep.format(k=k), change.format(k=n), total) if each]
    function = tuple(map(result, LISTS))
    return Task("list", _question(rng, "f(a)", words), code, code, _tests(lists, results), function)


def _tests(arguments: Iterable[object], results: Iterable[int | None]) -> tuple[str, ...]:
    return tuple(f"assert f({x}) == {y}" for x, y in zip(arguments, results, strict=True))


def _question(rng: Random, head: str, words: Iterable[str]) -> str:
    *first, last = words
    steps = f"{', '.join(first)}, then {last}" if first else last
    return rng.choice(FORMS).format(f=head, steps=steps)
