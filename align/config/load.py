"""From a YAML file and ``key.path=value`` overrides to a checked recipe.

Paths: a value that starts with ``./`` or ``../`` is taken relative to the recipe file (to the
working directory, when it comes from an override), one that starts with ``~/`` to the home
directory. Every other path is relative to the working directory, and is a hub id where nothing of
that name exists.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import ValidationError

from align.config import yaml12
from align.config.base import REFUSED, Section
from align.config.knobs import field_at, knobs, section_at
from align.config.places import path_fault
from align.config.recipe import KINDS
from align.errors import RecipeError

S = TypeVar("S", bound=Section)


def load_recipe(file: str | Path, overrides: Sequence[str] = (), *, kind: type[S]) -> S:
    """Read, override and check one recipe.

    Args:
        file: YAML file with a ``kind`` key.
        overrides: ``key.path=value`` strings; values are YAML.
        kind: the recipe class that the caller runs.

    Raises:
        RecipeError: naming file, key and remedy.
    """
    tree = read_tree(file)
    for override in overrides:
        apply_override(tree, override)
    return check(tree, file=file, kind=kind)


def dump_recipe(recipe: Section) -> str:
    """YAML of a whole recipe, defaults included; :func:`load_recipe` reads it back as the same recipe."""
    return yaml12.dump(recipe.model_dump(mode="json"))


def read_tree(file: str | Path) -> dict[str, Any]:
    """The YAML mapping in ``file`` with ``./``, ``../`` and ``~/`` paths made absolute.

    Raises:
        RecipeError: no such file, not UTF-8, bad syntax, a repeated key, or no mapping.
    """
    path = Path(file)
    if fault := path_fault(str(path)):
        raise RecipeError(fault.message, file=str(path)[:80], remedy=fault.remedy)
    if not path.is_file():
        raise RecipeError("no such recipe", file=path, remedy=_near_recipe(path))
    try:
        tree = yaml12.parse(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"not UTF-8 text: byte {error.start} is 0x{error.object[error.start]:02x}",
            file=path,
            remedy="save the file as UTF-8",
        ) from error
    except yaml.YAMLError as error:
        raise RecipeError(
            f"not valid YAML: {yaml12.reason(error)}", file=path, remedy=yaml12.remedy(error)
        ) from error
    except OSError as error:
        raise RecipeError(
            f"cannot be read: {error.strerror}", file=path, remedy="check its permissions"
        ) from error
    except RecursionError as error:
        raise RecipeError(
            "nested too deep, or an anchor that holds itself", file=path, remedy="write the values out"
        ) from error
    except ValueError as error:
        raise RecipeError(
            f"a value cannot be read: {error}", file=path, remedy="shorten the number"
        ) from error
    if not isinstance(tree, dict):
        what = "the file is empty" if tree is None else "a recipe is a mapping of sections"
        raise RecipeError(
            what, file=path, key="kind", remedy=f"start with `kind:`, one of {', '.join(KINDS)}"
        )
    odd = next((key for key in tree if not isinstance(key, str)), None)
    if odd is not None:
        raise RecipeError(f"the key {odd!r} is no text", file=path, key=str(odd), remedy="take it out")
    try:
        return cast(dict[str, Any], anchor(tree, path.resolve().parent))
    except RecursionError as error:
        raise RecipeError(
            "nested too deep, or an anchor that holds itself", file=path, remedy="write the values out"
        ) from error


def _near_recipe(path: Path) -> str:
    if path.is_dir():
        inside = sorted(item.name for item in path.glob("*.yaml"))
        return (
            f"it is a folder; name a file in it: {', '.join(inside)}"
            if inside
            else "it is a folder without recipes"
        )
    folder = path.parent if path.parent.is_dir() else Path("recipes")
    near = difflib.get_close_matches(path.name, [item.name for item in folder.glob("**/*.yaml")], n=1)
    return f"did you mean {near[0]}?" if near else "name a .yaml file, such as those in recipes/"


def anchor(value: Any, folder: Path) -> Any:
    """``value`` with every text that starts with ``./``, ``../`` or ``~/`` made an absolute path."""
    if isinstance(value, dict):
        return {key: anchor(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [anchor(item, folder) for item in value]
    if isinstance(value, str) and value.startswith(("./", "../")):
        return os.path.normpath(folder / value)
    if isinstance(value, str) and value.startswith("~/"):
        return os.path.expanduser(value)
    return value


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one dotted key of ``tree`` in place.

    Raises:
        RecipeError: the override is not of the form ``key.path=value``.
    """
    steps, value = parse_override(override)
    set_key(tree, steps, value, origin=override)


def parse_override(override: str) -> tuple[list[str], Any]:
    """The steps of the key and the value of one ``key.path=value``.

    Raises:
        RecipeError: it is not of that form.
    """
    key, equals, text = override.partition("=")
    steps = key.strip().split(".")
    if not equals or not all(steps):
        raise RecipeError(
            f"cannot read the override {override!r}",
            key=key or None,
            remedy="write key.path=value, for example grpo.steps=20",
        )
    try:
        value = yaml12.parse(text)
    except yaml.YAMLError as error:
        raise RecipeError(
            f"the value {text!r} is not YAML: {yaml12.reason(error)}",
            key=key,
            remedy=f"quote it: {key}='\"…\"'",
        ) from error
    return steps, anchor(value, Path.cwd())


