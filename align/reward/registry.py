"""From the ``function`` of a recipe to something that can be called.

A specification is one of
    name               rewards/name.py in the working directory, else in the checkout, else an entry
                       point of the group ``align.rewards``
    path/to/file.py    the file's only ``@reward`` function, or the one named like the file
and either may end in ``:function``. The style of a function shows in its parameters (``style.py``).
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.machinery import ModuleSpec
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import align
from align.errors import RewardError
from align.reward.contract import Mark
from align.reward.deadline import deadline
from align.reward.style import Style, check_arguments, is_async, style_of

GROUP = "align.rewards"
SHIPPED = Path(align.__file__).resolve().parents[1] / "rewards"
IMPORT_SECONDS = 60.0
"""A file that takes longer to import is taken for one that hangs."""


@dataclass(frozen=True, slots=True)
class RewardFunction:
    """A callable, how to call it, and where it came from."""

    name: str
    reference: str
    """Specification that finds it again from another process: ``/abs/file.py:function`` or a name."""
    style: Style
    batched: bool
    """One call takes all samples of a group."""
    awaits: bool
    """The function is a coroutine function."""
    timeout: float | None
    """Seconds one call may take, where the function says so itself."""
    doc: str
    """First line of the docstring."""
    function: Callable[..., Any] = field(repr=False)
    args: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of every call."""

    @property
    def compares(self) -> bool:
        """A native list function: its scores hold for the whole group, and for no part of it."""
        return self.batched and self.style.name == "native"


def resolve(
    spec: str,
    args: Mapping[str, Any] | None = None,
    *,
    file: str | Path | None = None,
    key: str | None = None,
) -> RewardFunction:
    """Find a reward function and check that it can take ``args``.

    Args:
        spec: what the recipe says under ``function``.
        args: keyword arguments for every call.
        file: the recipe, for messages.
        key: the recipe key, for messages.

    Raises:
        RewardError: nothing found, the import fails, several candidates, an unknown signature or argument.
    """
    base, _, member = spec.partition(":")
    if base.endswith(".py") or "/" in base:
        path = Path(base).expanduser()
        if not path.is_file():
            raise RewardError(
                f"no such reward file: {base}",
                file=file,
                key=key,
                remedy="correct the path, or see `align rewards list`",
            )
    else:
        found = _file_named(base)
        if found is None:
            return _bind(_from_entry_point(base, member, file=file, key=key), args)
        path = found
    return _bind(_from_file(path, member), args)


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of ``align rewards list``."""

    spec: str
    """What a recipe writes under ``function``."""
    source: str
    """File or entry point."""
    found: RewardFunction | RewardError
    """The function, or why it cannot be used."""


def discover() -> Iterator[Listed]:
    """Every reward within reach by name: the folders ``rewards/``, then entry points."""
    files = {
        path.stem: path for folder in (SHIPPED, Path("rewards")) for path in sorted(folder.glob("[!_]*.py"))
    }
    for name, path in sorted(files.items()):
        try:
            module = _load(path)
            candidates = _candidates(module)
            if not candidates:
                raise _none_found(path)
            default = _default(candidates, path)
            for member, function in candidates.items():
                spec = name if member == default else f"{name}:{member}"
                yield Listed(spec, str(path), _describe(member, function, path))
        except RewardError as error:
            yield Listed(name, str(path), error)
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            yield Listed(point.name, point.value, _from_entry_point(point.name, ""))
        except RewardError as error:
            yield Listed(point.name, point.value, error)


def _file_named(name: str) -> Path | None:
    return next(
        (path for folder in (Path("rewards"), SHIPPED) if (path := folder / f"{name}.py").is_file()), None
    )


def _from_entry_point(
    name: str, member: str, *, file: str | Path | None = None, key: str | None = None
) -> RewardFunction:
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        shelf = {path.stem for folder in (SHIPPED, Path("rewards")) for path in folder.glob("[!_]*.py")}
        near = difflib.get_close_matches(name, [*shelf, *points], n=1)
        remedy = f"did you mean {near[0]!r}?" if near else "see `align rewards list`, or name a .py file"
        raise RewardError(f"no reward function named {name!r}", file=file, key=key, remedy=remedy)
    point = points[name]
    try:
        with deadline(IMPORT_SECONDS):
            loaded = point.load()
    except Exception as error:
        raise RewardError(
            f"the entry point cannot be imported: {_last_line(error)}",
            file=point.value,
            key=name,
            remedy="mend or reinstall the package that offers it",
        ) from error
    if isinstance(loaded, ModuleType):
        path = Path(loaded.__file__ or point.value)
        member, function = _choose(loaded, path, member)
        reference = f"{name}:{member}"
    else:
        function, reference = loaded, name
    return replace(_describe(name, function, Path(point.value)), reference=reference)


def _from_file(path: Path, member: str) -> RewardFunction:
    module = _load(path)
    member, function = _choose(module, path, member)
    return _describe(member, function, path)


def _load(path: Path) -> ModuleType:
    """Import a file under a name of its own, so that it cannot hide another module.

    Its folder is its package: ``from ._helper import …`` finds a file beside it.
    """
    path = path.resolve()
    name = f"{_package(path.parent)}.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RewardError("not a Python file", file=path, remedy="give the file the ending .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look their module up here
    try:
        with deadline(IMPORT_SECONDS):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script that ends itself is no reason to end silently
        del sys.modules[name]
        raise RewardError(
            f"cannot be imported: {_last_line(error)}{_line_in(path, error)}",
            file=path,
            remedy="mend the file, or install the package it needs",
        ) from error
    return module


def _package(folder: Path) -> str:
    """Name of the package that stands for a folder of reward files."""
    name = f"align_rewards_{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"
    if name not in sys.modules:
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
        sys.modules[name] = importlib.util.module_from_spec(spec)
    return name


def _last_line(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].strip()


def _line_in(path: Path, error: BaseException) -> str:
    """`` (line 7)``: where in ``path`` the import went wrong."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f" (line {error.lineno})"
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
    ]
    return f" (line {lines[-1]})" if lines else ""


