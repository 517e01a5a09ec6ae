"""The ways of writing a reward function, told apart by parameter names.

native     f(sample, **args) -> float | dict | None        samples: list[Sample] when batched
trl        f(prompts, completions, completion_ids, **columns) -> list[float | None]
verl       compute_score(data_source, solution_str, ground_truth, extra_info) -> float | dict
           or the plural of these names -> a list of them
openrlhf   reward_func(queries, prompts, labels) -> tensor | {"rewards": tensor, ...}
trlx       reward_fn(samples, prompts, outputs, **columns) -> list[float], all of them texts
verifiers  f(prompt, completion, answer, state, task, info, parser) -> float
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
ANSWERS = frozenset({"solution_str", "model_output", "predict_str"})
"""What verl and its relatives call the answer."""
LOOSE_ANSWERS = frozenset({"response"})
"""The same, where ``ground_truth`` stands beside it."""
VERL = ANSWERS | LOOSE_ANSWERS | {"data_source", "ground_truth", "extra_info"}
VERL_LISTS = {
    **{f"{name}s": name for name in ANSWERS | LOOSE_ANSWERS},
    "data_sources": "data_source",
    "ground_truths": "ground_truth",
    "extra_infos": "extra_info",
}
"""Plural names of verl, and the value that each lists."""
OPENRLHF = frozenset({"queries", "prompts", "labels"})
TRLX = frozenset({"samples", "prompts", "outputs"})
VERIFIERS = frozenset({"prompt", "completion", "answer", "state", "task", "info", "parser"})

StyleName = Literal["native", "trl", "verl", "openrlhf", "trlx", "verifiers"]
_VARIADIC = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


@dataclass(frozen=True, slots=True)
class Style:
    """How a function wants to be called."""

    name: StyleName
    takes: frozenset[str]
    """Names of its parameters."""
    needs: frozenset[str]
    """Those without a default."""
    takes_any: bool
    """It has a ``**kwargs``."""
    batched: bool
    """One call takes several samples."""
    texts: frozenset[str] = frozenset()
    """Parameters annotated as ``str``."""


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives something to await."""
    call = getattr(function, "__call__", None)  # noqa: B004 - an object with an async __call__ counts
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def named_parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter] | None:
    """The parameters but ``*args`` and ``**kwargs``; None of a built-in without a signature."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return None
    return {name: value for name, value in parameters.items() if value.kind not in _VARIADIC}


def style_of(function: Callable[..., Any]) -> Style | None:
    """The style of a function, or None where its parameters fit none."""
    named = named_parameters(function)
    if named is None:
        return None
    takes = frozenset(named)
    needs = frozenset(name for name, value in named.items() if value.default is inspect.Parameter.empty)
    takes_any = takes_anything(function)
    texts = frozenset(name for name, value in named.items() if value.annotation in (str, "str"))
    first = next(iter(named.values()), None)
    hint = str(first.annotation) if first else ""
    marked = isinstance(getattr(function, "__align_reward__", None), Mark)

    def style(name: StyleName, *, batched: bool) -> Style:
        return Style(name, takes, needs, takes_any, batched, texts)

    if first is None:
        # verl calls with keywords alone, so its function may have no names; any other is anybody's guess
        bare = takes_any and getattr(function, "__name__", "") == "compute_score"
        return style("verl", batched=False) if bare else None
    if "outputs" in takes and takes & {"samples", "prompts"}:
        return style("trlx", batched=True)
    positional = first.kind is not inspect.Parameter.KEYWORD_ONLY
    several = first.name == "samples" or hint.lower().startswith(("list[", "sequence[", "typing.list["))
    if positional and (first.name in {"sample", "samples"} or "Sample" in hint):
        return style("native", batched=several)
    if takes & ANSWERS or (takes & LOOSE_ANSWERS and "ground_truth" in takes):
        return style("verl", batched=False)
    plural = {name for name in takes if VERL_LISTS.get(name) in ANSWERS}
    if plural or ("responses" in takes and "ground_truths" in takes):
        return style("verl", batched=True)
    if "queries" in takes:
        return style("openrlhf", batched=True)
    if takes & TRL:
        return style("trl", batched=True)
    if marked and positional and len(needs) <= 1:  # one sample, whatever its name
        return style("native", batched=several)
    if "completion" in takes or ("state" in takes and needs <= VERIFIERS):
        return style("verifiers", batched=False)
    return style("native", batched=several) if marked and positional else None


def standing(style: Style) -> int:
    """How surely a function of this style is a reward and no helper of one; 0 is the surest."""
    if style.name == "verl":
        beside = {"ground_truth", "extra_info", "data_source"}
        sure = style.takes_any or style.takes & (beside | {f"{name}s" for name in beside})
        return 0 if sure else 2  # such as extract(solution_str)
    if style.name == "verifiers":
        return 1 if style.takes_any or len(style.takes & VERIFIERS) > 1 else 2
    return 0


def takes_anything(function: Callable[..., Any]) -> bool:
    """Whether it has a ``**kwargs``."""
    parameters = inspect.signature(function).parameters.values()
    return any(value.kind is inspect.Parameter.VAR_KEYWORD for value in parameters)


def offered(style: Style) -> frozenset[str]:
    """Names of parameters that align fills in, beside the columns of a row."""
    if style.name == "verl":
        return frozenset(VERL_LISTS) if style.batched else VERL
    names: dict[str, frozenset[str]] = {
        "native": frozenset(),
        "trl": TRL | TRL_OFFERS,
        "openrlhf": OPENRLHF,
        "trlx": TRLX,
        "verifiers": VERIFIERS,
    }
    return names[style.name]


def check_arguments(
    function: Callable[..., Any], style: Style, args: Mapping[str, Any], *, reference: str
) -> None:
    """See that every argument of the recipe has a parameter, and the other way round.

    Raises:
        RewardError: an unknown argument, or a native or verl parameter without a value.
    """
    parameters = named_parameters(function) or {}
    reserved = set(list(parameters)[:1]) if style.name == "native" else offered(style)
    settable = {name: value for name, value in parameters.items() if name not in reserved}
    file, _, member = reference.partition(":")
    for name in args:
        if name in reserved or (name not in settable and not style.takes_any):
            near = difflib.get_close_matches(name, settable, n=1)
            known = ", ".join(settable) or "none"
            remedy = f"did you mean {near[0]!r}?" if near else f"arguments it takes: {known}"
            raise RewardError(f"takes no argument {name!r}", file=file, key=member or None, remedy=remedy)
    if style.name in {"trl", "trlx", "verifiers"}:  # their parameters without a value are columns
        return
    for name, value in settable.items():
        if value.default is inspect.Parameter.empty and name not in args:
            raise RewardError(
                f"needs the argument {name!r}",
                file=file,
                key=member or None,
                remedy=f"set it under args: {name}: …",
            )
