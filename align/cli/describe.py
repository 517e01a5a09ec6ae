"""``align describe``: every recipe key with its type, default and help."""

from __future__ import annotations

import difflib
import textwrap
from typing import Annotated

import typer
from rich.text import Text

from align.cli.common import console
from align.config.knobs import ENTRY, Knob, knobs
from align.config.recipe import KINDS
from align.errors import RecipeError


def describe(
    kind: Annotated[
        str | None, typer.Argument(help=f"Kind of recipe: {', '.join(KINDS)}.", show_default=False)
    ] = None,
    key: Annotated[
        str | None, typer.Argument(help="Only this key and what is below it.", show_default=False)
    ] = None,
) -> None:
    """Show the keys of a recipe with type, default and meaning.

    \b
    [bold]Examples[/]
      align describe
      align describe grpo
      align describe grpo grpo.advantage
      align describe sft data.parts
    """
    if kind is None:
        for name, section in KINDS.items():
            console.print(Text(name, "bold") + Text(f"  {_plain(section.__doc__ or '')}"))
        console.print("\n`align describe KIND` lists the keys of one.")
        return
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"name one of {', '.join(KINDS)}"
        raise RecipeError(f"there is no kind of recipe {kind!r}", remedy=hint)
    every = list(knobs(KINDS[kind]))
    for knob in _below(every, key, kind) if key else every:
        _show(knob)


def _below(every: list[Knob], key: str, kind: str) -> list[Knob]:
    """The key and those under it; a name that a recipe chose matches ``<name>``."""
    wanted = key.split(".")
    found = [
        knob
        for knob in every
        if len(steps := knob.key.split(".")) >= len(wanted)
        and all(have in (want, ENTRY) for have, want in zip(steps, wanted, strict=False))
    ]
    if not found:
        names = [knob.key for knob in every]
        near = difflib.get_close_matches(key, names, n=1) or [
            name for name in names if name.rpartition(".")[2] == wanted[-1]
        ]
        hint = f"did you mean {near[0]!r}?" if near else f"see `align describe {kind}`"
        raise RecipeError(f"a {kind} recipe has no such key", key=key, remedy=hint)
    return found


def _show(knob: Knob) -> None:
    line = Text(knob.key, "bold cyan" if knob.is_section else "bold") + Text(f"  {knob.type}", "dim")
    if knob.default:
        line += Text("  required", "yellow") if knob.default == "required" else Text(f" = {knob.default}")
    console.print(line, soft_wrap=True)
    if knob.help:
        lines = textwrap.wrap(_plain(knob.help), min(console.width, 100) - 4)
        console.print(Text("\n".join(f"    {line}" for line in lines)))


def _plain(text: str) -> str:
    return " ".join(text.replace("``", "`").split())
