"""Which functions of a module are rewards, which of them is meant, and what the others lack."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from align.errors import RewardError
from align.reward.contract import Mark
from align.reward.functions.style import (
    ANSWERS,
    OPENRLHF,
    TRL,
    TRLX,
    VERIFIERS,
    VERL,
    VERL_LISTS,
    named_parameters,
    standing,
    style_of,
    takes_anything,
)

FORMS = (
    "f(sample), f(completions, **columns), compute_score(solution_str, ground_truth), "
    "f(queries, prompts, labels), f(samples, prompts, outputs), f(completion, answer)"
)
_TELLING = sorted(
    {"sample", "samples"} | TRL | ANSWERS | VERL | set(VERL_LISTS) | OPENRLHF | TRLX | VERIFIERS
)
_SHOWN = 5
"""Functions that a message describes at most."""


def mark_of(function: Any) -> Mark | None:
    """What ``@reward`` left on a function."""
    mark = getattr(function, "__align_reward__", None)
    return mark if isinstance(mark, Mark) else None


def candidates(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """The marked functions defined in the file; where there are none, those whose parameters fit best."""
    own = {name: value for name, value in _own(module).items() if not isinstance(value, type)}
    marked = {name: value for name, value in own.items() if mark_of(value)}
    if marked:
        return marked
    ranks = {
        name: standing(style)
        for name, value in own.items()
        if not name.startswith("_") and (style := style_of(value))
    }
    return {name: own[name] for name, rank in ranks.items() if rank == min(ranks.values())}


def choose(module: ModuleType, path: Path, member: str, *, spec: str = "") -> tuple[str, Callable[..., Any]]:
    """The function that is meant, and the name that finds it.

    Args:
        module: where it is defined, or imported into.
        path: of the module, for messages.
        member: the name that the specification gives; empty for the module's own default.
        spec: how a recipe names the module; its path where left out.

    Raises:
        RewardError: there is no such function, none at all, or several and none is named.
    """
    found = candidates(module)
    if member:
        function = getattr(module, member, None)
        if function is None:
            by_mark = {mark.name: value for value in found.values() if (mark := mark_of(value))}
            function = by_mark.get(member)
        if not callable(function):
            names = dict.fromkeys([*found, *_callables(module)])
            near = difflib.get_close_matches(member, names, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else f"it has: {_list(names)}"
            raise RewardError(f"has no function {member!r}", file=path, key=member, remedy=remedy)
        return member, function
    usual = default(found, spec.rpartition(".")[2] or path.stem)
    if usual:
        return usual, found[usual]
    if not found:
        raise none_found(module, path, spec=spec)
    raise RewardError(
        f"holds several reward functions ({', '.join(found)}) and none is named",
        file=path,
        remedy=f"name one, for example {spec or path.stem}:{next(iter(found))}",
    )


def default(found: Mapping[str, Callable[..., Any]], stem: str) -> str | None:
    """The function that a file stands for: named like it, verl's ``compute_score``, or the only one."""
    named = next((name for name in (stem, "compute_score") if name in found), None)
    return named or (next(iter(found)) if len(found) == 1 else None)


def none_found(module: ModuleType, path: Path, *, spec: str = "") -> RewardError:
    """The error of a module without a reward function: what it defines, and what that lacks."""
    own = {name: value for name, value in _own(module).items() if not name.startswith("_")}
    others = {
        name: value
        for name, value in _callables(module).items()
        if name not in own and not name.startswith("_") and style_of(value)
    }
    told = [lack(name, value) for name, value in list(own.items())[:_SHOWN]]
    told += [f"{len(own) - _SHOWN} more"] if len(own) > _SHOWN else []
    if not own:
        told = ["it defines no function"]
    remedy = f"write one of {FORMS}; or mark a function of one sample with @reward"
    makers = [name for name, value in own.items() if is_maker(value)]
    if others or makers:
        remedy = f"name the one that is meant, for example {spec or path}:{[*others, *makers][0]}"
        told += [
            f"{name} is imported from {value.__module__}" for name, value in list(others.items())[:_SHOWN]
        ]
    return RewardError(f"no reward function found: {'; '.join(told)}", file=path, remedy=remedy)


