"""Expressions over a row's columns: ``columns:`` and ``where:`` of a recipe.

Sandboxed Jinja, so a recipe cannot run code. A text that is exactly a column's name gives that
column, spaces and all. Beside Jinja's own filters there are

- ``transcript``: ``"\\n\\nHuman: … \\n\\nAssistant: …"`` → a list of messages;
- ``regex_replace(pattern, replacement)``: Python's ``re.sub``;
- ``number``: the one number in a text, ``"$1,234.0"`` → 1234;
- ``keep(*keys)``: messages (or any objects) with these keys only;
- ``from_json``: a value from its JSON text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, Undefined
from jinja2.exceptions import SecurityError
from jinja2.sandbox import SandboxedEnvironment

from align.errors import DataError, RecipeError

_SPEAKER = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")


def transcript(text: str) -> list[dict[str, str]]:
    """A ``\\n\\nHuman: … \\n\\nAssistant: …`` transcript as messages, texts stripped.

    Turns of the same speaker in a row are joined by a blank line. Empty turns are kept, so that
    ``where: "'' not in messages | map(attribute='content')"`` can drop them.

    Raises:
        ValueError: the text does not start with a speaker.
    """
    first, *rest = _SPEAKER.split(text if text.startswith("\n") else "\n\n" + text)
    if first.strip() or not rest:
        raise ValueError("not a transcript: it must start with 'Human:' or 'Assistant:'")
    messages: list[dict[str, str]] = []
    for speaker, content in zip(rest[::2], rest[1::2], strict=True):
        role = _ROLES[speaker]
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] = f"{messages[-1]['content']}\n\n{content.strip()}".strip()
        else:
            messages.append({"role": role, "content": content.strip()})
    return messages


def regex_replace(text: str, pattern: str, replacement: str = "") -> str:
    """``re.sub(pattern, replacement, text)``."""
    return re.sub(pattern, replacement, text)


def number(value: Any) -> int | float:
    """The only number in a text; thousands separators go, a whole number becomes an int.

    Raises:
        ValueError: no number, or several.
    """
    if isinstance(value, (int, float)):
        return value
    found = _NUMBER.findall(str(value))
    if len(found) != 1:
        raise ValueError(f"expected one number, found {len(found)}")
    parsed = float(found[0].replace(",", ""))
    return int(parsed) if parsed.is_integer() else parsed


def keep(objects: Sequence[Mapping[str, Any]], *keys: str) -> list[dict[str, Any]]:
    """Each object with these of its keys only."""
    return [{key: value for key, value in each.items() if key in keys} for each in objects]


def _environment() -> SandboxedEnvironment:
    environment = SandboxedEnvironment(undefined=StrictUndefined)
    environment.globals.clear()  # a column may be called `range`, and nothing else may be
    environment.filters.update(
        transcript=transcript, regex_replace=regex_replace, number=number, keep=keep, from_json=json.loads
    )
    return environment


_ENVIRONMENT = _environment()


def compile_expression(
    text: str, *, file: str | Path | None = None, key: str | None = None
) -> Callable[[Mapping[str, Any]], Any]:
    """A function from a row's columns to the expression's value.

    Args:
        text: a column's name, or a Jinja expression over columns.
        file: recipe, for error messages.
        key: dotted key of the expression in the recipe, for error messages.

    Raises:
        RecipeError: from the function, on a row that has no column of this name: ``text`` is no
            expression. (Until a row is there, any text may be a column's name.)
        DataError: from the function: a column is not there, or the evaluation fails.
    """
    syntax: TemplateSyntaxError | None = None
    evaluate: Callable[[Mapping[str, Any]], Any] | None = None
    try:
        evaluate = _ENVIRONMENT.compile_expression(text, undefined_to_none=False)
    except TemplateSyntaxError as error:
        syntax = error

    def apply(row: Mapping[str, Any]) -> Any:
        if text in row:
            return row[text]
        if evaluate is None:
            raise RecipeError(
                f"{text!r} is neither a column nor an expression ({syntax})",
                file=file,
                key=key,
                remedy=f"columns: {', '.join(map(str, row))}",
            )
        try:
            value = evaluate(row)
        except SecurityError as error:
            raise RecipeError(f"{text!r} is not allowed: {error}", file=file, key=key) from error
        except Exception as error:  # whatever the recipe's author wrote may fail in any way
            raise DataError(
                f"{text!r} fails: {error}", file=file, key=key, remedy=f"columns: {', '.join(map(str, row))}"
            ) from error
        if isinstance(value, Undefined):
            reason = f"{text!r} is undefined"
            raise DataError(reason, file=file, key=key, remedy=f"columns: {', '.join(map(str, row))}")
        return value

    return apply
