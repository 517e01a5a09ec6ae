"""What a row asks of code: statements, calls of one function, or runs of a program.

The forms are those of the data sets: MBPP's list of asserts, HumanEval's ``check``, APPS's and TACO's
``input_output``, lists of ``{"input": …, "output": …}``, and JSON text of any of them.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from align.reward import RewardError, Sample

from ._code_checks import completed

_REAL = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_TOLERANCE = 1e-6
_NAMES = ("fn_name", "func_name", "entry_point")

SAME = f"""
from decimal import Decimal as _Decimal
def _same(got, want):
    if isinstance(want, list) and isinstance(got, (list, tuple)):
        return len(got) == len(want) and all(_same(a, b) for a, b in zip(got, want))
    if isinstance(want, dict) and isinstance(got, dict):
        got = {{str(key): value for key, value in got.items()}}
        return got.keys() == want.keys() and all(_same(got[key], want[key]) for key in want)
    if isinstance(want, float) and isinstance(got, (int, float)):
        last = _Decimal(repr(want)).as_tuple().exponent if want - want == 0 else 0
        half = min({_TOLERANCE}, 0.5 * 10.0 ** min(last, 0))
        return got == want or abs(got - want) <= max({_TOLERANCE} * abs(want), half)
    return got == want
def _accepted(got, want):
    return _same(got, want) or (isinstance(want, list) and len(want) == 1 and _same(got, want[0]))
"""
"""Equality with values that were written as JSON: tuples are lists; a result may stand in a list."""
PRELUDE = "\n".join(
    [
        *(
            f"from {name} import *"
            for name in ("math", "typing", "collections", "functools", "itertools", "heapq", "bisect")
        ),
        "from builtins import pow",
        "import collections, copy, functools, heapq, itertools, math, operator, random, re, string, sys",
        "class ListNode:",
        "    def __init__(self, val=0, next=None): self.val, self.next = val, next",
        "class TreeNode:",
        "    def __init__(self, val=0, left=None, right=None):",
        "        self.val, self.left, self.right = val, left, right",
        "",
    ]
)
"""Names that answers to such tasks take for given."""


@dataclass(frozen=True)
class Statements:
    """Statements that must not fail."""

    tests: list[str]


@dataclass(frozen=True)
class Calls:
    """Arguments of one function, and what it must return."""

    name: str
    cases: list[tuple[list[Any], Any]]


@dataclass(frozen=True)
class Runs:
    """Standard inputs of a program, and what it must print."""

    cases: list[tuple[str, str]]


def tests_of(sample: Sample) -> Statements | Calls | Runs | None:
    """What a row asks; None where its column is null.

    Raises:
        RewardError: the row has no tests, or has them in a form that nobody knows.
    """
    column = next(
        (name for name in ("tests", "input_output", "inputs", "ground_truth") if name in sample), "tests"
    )
    nested = sample.get("reward_model")  # where verl's data have it
    if column not in sample and isinstance(nested, Mapping) and "ground_truth" in nested:
        value, column = nested["ground_truth"], "reward_model"
    else:
        value = sample[column]
    if column == "inputs":
        value = {"inputs": value, "outputs": sample["outputs"]}
        if value["inputs"] is None and value["outputs"] is None:
            return None
    if value is None:
        return None
    names = [str(sample.get(name)) for name in _NAMES if sample.get(name)]
    setup = str(sample.get("setup") or "")
    return _read(_decoded(value), setup, names[0] if names else None, column)


def same_output(wanted: str, printed: str) -> bool:
    """Whether a program printed what it should: line by line, blanks at the ends and between words aside.
    Numbers that are written with a point in the reference may differ by a millionth."""
    lines, given = _lines(wanted), _lines(printed)
    return len(lines) == len(given) and all(
        len(line) == len(other) and all(map(_same_word, line, other))
        for line, other in zip(lines, given, strict=True)
    )


def _lines(text: str) -> list[list[str]]:
    lines = [line.split() for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _same_word(wanted: str, given: str) -> bool:
    if wanted == given:
        return True
    if not (_REAL.fullmatch(wanted) and _NUMBER.fullmatch(given)):
        return False
    # Half of the last digit: what rounds to 0.000000 is no error, but 0 is never right for 4.2e-7.
    last = Decimal(wanted).as_tuple().exponent
    half = min(_TOLERANCE, 0.5 * 10.0 ** min(int(last), 0))
    return math.isclose(float(wanted), float(given), rel_tol=_TOLERANCE, abs_tol=half)


def _decoded(value: Any) -> Any:
    """The value of JSON text; other text as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in {"[", "{"}:
        for read in (json.loads, ast.literal_eval):
            try:
                return read(value)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    return value


