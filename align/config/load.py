"""From a YAML file and ``key.path=value`` overrides to a checked recipe.

Paths: a value that starts with ``./`` or ``../`` is taken relative to the recipe file (to the
working directory, when it comes from an override). Every other path is relative to the working
directory, and is a hub id where nothing of that name exists.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import BaseModel, ValidationError

from align.config.base import Section
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


def read_tree(file: str | Path) -> dict[str, Any]:
    """The YAML mapping in ``file`` with ``./`` and ``../`` paths made absolute."""
    path = Path(file)
    if not path.is_file():
        folder = path.parent if path.parent.is_dir() else Path("recipes")
        near = difflib.get_close_matches(path.name, [p.name for p in folder.glob("**/*.yaml")], n=1)
        hint = f"did you mean {near[0]}?" if near else "name a .yaml file, such as those in recipes/"
        raise RecipeError("no such recipe", file=path, remedy=hint)
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"not valid YAML: {error}", file=path, remedy="mend the syntax") from error
    if not isinstance(tree, dict):
        raise RecipeError("a recipe is a mapping of sections", file=path, remedy="start with `kind:`")
    return cast(dict[str, Any], _anchor(tree, path.resolve().parent))


def _anchor(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return {key: _anchor(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_anchor(item, folder) for item in value]
    if isinstance(value, str) and value.startswith(("./", "../")):
        return os.path.normpath(folder / value)
    return value


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one dotted key of ``tree`` in place.

    Raises:
        RecipeError: the override is not of the form ``key.path=value``.
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
        value = yaml.safe_load(text) if text else None
    except yaml.YAMLError as error:
        raise RecipeError(f"the value is not YAML: {text!r}", key=key, remedy="quote it") from error
    if isinstance(value, str) and _is_number(value):  # YAML 1.1 reads 1e-6 as text
        value = float(value)
    set_key(tree, steps, value, origin=override)


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
        known = ", ".join(KINDS)
        remedy = (
            f"run it with `align {'run' if found == 'pipeline' else found}`"
            if found in KINDS
            else f"set kind to one of {known}"
        )
        raise RecipeError(f"kind is {found!r}, expected {expected!r}", file=file, key="kind", remedy=remedy)
    try:
        return kind.model_validate(_numbers(tree))
    except ValidationError as error:
        raise _explain(error, file, kind) from None


def _numbers(value: Any) -> Any:
    """YAML 1.1 leaves ``5e-6`` a string; nobody means that."""
    if isinstance(value, Mapping):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return float(value) if isinstance(value, str) and _is_number(value) and "e" in value.lower() else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.strip().lower() not in {"nan", "inf", "-inf", "infinity", "-infinity"}


def _explain(error: ValidationError, file: str | Path, kind: type[Section]) -> RecipeError:
    first = error.errors()[0]
    steps = [str(step) for step in first["loc"]]
    key = ".".join(steps)
    more = len(error.errors()) - 1
    also = f" (and {more} more)" if more else ""
    if first["type"] == "extra_forbidden":
        names = _fields_at(kind, steps[:-1])
        near = difflib.get_close_matches(steps[-1], names, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"known keys here: {', '.join(names)}"
        return RecipeError(f"unknown key {steps[-1]!r}{also}", file=file, key=key, remedy=remedy)
    if first["type"] == "missing":
        return RecipeError(f"missing key {steps[-1]!r}{also}", file=file, key=key, remedy="add it")
    message = first["msg"].removeprefix("Value error, ")
    got = "" if first["type"] in {"value_error"} else f", got {first['input']!r}"
    about = _help_at(kind, steps)
    remedy = f"{steps[-1]}: {about}" if about else "correct the value"
    return RecipeError(f"{message}{got}{also}", file=file, key=key, remedy=remedy)


def _model_at(kind: type[BaseModel], steps: Sequence[str]) -> type[BaseModel] | None:
    """The section class found by walking ``steps`` from ``kind``; dict keys pass through."""
    model: type[BaseModel] | None = kind
    inside_mapping = False
    for step in steps:
        if inside_mapping:
            inside_mapping = False
            continue
        if model is None or step not in model.model_fields:
            return None
        annotation = model.model_fields[step].annotation
        classes = _section_classes(annotation)
        inside_mapping = getattr(annotation, "__origin__", None) is dict
        model = classes[0] if classes else None
    return model


def _section_classes(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in getattr(annotation, "__args__", ()) for found in _section_classes(inner)]


def _fields_at(kind: type[BaseModel], steps: Sequence[str]) -> list[str]:
    model = _model_at(kind, steps)
    return list(model.model_fields) if model else []


def _help_at(kind: type[BaseModel], steps: Sequence[str]) -> str:
    model = _model_at(kind, steps[:-1])
    info = model.model_fields.get(steps[-1]) if model else None
    return " ".join((info.description or "").split()) if info else ""
