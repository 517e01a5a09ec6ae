"""Calling a reward function: whatever comes back (``values.py``), or goes wrong, becomes an Outcome."""

from __future__ import annotations

import asyncio
import inspect
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from align.errors import RewardError
from align.reward.calls import arguments, values
from align.reward.calls.arguments import START, Progress, several, single
from align.reward.calls.values import outcome_of, outcomes_of
from align.reward.contract import Sample
from align.reward.functions.registry import RewardFunction
from align.types import Outcome

__all__ = ["call", "outcome_of"]


def call(
    function: RewardFunction,
    samples: Sequence[Sample],
    *,
    timeout: float | None = None,
    before: Callable[[Sample], None] | None = None,
    progress: Progress = START,
) -> list[Outcome]:
    """Score samples; one outcome each, in order. Exceptions end as outcomes, never outside.

    A function that takes lists gets all samples in one call. Should that raise, a list in TRL's form
    is tried again one sample at a time, so that one bad sample costs only itself; a native list function
    compares its samples, so all of them fail. Coroutines of one call run together.

    Args:
        timeout: seconds a coroutine may take. A plain function cannot be stopped from inside its
            process: the reward workers are stopped from outside.
        before: called with a sample (the first, for a list) ahead of the function.
        progress: where the run stands, for functions that read TRL's ``trainer_state``.
    """
    if not samples:
        return []
    if function.batched:
        return _by_form(function, samples, lambda some: _call_list(function, some, timeout, before, progress))
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
            if inspect.isawaitable(value):
                value = asyncio.run(_limited(value, timeout))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit and the like are the function's failure, not ours
            outcomes.append(_failure(error, time.perf_counter() - start))
        else:
            outcomes.append(outcome_of(value, time.perf_counter() - start))
    return outcomes


def _call_list(
    function: RewardFunction,
    samples: Sequence[Sample],
    timeout: float | None,
    before: Callable[[Sample], None] | None,
    progress: Progress,
) -> list[Outcome]:
    if before:
        before(samples[0])
    start = time.perf_counter()
    try:
        returned = _invoke_list(function, samples, progress)
        if inspect.isawaitable(returned):
            returned = asyncio.run(_limited(returned, timeout))
        seconds = (time.perf_counter() - start) / len(samples)
        return outcomes_of(returned, len(samples), seconds, mapping=function.style.name == "openrlhf")
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        singly = len(samples) > 1 and not function.compares and not isinstance(error, _TimeUp)
        failure = _failure(error, (time.perf_counter() - start) / len(samples), _form_note(function, samples))
    if not singly:
        return [failure] * len(samples)
    # outside of the handler: the traceback of one sample has no need of that of the list
    return [_call_list(function, [sample], timeout, before, progress)[0] for sample in samples]


def _by_form(
    function: RewardFunction, samples: Sequence[Sample], one_call: Callable[[list[Sample]], list[Outcome]]
) -> list[Outcome]:
    """One call for the rows whose prompt is text and one for those of messages: in TRL, no call has both."""
    forms = {sample.prompt_from_text for sample in samples}
    if function.style.name != "trl" or len(forms) == 1:
        return one_call(list(samples))
    found: dict[int, Outcome] = {}
    for form in sorted(forms):
        rows = [row for row, sample in enumerate(samples) if sample.prompt_from_text is form]
        found |= zip(rows, one_call([samples[row] for row in rows]), strict=True)
    return [found[row] for row in range(len(samples))]


def _form_note(function: RewardFunction, samples: Sequence[Sample]) -> str:
    """What a function for the other form of TRL's data must be told."""
    if function.style.name != "trl":
        return ""
    if samples[0].prompt_from_text:
        return (
            "the row's prompt is text, so completions are texts, as in TRL; for a function that reads "
            "messages, make it some: columns: {prompt: \"[{'role': 'user', 'content': question}]\"}"
        )
    return (
        "the row's prompt is messages, so a completion is [{'role': 'assistant', 'content': text}], as in TRL"
    )


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
        return function.function(sample, **function.keywords)
    value = function.function(**single(function, sample), **function.keywords)
    if function.style.name == "verl" and isinstance(value, tuple) and value:
        return value[0]  # verl's graders may return notes behind the score
    return value


def _invoke_list(function: RewardFunction, samples: Sequence[Sample], progress: Progress) -> Any:
    if function.style.name == "native":
        return function.function(list(samples), **function.keywords)
    return function.function(**several(function, samples, progress), **function.keywords)


_OF_FORM = (TypeError, AttributeError, KeyError, IndexError)
"""What a function raises that takes a text for messages, or messages for a text."""


def _failure(error: BaseException, seconds: float, note: str = "") -> Outcome:
    if isinstance(error, _TimeUp):
        return Outcome("timeout", detail=str(error), seconds=seconds)
    if isinstance(error, RewardError):  # says itself what is wrong: a missing column
        return Outcome("error", detail=str(error), seconds=seconds)
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename in _OURS:
        trace = trace.tb_next
    text = "".join(traceback.format_exception(type(error), error, trace, limit=-20)).strip()
    if note and isinstance(error, _OF_FORM):
        text += f" ({note})"  # on the last line, by which failures are compared and summed up
    return Outcome("error", detail=text, seconds=seconds)


_OURS = {__file__, arguments.__file__, values.__file__}
"""Lines of these files are no news to the author of a function."""