def lack(name: str, function: Callable[..., Any]) -> str:
    """One phrase: a function that fits no form, and the parameter by which it would."""
    parameters = named_parameters(function)
    if parameters is None:
        return f"{name} tells no parameters"
    shown = f"{name}({', '.join([*parameters, *(['**kwargs'] if takes_anything(function) else [])])})"
    if isinstance(function, type):
        return f"{shown} " + (
            "makes reward functions" if is_maker(function) else "is a class without __call__"
        )
    if is_maker(function):
        return f"{shown} makes reward functions"
    near = {
        parameter: match[0]
        for parameter in parameters
        if parameter not in _TELLING and (match := difflib.get_close_matches(parameter, _TELLING, 1, 0.75))
    }
    if near:
        return f"{shown}: " + ", ".join(f"is {one!r} {other!r}?" for one, other in near.items())
    if parameters.keys() & (VERL - ANSWERS):
        return f"{shown} lacks solution_str"
    if parameters.keys() & (VERL_LISTS.keys()):
        return f"{shown} lacks solution_strs"
    if parameters.keys() & OPENRLHF:
        return f"{shown} lacks queries"
    if parameters.keys() & VERIFIERS:
        return f"{shown} lacks completion"
    return f"{shown} lacks sample, completions, completion, solution_str or queries"


def is_maker(function: Any) -> bool:
    """Whether calling it with ``args`` gives a reward function: a class with ``__call__``, or a function
    that says that it returns a callable or is named ``get_…``, ``make_…``, ``build_…``, ``create_…``."""
    if isinstance(function, type):
        return "__call__" in dir(function)  # of its instances: a class itself can always be called
    if named_parameters(function) is None:
        return False
    says = str(inspect.signature(function).return_annotation)
    name = str(getattr(function, "__name__", ""))
    return "Callable" in says or name.startswith(("get_", "make_", "build_", "create_"))


def made(member: str, maker: Callable[..., Any], args: Mapping[str, Any], path: Path) -> Callable[..., Any]:
    """The reward function that a maker gives for the recipe's ``args``.

    Raises:
        RewardError: it takes other arguments, fails, or gives no reward function.
    """
    try:
        inspect.signature(maker).bind(**args)
    except TypeError as error:
        takes = ", ".join(named_parameters(maker) or {}) or "none"
        raise RewardError(
            f"makes reward functions, and cannot be called with these args: {error}",
            file=path,
            key=member,
            remedy=f"set them under args; arguments it takes: {takes}",
        ) from error
    try:
        function = maker(**args)
    except Exception as error:
        raise RewardError(
            f"makes reward functions, and failed: {type(error).__name__}: {error}",
            file=path,
            key=member,
            remedy="correct its args",
        ) from error
    if not callable(function) or style_of(function) is None:
        what = lack(type(function).__name__, function) if callable(function) else type(function).__name__
        raise RewardError(
            f"gives no reward function, but {what}",
            file=path,
            key=member,
            remedy=f"have it give one of {FORMS}",
        )
    return function


def _callables(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """Everything in a module that can be called, what it would import on demand included."""
    found: dict[str, Callable[..., Any]] = {}
    for name in dict.fromkeys([*vars(module), *getattr(module, "__all__", ())]):
        value = None if name.startswith("__") else getattr(module, name, None)
        if callable(value) and not isinstance(value, type):
            found[name] = value
    return found


def _own(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """What the module itself defines and can be called, classes included."""
    return {
        name: value
        for name, value in vars(module).items()
        if callable(value) and getattr(_unbound(value), "__module__", None) == module.__name__
    }


def _unbound(value: Any) -> Any:
    """The function of a ``functools.partial``; anything else as it is."""
    while isinstance(value, partial):
        value = value.func
    return value


def _list(names: Mapping[str, None]) -> str:
    shown = [name for name in names if not name.startswith("_")]
    return ", ".join(shown[:20]) or "none"
