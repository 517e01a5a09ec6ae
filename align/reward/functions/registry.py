"""From the ``function`` of a recipe to something that can be called.

A specification is one of
    name               rewards/name.py in the working directory, else in the checkout, else an entry
                       point of the group ``align.rewards``
    path/to/file.py    the file's only ``@reward`` function, or the one named like the file
    package.module     an installed module, or one in the working directory
and each may end in ``:function``. The style of a function shows in its parameters (``style.py``); what
makes a reward function is called with the recipe's ``args`` (``candidates.py``).
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import align
from align.config.places import is_there
from align.errors import RewardError
from align.reward.functions.candidates import (
    FORMS,
    candidates,
    choose,
    default,
    is_maker,
    lack,
    made,
    mark_of,
    none_found,
)
from align.reward.functions.deadline import deadline
from align.reward.functions.importing import importable, last_line, line_in, look_here, package_of
from align.reward.functions.style import Style, check_arguments, is_async, style_of

GROUP = "align.rewards"
SHIPPED = Path(align.__file__).resolve().parents[1] / "rewards"
IMPORT_SECONDS = 60.0
"""A file that takes longer to import is taken for one that hangs."""


@dataclass(frozen=True, slots=True)
class RewardFunction:
    """A callable, how to call it, and where it came from."""

    name: str
    reference: str
    """Specification that finds it again from another process: ``/abs/file.py:function``, ``module:function``
    or a name."""
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
    """The recipe's arguments: of every call, or of the one that made the function."""
    made: bool = False
    """``args`` went into making the function."""

    @property
    def keywords(self) -> Mapping[str, Any]:
        """Keyword arguments of every call."""
        return {} if self.made else self.args

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
    args = args or {}
    if base.endswith(".py") or "/" in base:
        path = Path(base).expanduser()
        if not path.is_file():
            raise RewardError(
                f"no such reward file: {base}",
                file=file,
                key=key,
                remedy="correct the path, or see `align rewards list`",
            )
        return _from_file(path, member, args)
    found = _file_named(base)
    if found is not None:
        return _from_file(found, member, args)
    points = {point.name: point for point in entry_points(group=GROUP)}
    if base in points:
        return _from_entry_point(points[base], member, args)
    if "." in base or (member and importable(base)):
        return _from_module(base, member, args, file=file, key=key)
    shelf = {path.stem for folder in (SHIPPED, Path("rewards")) for path in folder.glob("[!_]*.py")}
    near = difflib.get_close_matches(base, [*shelf, *points], n=1)
    raise RewardError(
        f"no reward function named {base!r}",
        file=file,
        key=key,
        remedy=f"did you mean {near[0]!r}?"
        if near
        else "see `align rewards list`, or name a .py file or a module (package.module:function)",
    )


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
            members = candidates(module)
            if not members:
                raise none_found(module, path)
            usual = default(members, path.stem)
            for member, function in members.items():
                spec = name if member == usual else f"{name}:{member}"
                yield Listed(spec, str(path), _describe(member, function, path))
        except RewardError as error:
            yield Listed(name, str(path), error)
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            yield Listed(point.name, point.value, _from_entry_point(point, "", None))
        except RewardError as error:
            yield Listed(point.name, point.value, error)


def _file_named(name: str) -> Path | None:
    places = (folder / f"{name}.py" for folder in (Path("rewards"), SHIPPED))
    return next((path for path in places if is_there(path)), None)


def _from_entry_point(point: EntryPoint, member: str, args: Mapping[str, Any] | None) -> RewardFunction:
    try:
        with deadline(IMPORT_SECONDS):
            loaded = point.load()
    except Exception as error:
        raise RewardError(
            f"the entry point cannot be imported: {last_line(error)}",
            file=point.value,
            key=point.name,
            remedy="mend or reinstall the package that offers it",
        ) from error
    if isinstance(loaded, ModuleType):
        member, function = choose(loaded, Path(loaded.__file__ or point.value), member)
        reference = f"{point.name}:{member}"
    else:
        function, reference = loaded, point.name
    return _describe(point.name, function, Path(point.value), args, reference=reference)


def _from_file(path: Path, member: str, args: Mapping[str, Any]) -> RewardFunction:
    module = _load(path)
    member, function = choose(module, path, member)
    return _describe(member, function, path, args)


def _from_module(
    name: str, member: str, args: Mapping[str, Any], *, file: str | Path | None, key: str | None
) -> RewardFunction:
    """A function by its dotted path; ``package.module.function`` is read as ``package.module:function``."""
    look_here()
    try:
        with deadline(IMPORT_SECONDS):
            module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        parent, _, last = name.rpartition(".")
        if missing == name and parent and not member:
            return _from_module(parent, last, args, file=file, key=key)
        if missing is not None and (name == missing or name.startswith(f"{missing}.")):
            raise RewardError(
                f"no module named {missing!r}, for the reward function {name!r}",
                file=file,
                key=key,
                remedy="correct its name, or install the package in align's environment",
            ) from error
        raise RewardError(
            f"the module {name!r} cannot be imported: {last_line(error)}",
            file=file,
            key=key,
            remedy="mend the module, or install the package it needs",
        ) from error
    member, function = choose(module, Path(name), member, spec=name)
    return _describe(member, function, Path(name), args, reference=f"{name}:{member}")


def _load(path: Path) -> ModuleType:
    """Import a file under a name of its own, so that it cannot hide another module.

    Its folder is its package: ``from ._helper import …`` finds a file beside it.
    """
    path = path.resolve()
    name = f"{package_of(path.parent)}.{path.stem}"
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
            f"cannot be imported: {last_line(error)}{line_in(path, error)}",
            file=path,
            remedy="mend the file, or install the package it needs",
        ) from error
    return module


def _describe(
    member: str,
    function: Callable[..., Any],
    path: Path,
    args: Mapping[str, Any] | None = None,
    *,
    reference: str = "",
) -> RewardFunction:
    """What is to be known of a function; its arguments are checked unless ``args`` is None.

    Raises:
        RewardError: its parameters fit no form, or ``args`` do not fit its parameters.
    """
    given = args or {}
    doc = (getattr(function, "__doc__", None) or "").strip().partition("\n")[0]
    makes = isinstance(function, type) or (style_of(function) is None and is_maker(function))
    if makes:
        function = made(member, function, given, path)
    mark, style = mark_of(function), style_of(function)
    if style is None:
        raise RewardError(
            f"is not a reward function: {lack(member, function)}",
            file=path,
            key=member,
            remedy=f"write it as one of {FORMS}; or mark a function of one sample with @reward",
        )
    found = RewardFunction(
        name=mark.name if mark else member,
        reference=reference or f"{path.resolve()}:{member}",
        style=style,
        batched=mark.batched if mark and style.name == "native" else style.batched,
        awaits=is_async(function),
        timeout=mark.timeout if mark else None,
        doc=doc,
        function=function,
        args=dict(given),
        made=makes,
    )
    if args is not None:
        check_arguments(function, style, found.keywords, reference=found.reference)
    return found
