"""Maths problems of several steps: chains of four operands and short stories of three.

Every problem is a left-to-right expression whose intermediate results and answer lie in 0 … 99;
all operands but the first are single digits. A held-out expression never occurs in training, whatever
story surrounds it; training problems may tell one expression in several ways.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

LARGEST = 99
"""Largest intermediate result and answer."""
SMALL = 9
"""Largest operand but the first."""
TIMES_SHARE = 0.1
"""Share of problems whose first step is a multiplication."""
WORD_SHARE = 0.3
"""Share of problems told as a story."""

CHAIN_FORMS = ("What is {e}?", "What is {e}?", "Compute {e}.", "{e} = ?")

NAMES = (
    "Tom", "Ann", "Ben", "Mia", "Sam", "Eva", "Leo", "Zoe", "Max", "Ida",
    "Kim", "Joe", "Amy", "Dan", "Lily", "Noah", "Rosa", "Omar", "Nina", "Yuki",
)  # fmt: skip
THINGS = (
    "apples", "books", "cards", "coins", "pens", "shells", "stamps", "marbles", "cookies",
    "stickers", "eggs", "balls", "flowers", "stones", "cups", "nuts", "photos", "toys",
)  # fmt: skip

# Story per pattern of operators. {n} and {m} are names, {t} a thing, {a} {b} {c} the operands.
STORIES: dict[str, tuple[str, ...]] = {
    "++": (
        "{n} has {a} {t}. {m} gives {n} {b} more, and {n} finds {c} more. How many {t} does {n} have?",
        "There are {a} {t} in a box. {n} adds {b}, then {m} adds {c}. How many {t} are in the box?",
        "{n} has {a} {t}, {m} has {b}, and there are {c} on the table. How many {t} are there in all?",
    ),
    "+-": (
        "{n} has {a} {t}. {n} buys {b} more and gives {c} to {m}. How many {t} does {n} have now?",
        "A shop has {a} {t}. It gets {b} more and sells {c}. How many {t} are left?",
        "{n} has {a} {t} and {m} has {b}. They lose {c} of them. How many {t} do they still have?",
    ),
    "-+": (
        "{n} has {a} {t}. {n} loses {b}, then buys {c}. How many {t} does {n} have now?",
        "There are {a} {t} in a bag. {n} takes {b} out and {m} puts {c} in. How many {t} are in the bag?",
        "A shop has {a} {t}. It sells {b} and gets {c} new ones. How many {t} does it have?",
    ),
    "--": (
        "{n} has {a} {t}. {n} gives {b} to {m} and loses {c}. How many {t} are left?",
        "There are {a} {t} on a table. {n} takes {b} and {m} takes {c}. How many {t} are left?",
        "A shop has {a} {t}. It sells {b} on Monday and {c} on Friday. How many {t} are left?",
    ),
    "*+": (
        "{n} has {a} boxes with {b} {t} each, and {c} more {t}. How many {t} does {n} have?",
        "{n} buys {a} bags of {b} {t}. {m} gives {n} {c} more. How many {t} does {n} have?",
    ),
    "*-": (
        "{n} has {a} boxes with {b} {t} each and gives {c} {t} to {m}. How many {t} are left?",
        "A shop gets {a} bags of {b} {t} and sells {c} {t}. How many {t} are left?",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """One question with the expression behind it."""

    kind: str
    """``chain`` or ``word``; ``chain_times`` and ``word_times`` start with a multiplication."""
    question: str
    numbers: tuple[int, ...]
    operators: str
    """One of ``+ - *`` between each two numbers."""

    @property
    def steps(self) -> tuple[int, ...]:
        """The intermediate results and, last, the answer."""
        results = [self.numbers[0]]
        for operator, number in zip(self.operators, self.numbers[1:], strict=True):
            results.append(_apply(results[-1], operator, number))
        return tuple(results[1:])

    @property
    def answer(self) -> int:
        return self.steps[-1]

    @property
    def expression(self) -> str:
        return _expression(self.numbers, self.operators)

    def direct(self) -> str:
        return f"Answer: {self.answer}"

    def worked(self) -> str:
        left, shown = self.numbers[0], ""
        for operator, number, result in zip(self.operators, self.numbers[1:], self.steps, strict=True):
            shown += f"{left} {operator} {number} = {result}. "
            left = result
        return f"{shown}Answer: {left}"


def _expression(numbers: tuple[int, ...], operators: str) -> str:
    rest = (f" {operator} {number}" for operator, number in zip(operators, numbers[1:], strict=True))
    return f"{numbers[0]}{''.join(rest)}"


def _apply(left: int, operator: str, right: int) -> int:
    return {"+": left + right, "-": left - right, "*": left * right}[operator]


def make_problems(
    rng: Random, count: int, *, max_operand: int, held_out: set[str], distinct: bool = False
) -> list[Problem]:
    """``count`` problems whose expressions are not in ``held_out``.

    With ``distinct`` no expression comes twice, and each is added to ``held_out``.
    """
    problems: list[Problem] = []
    attempts = 0
    while len(problems) < count:
        attempts += 1
        if attempts > 200 * count:
            raise SystemExit(f"max operand {max_operand} gives too few different problems for {count} more")
        problem = _draw(rng, max_operand)
        if not all(0 <= each <= LARGEST for each in problem.steps) or problem.expression in held_out:
            continue
        assert problem.answer == eval(
            problem.expression
        )  # only digits and operators; an independent reckoning
        if distinct:
            held_out.add(problem.expression)
        problems.append(problem)
    return problems


def _draw(rng: Random, max_operand: int) -> Problem:
    story = rng.random() < WORD_SHARE
    times = rng.random() < TIMES_SHARE
    least = 2 if story else 1  # "1 apples" is not English
    rest = 1 if story else 2
    if times:
        operators = "*"
        numbers = (rng.randint(2, 5), rng.randint(2, 6))
    else:
        operators = rng.choice("+-")
        numbers = (rng.randint(least, max_operand), rng.randint(least, SMALL))
    operators += "".join(rng.choice("+-") for _ in range(rest))
    numbers += tuple(rng.randint(least, SMALL) for _ in range(rest))
    if story:
        a, b, c = numbers
        n, m = rng.sample(NAMES, 2)
        question = rng.choice(STORIES[operators]).format(n=n, m=m, t=rng.choice(THINGS), a=a, b=b, c=c)
    else:
        question = rng.choice(CHAIN_FORMS).format(e=_expression(numbers, operators))
    kind = ("word" if story else "chain") + ("_times" if times else "")
    return Problem(kind, question, numbers, operators)