def _read(value: Any, setup: str, name: str | None, column: str) -> Statements | Calls | Runs:
    if isinstance(value, str):
        return Statements(completed([value], setup, name, column))
    if isinstance(value, Mapping):
        name = next(
            (str(value[key]) for key in _NAMES if value.get(key)), name if "inputs" not in value else None
        )
        ins, outs = (next((value[key] for key in keys if key in value), None) for keys in (_INS, _OUTS))
        if _listed(ins) and _listed(outs) and len(ins) == len(outs):
            return _cases(list(zip(ins, outs, strict=True)), name, column)
        if ins is not None and outs is not None and not _listed(ins):
            return _cases([(ins, outs)], name, column)
        raise _unknown(column, "its inputs and outputs are not two lists of one length")
    if _listed(value) and value:
        if all(isinstance(item, str) for item in value):
            return Statements(completed(list(value), setup, name, column))
        if all(isinstance(item, Mapping) for item in value):
            return _listed_cases(value, column)
    if _listed(value):
        raise _unknown(
            column, "it is an empty list" if not value else "its items are neither text nor mappings"
        )
    raise _unknown(column, f"it is of type {type(value).__name__}")


_INS, _OUTS = ("inputs", "input", "stdin"), ("outputs", "output", "stdout", "expected_output")


def _listed(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _listed_cases(rows: Sequence[Mapping[str, Any]], column: str) -> Calls | Runs:
    pairs, names = [], set()
    for row in rows:
        about = row.get("metadata") if isinstance(row.get("metadata"), Mapping) else {}
        names.add(next((place[key] for place in (row, about) for key in _NAMES if place.get(key)), None))
        ins, outs = ([row[key] for key in keys if row.get(key) is not None] for keys in (_INS, _OUTS))
        if not ins or not outs:
            raise _unknown(column, "one of its items lacks `input` or `output`")
        pairs.append((ins[0], outs[0]))
    if len(names) != 1:
        raise _unknown(column, "its items name different functions")
    return _cases(pairs, names.pop(), column)


def _cases(pairs: list[tuple[Any, Any]], name: Any, column: str) -> Calls | Runs:
    if not pairs:
        raise _unknown(column, "it holds no test")
    if name:
        return Calls(
            str(name).rpartition(".")[2], [(_arguments(given), _result(wanted)) for given, wanted in pairs]
        )
    return Runs([(_text(given), _text(wanted)) for given, wanted in pairs])


def _text(value: Any) -> str:
    return "\n".join(map(str, value)) if _listed(value) else str(value)


def _arguments(value: Any) -> list[Any]:
    """One JSON value a line, or a list of them."""
    if isinstance(value, str):
        try:
            return [json.loads(line) for line in value.splitlines() if line.strip()]
        except ValueError:
            return [value]
    return list(value) if _listed(value) else [value]


def _result(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            pass
    return value


def _unknown(column: str, why: str) -> RewardError:
    return RewardError(
        f"the tests are in no known form: {why}",
        key=column,
        remedy="give statements, or inputs and outputs (docs/sandbox.md)",
    )
