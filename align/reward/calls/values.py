"""From what a reward function returned to outcomes.

A number (booleans count as 0 and 1), None to abstain, or a mapping. Of a tuple the first entry counts,
as in verl. The score of a mapping is its entry
``score`` or ``reward``, and its other numbers are recorded as parts; what is no number is left aside.
Without such an entry every value must be a number and the score is their sum. The entry ``steps`` of a
mapping is a list of [end, reward] for process supervision, the end in characters of the completion. NaN,
infinities, numbers beyond fp32, text and lists of the wrong length are errors.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from align.types import Outcome

LARGEST = 3.4e38
"""Of fp32, in which updates compute."""
SCORE_KEYS = ("score", "reward")
STEPS_KEY = "steps"
LIST_KEYS = ("rewards", "scores")
"""OpenRLHF's mapping for a whole list."""


def outcome_of(value: Any, seconds: float = 0.0) -> Outcome:
    """The outcome that a returned value stands for (see the top of this file)."""
    if isinstance(value, tuple) and value:  # verl: the score, and what the function has to say about it
        value = value[0]
    if value is None:
        return Outcome("abstain", seconds=seconds)
    try:
        if not isinstance(value, Mapping):
            return Outcome("ok", _number(value), seconds=seconds)
        given = next((key for key in SCORE_KEYS if key in value), None)
        steps = _steps(value.get(STEPS_KEY) or ())
        if given is None:
            parts = {str(name): _number(item) for name, item in value.items() if name != STEPS_KEY}
            if not parts:
                raise ValueError("returned a mapping without a score; return None to abstain")
            return Outcome("ok", math.fsum(parts.values()), parts, seconds=seconds, steps=steps)
        if value[given] is None:
            return Outcome("abstain", seconds=seconds)
        parts = {
            str(name): _number(item)
            for name, item in value.items()
            if name not in {given, STEPS_KEY} and _is_number(item)  # verl's mappings also carry notes, arrays
        }
        return Outcome("ok", _number(value[given]), parts, seconds=seconds, steps=steps)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # the last: a torch vector
        return Outcome("error", detail=str(error), seconds=seconds)


def _steps(value: Any) -> tuple[tuple[int, float], ...]:
    """Pairs (end, reward).

    Raises:
        ValueError: it is no list of such pairs.
    """
    try:
        steps = tuple((int(end), _number(reward)) for end, reward in value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{STEPS_KEY} is a list of [end in characters, reward]: {error}") from error
    if any(end < 1 for end, _ in steps):
        raise ValueError(f"{STEPS_KEY} is a list of [end in characters, reward], each end at least 1")
    return steps


def _number(value: Any) -> float:
    """A finite float.

    Raises:
        TypeError, ValueError: it is none.
    """
    plain = _plain(value)
    if not isinstance(plain, numbers.Real | Decimal):
        raise TypeError(
            f"returned {type(value).__name__} where a number, None or a mapping of numbers belongs"
        )
    number = float(plain)
    if not math.isfinite(number):
        raise ValueError(f"returned {number}; return None to abstain")
    if abs(number) > LARGEST:
        raise ValueError(f"returned {number:g}, which fp32 does not hold")
    return number


def _plain(value: Any) -> Any:
    """A NumPy or torch scalar as a Python one."""
    item = getattr(value, "item", None)
    return item() if callable(item) else value


def _is_number(value: Any) -> bool:
    try:
        return isinstance(_plain(value), numbers.Real | Decimal)
    except (TypeError, ValueError, RuntimeError):  # an array of several
        return False


def outcomes_of(values: Any, count: int, seconds: float, *, mapping: bool = False) -> list[Outcome]:
    """The outcomes of a list of values; what is no list of ``count`` is an error of all.

    Args:
        values: what the function returned, in its own types: a list, an array, a tensor.
        count: samples of the call.
        seconds: of each.
        mapping: OpenRLHF's mapping is taken too: ``rewards``, and numbers beside them as parts.

    Raises:
        Exception: whatever iterating raises.
    """
    beside: list[dict[str, Any]] = [{} for _ in range(count)]
    if mapping and isinstance(values, Mapping) and any(key in values for key in LIST_KEYS):
        given = next(key for key in LIST_KEYS if key in values)
        others = {name: item for name, item in values.items() if name not in {given, "extra_logs", STEPS_KEY}}
        logs = values.get("extra_logs")
        if isinstance(logs, Mapping):
            others |= {name: item for name, item in logs.items() if name not in (*SCORE_KEYS, STEPS_KEY)}
        for name, item in others.items():
            listed = _listed(item)
            for row, each in zip(beside, listed if listed and len(listed) == count else (), strict=False):
                row[str(name)] = each
        values = values[given]
    listed = _listed(values)
    if listed is None:
        detail = f"returned {type(values).__name__} where a list of {count} scores belongs"
        return [Outcome("error", detail=detail, seconds=seconds)] * count
    if len(listed) != count:
        detail = f"returned {len(listed)} scores for {count} samples"
        return [Outcome("error", detail=detail, seconds=seconds)] * count
    return [
        outcome_of({**extra, "score": value} if extra else value, seconds)
        for value, extra in zip(listed, beside, strict=True)
    ]


def _listed(values: Any) -> list[Any] | None:
    """A list of them; None of what is no list, such as a number or an array without dimensions."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        return None
    return None if getattr(values, "ndim", 1) == 0 else list(values)