def set_key(tree: dict[str, Any], steps: Sequence[str], value: Any, *, origin: str) -> None:
    """Set a nested key, making the mappings on the way."""
    node = tree
    for step in steps[:-1]:
        child = node.setdefault(step, {})
        if child is None:
            child = node[step] = {}
        if not isinstance(child, dict):
            raise RecipeError(
                f"{step!r} is not a section, so {origin!r} cannot reach into it",
                key=".".join(steps),
                remedy="check the key against `align describe`",
            )
        node = child
    node[steps[-1]] = value


def check(tree: Mapping[str, Any], *, file: str | Path, kind: type[S]) -> S:
    """Validate a tree as one kind of recipe; the first fault becomes a RecipeError."""
    expected = kind.model_fields["kind"].annotation.__args__[0]  # type: ignore[union-attr]
    found = tree.get("kind")
    if found != expected:
        check_kind(found, file=file)
        raise RecipeError(
            f"kind is {found!r}, expected {expected!r}",
            file=file,
            key="kind",
            remedy=f"run it with `align {'run' if found == 'pipeline' else found}`",
        )
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise _explain(error, tree, file, kind) from None


def check_kind(found: Any, *, file: str | Path) -> None:
    """See that a recipe is of some kind that there is.

    Raises:
        RecipeError: it is not, or says no kind at all.
    """
    if isinstance(found, str) and found in KINDS:
        return
    near = difflib.get_close_matches(found.lower(), KINDS, n=1) if isinstance(found, str) else []
    raise RecipeError(
        "the recipe does not say its kind"
        if found is None or found == ""
        else f"there is no kind of recipe {_short(found)}",
        file=file,
        key="kind",
        remedy=f"set kind to one of {', '.join(KINDS)}{f'; did you mean {near[0]!r}?' if near else ''}",
    )


def _explain(
    error: ValidationError, tree: Mapping[str, Any], file: str | Path, kind: type[Section]
) -> RecipeError:
    """The first fault in plain words; the faults of other keys are counted."""
    faults = error.errors()
    # An unknown key goes first: it is often the misspelling of one that is reported as missing.
    first = min(faults, key=lambda fault: fault["type"] != "extra_forbidden")
    steps = _written(tree, first["loc"])
    branches = [fault for fault in faults if _written(tree, fault["loc"]) == steps]  # of a union
    also = f" (and {len(faults) - len(branches)} more)" if len(faults) > len(branches) else ""
    name = str(first["loc"][-1]) if first["loc"] else ""
    if first["type"] == REFUSED:
        told = first["ctx"]
        key = told["key"] or ".".join(steps)
        return RecipeError(first["msg"] + also, file=file, key=key, remedy=told["remedy"])
    if first["type"] == "extra_forbidden":
        remedy = _near_key(kind, steps[:-1], name)
        return RecipeError(f"unknown key {name!r}{also}", file=file, key=".".join(steps), remedy=remedy)
    if first["type"] == "missing" and field_at(kind, [*steps, name]) is not None:
        remedy = f"add it: {_help(kind, [*steps, name])}"
        return RecipeError(
            f"missing key {name!r}{also}", file=file, key=".".join([*steps, name]), remedy=remedy
        )
    if first["type"] == "value_error":
        message = first["msg"].removeprefix("Value error, ")
    else:
        faulty = " or ".join(_plain(fault["type"], fault["msg"]) for fault in branches)
        message = f"{faulty.replace('or must be', 'or')}, got {_short(first['input'])}"
    if section_at(kind, steps) is not None:
        remedy = f"see `{' '.join(['align describe', tree['kind'], '.'.join(steps)]).strip()}`"
    else:  # an entry of a list or mapping has the help of the whole
        known = next(steps[:end] for end in range(len(steps), 0, -1) if field_at(kind, steps[:end]))
        remedy = f"{known[-1]}: {_help(kind, known)}"
    return RecipeError(message + also, file=file, key=".".join(steps), remedy=remedy)


def _written(tree: Any, loc: Sequence[int | str]) -> list[str]:
    """The part of a fault's place that stands in the recipe: pydantic adds the branches of unions."""
    steps: list[str] = []
    for step in loc:
        try:
            tree = tree[step]
        except (KeyError, IndexError, TypeError):
            break
        steps.append(str(step))
    return steps


_WORDS = {
    "model_type": "must be a section of keys",
    "dict_type": "must be a section of keys",
    "missing": "must have more values",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "too_short": "must not be empty",
}


def _plain(fault: str, message: str) -> str:
    return _WORDS.get(fault, message.replace("Input should be", "must be").replace(" valid", ""))


def _short(value: Any) -> str:
    text = repr(value) if value is not None else "nothing"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _near_key(kind: type[Section], steps: Sequence[str], name: str) -> str:
    section = section_at(kind, steps)
    names = list(section.model_fields) if section else []
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    elsewhere = [knob.key for knob in knobs(kind) if knob.key.rpartition(".")[2] == name]
    if elsewhere:
        return f"did you mean {elsewhere[0]!r}?"
    return f"known keys here: {', '.join(names)}"


def _help(kind: type[Section], steps: Sequence[str]) -> str:
    info = field_at(kind, steps)
    return " ".join((info.description or "").split()) if info else ""
