"""Every key of a recipe with its type, default and help, read off the section classes."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from align.config import yaml12
from align.config.base import Section

ENTRY = "<name>"
"""Stands for a name that the recipe chooses: ``rewards.terms.<name>.weight``."""

_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


@dataclass(frozen=True, slots=True)
class Knob:
    """One key of a recipe."""

    key: str
    """Dotted; names that the recipe chooses are ``<name>``."""
    type: str
    """For people: ``int ≥ 1``, ``error | drop``, ``section``."""
    default: str
    """As YAML; ``required`` where there is none, empty for a section."""
    help: str

    @property
    def is_section(self) -> bool:
        """Whether the key holds further keys."""
        return self.type.startswith("section")


def knobs(kind: type[Section]) -> Iterator[Knob]:
    """All keys of one kind of recipe, sections before what they hold, in the order of the classes."""
    return _walk(kind, None, "")


def _walk(kind: type[Section], default: Section | None, prefix: str) -> Iterator[Knob]:
    for name, info in kind.model_fields.items():
        value = info.get_default() if default is None else getattr(default, name)
        inner, many = _section_in(info.annotation)
        key, about = prefix + name, " ".join((info.description or "").split())
        if inner is None:
            yield Knob(key, _type(info), _default(value), about)
        elif many:
            yield Knob(key, f"section of {ENTRY}", _required(value), about)
            yield from _walk(inner, None, f"{key}.{ENTRY}.")
        else:
            yield Knob(key, "section", "null" if value is None else _required(value), about)
            yield from _walk(inner, value if isinstance(value, Section) else None, f"{key}.")


def field_at(kind: type[Section], steps: Sequence[str]) -> FieldInfo | None:
    """The field that the steps lead to, names chosen by the recipe included; None where there is none."""
    if not steps:
        return None
    section = section_at(kind, steps[:-1])
    return section.model_fields.get(steps[-1]) if section else None


def section_at(kind: type[Section], steps: Sequence[str]) -> type[Section] | None:
    """The section class that the steps lead to."""
    section: type[Section] | None = kind
    rest = list(steps)
    while rest and section is not None:
        info = section.model_fields.get(rest.pop(0))
        section, many = _section_in(info.annotation) if info else (None, False)
        if many:
            if not rest:
                return None
            rest.pop(0)
    return section


def _section_in(annotation: Any) -> tuple[type[Section] | None, bool]:
    """The section class inside an annotation, and whether it is the value of a mapping."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation, False
    origin = typing.get_origin(annotation)
    for inner in typing.get_args(annotation):
        found, _ = _section_in(inner)
        if found:
            return found, origin is dict
    return None, False


def _type(info: FieldInfo) -> str:
    bounds = [
        f" {sign} {getattr(each, name)}"
        for each in info.metadata
        for name, sign in _BOUNDS.items()
        if getattr(each, name, None) is not None
    ]
    spelled, null, rest = _spell(info.annotation).partition(" | null")
    return spelled + " and".join(bounds) + null + rest


def _spell(annotation: Any) -> str:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " | ".join(str(choice) for choice in inner)
    if origin in (typing.Union, types.UnionType):
        return " | ".join("null" if each is type(None) else _spell(each) for each in inner)
    if origin is not None:
        return f"{origin.__name__}[{', '.join(_spell(each) for each in inner)}]"
    return {"object": "any"}.get(annotation.__name__, str(annotation.__name__))


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_default(item) for item in value)}]"
    return yaml12.dump(value).removesuffix("...\n").strip()


def _required(value: Any) -> str:
    return "required" if value is PydanticUndefined else ""
