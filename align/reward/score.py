"""Calling a reward function: whatever comes back, or goes wrong, becomes an Outcome.

Return values: a number (booleans count as 0 and 1), None to abstain, or a mapping. The score of a
mapping is its entry ``score`` or ``reward``, and its other numbers are recorded as parts; without
such an entry every value must be a number and the score is their sum. The entry ``steps`` of a mapping
is a list of [end, reward] for process supervision, the end in characters of the completion. NaN,
infinities, text and lists of the wrong length are errors.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import numbers
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from align.errors import RewardError
from align.reward.contract import Sample
from align.reward.registry import RewardFunction
from align.reward.style import TRL
from align.types import Outcome

SCORE_KEYS = ("score", "reward")
STEPS_KEY = "steps"


def call(
    function: RewardFunction,
    samples: Sequence[Sample],
    *,
    timeout: float | None = None,
    before: Callable[[Sample], None] | None = None,
) -> list[Outcome]:
    """Score samples; one outcome each, in order. Exceptions end as outcomes, never outside.

    A function that takes lists gets all samples in one call. Should that raise, a list in TRL's form
    is tried again one sample at a time, so that one bad sample costs only itself; a native list function
    compares its samples, so all of them fail. Coroutines of one call run together.

    Args:
        timeout: seconds a coroutine may take. A plain function cannot be stopped from inside its
            process: the reward workers are stopped from outside.
        before: called with a sample (the first, for a list) ahead of the function.
    """
    if not samples:
        return []
    if function.batched:
        return _call_list(function, samples, timeout, before)
    if function.awaits:
        if before:
            before(samples[0])
        return asyncio.run(_gather(function, samples, timeout))
    outcomes = []
    for sample in samples:
        if before:
            before(sample)
        start = time.perf_counter()
        try:
            value = _invoke(function, sample)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit and the like are the function's failure, not ours
            outcomes.append(_failure(error, time.perf_counter() - start))
        else:
            outcomes.append(outcome_of(value, time.perf_counter() - start))
    return outcomes


def outcome_of(value: Any, seconds: float = 0.0) -> Outcome:
    """The outcome that a returned value stands for (see the top of this file)."""
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
            if name != given and isinstance(_plain(item), numbers.Real)  # verl's mappings also carry notes
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
    if not isinstance(plain, numbers.Real):
        raise TypeError(
            f"returned {type(value).__name__} where a number, None or a mapping of numbers belongs"
        )
    number = float(plain)
    if not math.isfinite(number):
        raise ValueError(f"returned {number}; return None to abstain")
    return number


def _plain(value: Any) -> Any:
    """A NumPy or torch scalar as a Python one."""
    item = getattr(value, "item", None)
    return item() if callable(item) else value


def _call_list(
    function: RewardFunction,
    samples: Sequence[Sample],
    timeout: float | None,
    before: Callable[[Sample], None] | None,
) -> list[Outcome]:
    if before:
        before(samples[0])
    start = time.perf_counter()
    try:
        values = _invoke_list(function, samples)
        if inspect.isawaitable(values):
            values = asyncio.run(_limited(values, timeout))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if len(samples) > 1 and not function.compares and not isinstance(error, _TimeUp):
            return [_call_list(function, [sample], timeout, before)[0] for sample in samples]
        return [_failure(error, (time.perf_counter() - start) / len(samples))] * len(samples)
    seconds = (time.perf_counter() - start) / len(samples)
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        detail = f"returned {type(values).__name__} where a list of {len(samples)} scores belongs"
        return [Outcome("error", detail=detail, seconds=seconds)] * len(samples)
    values = list(values)
    if len(values) != len(samples):
        detail = f"returned {len(values)} scores for {len(samples)} samples"
        return [Outcome("error", detail=detail, seconds=seconds)] * len(samples)
    return [outcome_of(value, seconds) for value in values]


async def _gather(
    function: RewardFunction, samples: Sequence[Sample], timeout: float | None
) -> list[Outcome]:
    async def one(sample: Sample) -> Outcome:
        start = time.perf_counter()
        try:
            value = await _limited(_invoke(function, sample), timeout)
        except (KeyboardInterrupt, asyncio.CancelledError):
            raise
        except BaseException as error:
            return _failure(error, time.perf_counter() - start)
        return outcome_of(value, time.perf_counter() - start)

    return list(await asyncio.gather(*map(one, samples)))


class _TimeUp(Exception):
    """A coroutine passed its limit (its own TimeoutError is an ordinary error)."""


async def _limited(waiting: Any, timeout: float | None) -> Any:
    try:
        async with asyncio.timeout(timeout) as scope:
            return await waiting
    except TimeoutError as error:
        if scope.expired():
            raise _TimeUp(f"no answer within {timeout:g} s") from error
        raise


def _invoke(function: RewardFunction, sample: Sample) -> Any:
    if function.style.name == "native":
        return function.function(sample, **function.args)
    columns = sample.columns
    row = columns.get("reward_model")
    if "ground_truth" in columns:
        truth = columns["ground_truth"]
    elif isinstance(row, Mapping) and "ground_truth" in row:
        truth = row["ground_truth"]
    elif "answer" in columns:
        truth = columns["answer"]
    else:
        truth = sample["ground_truth"]  # raises, naming the columns there are
    offered = {
        "data_source": columns.get("data_source", sample.part),
        "solution_str": sample.completion,
        "ground_truth": truth,
        "extra_info": columns.get("extra_info", dict(columns)),
    }
    return function.function(**_taken(function, offered), **function.args)


def _invoke_list(function: RewardFunction, samples: Sequence[Sample]) -> Any:
    if function.style.name == "native":
        return function.function(list(samples), **function.args)
    names = {name for sample in samples for name in sample.columns} - TRL - {"prompt", "completion"}
    offered: dict[str, Any] = {name: [sample.get(name) for sample in samples] for name in names}
    offered |= {
        "prompts": [[dict(message) for message in sample.prompt] for sample in samples],
        "completions": [[{"role": "assistant", "content": sample.completion}] for sample in samples],
        "completion_ids": [list(sample.token_ids) for sample in samples],
        "trainer_state": None,
        "log_extra": _ignore,
        "log_metric": _ignore,
    }
    for name in function.style.needs - offered.keys() - function.args.keys():
        offered[name] = [sample[name] for sample in samples]  # raises, naming the columns there are
    return function.function(**_taken(function, offered), **function.args)


def _taken(function: RewardFunction, offered: Mapping[str, Any]) -> dict[str, Any]:
    style = function.style
    return {
        name: value
        for name, value in offered.items()
        if (style.takes_any or name in style.takes) and name not in function.args
    }


def _ignore(*_: Any, **__: Any) -> None:
    """Stands in for TRL's logging callbacks; what a reward reports here are its return values."""


def _failure(error: BaseException, seconds: float) -> Outcome:
    if isinstance(error, _TimeUp):
        return Outcome("timeout", detail=str(error), seconds=seconds)
    if isinstance(error, RewardError):  # says itself what is wrong: a missing column
        return Outcome("error", detail=str(error), seconds=seconds)
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    text = "".join(traceback.format_exception(type(error), error, trace, limit=-20))
    return Outcome("error", detail=text.strip(), seconds=seconds)