def _candidates(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """The marked functions defined in the file; where there are none, those whose parameters fit."""
    own = {
        name: value
        for name, value in vars(module).items()
        if callable(value)
        and getattr(value, "__module__", None) == module.__name__
        and not isinstance(value, type)
    }
    marked = {name: value for name, value in own.items() if isinstance(_mark(value), Mark)}
    if marked:
        return marked
    return {name: value for name, value in own.items() if not name.startswith("_") and style_of(value)}


def _choose(module: ModuleType, path: Path, member: str) -> tuple[str, Callable[..., Any]]:
    candidates = _candidates(module)
    if member:
        function = getattr(module, member, None)
        if function is None:
            by_mark = {mark.name: value for value in candidates.values() if (mark := _mark(value))}
            function = by_mark.get(member)
        if not callable(function):
            names = ", ".join(candidates) or "none"
            raise RewardError(
                f"has no function {member!r}",
                file=path,
                key=member,
                remedy=f"name one of its reward functions: {names}",
            )
        return member, function
    default = _default(candidates, path)
    if default:
        return default, candidates[default]
    if not candidates:
        raise _none_found(path)
    names = ", ".join(candidates)
    raise RewardError(
        f"holds several reward functions ({names}) and none is named",
        file=path,
        remedy=f"name one, for example {path.stem}:{next(iter(candidates))}",
    )


def _default(candidates: Mapping[str, Callable[..., Any]], path: Path) -> str | None:
    """The function that a file stands for: named like it, verl's ``compute_score``, or the only one."""
    named = next((name for name in (path.stem, "compute_score") if name in candidates), None)
    return named or (next(iter(candidates)) if len(candidates) == 1 else None)


def _none_found(path: Path) -> RewardError:
    return RewardError(
        "no reward function found", file=path, remedy="define `f(sample) -> float` and mark it with @reward"
    )


def _mark(function: Any) -> Mark | None:
    mark = getattr(function, "__align_reward__", None)
    return mark if isinstance(mark, Mark) else None


def _describe(member: str, function: Callable[..., Any], path: Path) -> RewardFunction:
    mark = _mark(function)
    style = style_of(function)
    if style is None:
        raise RewardError(
            "is not a reward function: its parameters are none of f(sample), "
            "f(prompts, completions, **columns), compute_score(data_source, solution_str, ground_truth, "
            "extra_info)",
            file=path,
            key=member,
            remedy="rename its parameters, or mark a function of one sample with @reward",
        )
    reads_list = style.name == "native" and (mark.batched if mark else style.batched)
    return RewardFunction(
        name=mark.name if mark else member,
        reference=f"{path.resolve()}:{member}",
        style=style,
        batched=style.name == "trl" or reads_list,
        awaits=is_async(function),
        timeout=mark.timeout if mark else None,
        doc=(getattr(function, "__doc__", None) or "").strip().partition("\n")[0],
        function=function,
    )


def _bind(found: RewardFunction, args: Mapping[str, Any] | None) -> RewardFunction:
    check_arguments(found.function, found.style, args or {}, reference=found.reference)
    return replace(found, args=dict(args or {}))
