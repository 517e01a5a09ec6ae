"""The three ways of writing a reward function, told apart by parameter names.

native   f(sample, **args) -> float | dict | None          samples: list[Sample] when batched
trl      f(prompts, completions, completion_ids, **columns) -> list[float | None]
verl     compute_score(data_source, solution_str, ground_truth, extra_info) -> float | dict
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from align.errors import RewardError
from align.reward.contract import Mark

TRL = frozenset({"prompts", "completions", "completion_ids"})
TRL_OFFERS = frozenset({"trainer_state", "log_extra", "log_metric"})
VERL = frozenset({"data_source", "solution_str", "ground_truth", "extra_info"})


@dataclass(frozen=True, slots=True)
class Style:
    """How a function wants to be called."""

    name: Literal["native", "trl", "verl"]
    takes: frozenset[str]
    """Names of its parameters."""
    needs: frozenset[str]
    """Those without a default."""
    takes_any: bool
    """It has a ``**kwargs``."""
    batched: bool
    """A native function that takes a list of samples, as its parameter says."""


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives something to await."""
    call = getattr(function, "__call__", None)  # noqa: B004 - an object with an async __call__ counts
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def style_of(function: Callable[..., Any]) -> Style | None:
    """The style of a function, or None where its parameters fit none."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # a built-in without a signature
        return None
    named = {name: value for name, value in parameters.items() if value.kind not in _VARIADIC}
    takes = frozenset(named)
    needs = frozenset(name for name, value in named.items() if value.default is inspect.Parameter.empty)
    takes_any = any(value.kind is inspect.Parameter.VAR_KEYWORD for value in parameters.values())
    if {"solution_str", "ground_truth"} <= takes:
        return Style("verl", takes, needs, takes_any, batched=False)
    if takes & TRL:
        return Style("trl", takes, needs, takes_any, batched=False)
    first = next(iter(named.values()), None)
    if first is None or first.kind is inspect.Parameter.KEYWORD_ONLY:
        return None
    hint = str(first.annotation)
    marked = isinstance(getattr(function, "__align_reward__", None), Mark)
    if marked or first.name in {"sample", "samples"} or "Sample" in hint:
        several = first.name == "samples" or hint.lower().startswith(("list[", "sequence[", "typing.list["))
        return Style("native", takes, needs, takes_any, batched=several)
    return None


_VARIADIC = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


def check_arguments(
    function: Callable[..., Any], style: Style, args: Mapping[str, Any], *, reference: str
) -> None:
    """See that every argument of the recipe has a parameter, and the other way round.

    Raises:
        RewardError: an unknown argument, or a native or verl parameter without a value.
    """
    parameters = {
        name: value
        for name, value in inspect.signature(function).parameters.items()
        if value.kind not in _VARIADIC
    }
    reserved = {"native": set(list(parameters)[:1]), "trl": TRL | TRL_OFFERS, "verl": VERL}[style.name]
    settable = {name: value for name, value in parameters.items() if name not in reserved}
    file, _, member = reference.partition(":")
    for name in args:
        if name in reserved or (name not in settable and not style.takes_any):
            near = difflib.get_close_matches(name, settable, n=1)
            known = ", ".join(settable) or "none"
            remedy = f"did you mean {near[0]!r}?" if near else f"arguments it takes: {known}"
            raise RewardError(f"takes no argument {name!r}", file=file, key=member or None, remedy=remedy)
    if style.name == "trl":  # its parameters without a value are columns
        return
    for name, value in settable.items():
        if value.default is inspect.Parameter.empty and name not in args:
            raise RewardError(
                f"needs the argument {name!r}",
                file=file,
                key=member or None,
                remedy=f"set it under args: {name}: …",
            )
