"""Columns beside a conversation that change what it means: read, or refused by name.

Read are ``tools`` and ``functions`` here, ``system`` in ``read``. Others that say the same under another
name, or that no template of text takes, would vanish without a word.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from align.dataset.messages.turns import check_text
from align.errors import DataError
from align.types import Message

_AS_SYSTEM = ("system_prompt", "system_message", "system_instruction")
_AS_TOOLS = ("available_tools", "tool_definitions", "function_definitions", "tool_schemas")
_MEDIA = ("image", "images", "video", "videos", "audio", "audios")
_NOT_READ = ("chat_template_kwargs",)
_OF_ANSWERS = ("reasoning_content", "reasoning", "thinking")
"""What a data set may have beside a completion; a message has it inside."""


def tools_of(row: Mapping[str, Any]) -> list[Any] | None:
    """The functions that a row's conversation may call, from its column ``tools`` or ``functions``.

    Either is a list or JSON. Of ``functions`` (OpenAI's name before ``tools``) each gets the form of a tool;
    a column of that name that holds no schemas is a column like any other.

    Raises:
        DataError: ``tools`` is neither; the two differ.
    """
    column = tools_column(row)
    if column is None:
        return None
    tools = _schemas(row[column]) if column == "functions" else _listed(row[column])
    if tools is None:
        raise DataError(
            "tools is no list of JSON schemas",
            remedy="map one, or have none: columns: {tools: none}",
        )
    check_text(tools, column)
    return tools or None


def tools_column(row: Mapping[str, Any]) -> str | None:
    """The column that has the tools of a row.

    Raises:
        DataError: two have, and differ.
    """
    functions = _schemas(row.get("functions"))
    if _is_none(row.get("tools")):
        return "functions" if functions else None
    tools = _listed(row["tools"])
    if functions and functions != [_as_tool(tool) for tool in tools or []]:
        raise DataError(
            "the row has tools and functions, and they differ",
            remedy="keep one of them: columns: {functions: none}",
        )
    return "tools"


def _is_none(value: Any) -> bool:
    return not value.strip() if isinstance(value, str) else not value


def _listed(value: Any) -> list[Any] | None:
    """A list of objects, or JSON of one; None for anything else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise DataError(
                f"the row: tools is no JSON: {error}", remedy="mend it, or drop such rows with where:"
            ) from error
    if not isinstance(value, Sequence) or isinstance(value, str):
        return None
    return list(value) if all(isinstance(tool, Mapping) for tool in value) else None


def _schemas(value: Any) -> list[Any] | None:
    """Tools of a column ``functions``; None where it holds something else."""
    try:
        found = None if _is_none(value) else _listed(value)
    except DataError:
        return None
    if not found or not all(isinstance(_function(each).get("name"), str) for each in found):
        return None
    if not all({"parameters", "description"} & _function(each).keys() for each in found):
        return None
    return [_as_tool(each) for each in found]


def _function(tool: Any) -> Mapping[str, Any]:
    inner = tool.get("function")
    return inner if isinstance(inner, Mapping) else tool


def _as_tool(tool: Any) -> Any:
    return tool if isinstance(tool.get("function"), Mapping) else {"type": "function", "function": dict(tool)}


def check_beside(
    row: Mapping[str, Any],
    messages: Sequence[Message],
    form: Sequence[str],
    *,
    mapped: Collection[str] = (),
) -> None:
    """Refuse a column that says something about the conversation and would not be read.

    Args:
        row: its columns.
        messages: the conversation, as it was read, without the recipe's own system message.
        form: the columns that it was read from.
        mapped: columns that the recipe itself makes.

    Raises:
        DataError: naming the column, and how to have it read or left out.
    """
    told = _says(row.get("system")) or (messages and messages[0]["role"] in ("system", "developer"))
    texts = not {"messages", "conversations", "chosen"} & set(form)
    refused: list[tuple[Sequence[str], str | None]] = [
        ((*_MEDIA, *_NOT_READ), None),
        (_AS_TOOLS if "tools" not in mapped and tools_column(row) is None else (), "tools"),
        (_AS_SYSTEM if "system" not in mapped and not told else (), "system"),
        (_OF_ANSWERS if texts else _OF_ANSWERS[1:], None),
        (("history",) if "instruction" not in form else (), None),
        (("context",) if "instruction" in form and not row.get("input") else (), "input"),
    ]
    for columns, goal in refused:
        for column in columns:
            if column in mapped or column in form or not _says(row.get(column)):
                continue
            read = f"have it read: columns: {{{goal}: {column}}}, or " if goal else ""
            raise DataError(
                f"the row has {column}, which is not read",
                remedy=f"{read}leave it out: columns: {{{column}: none}}",
            )


def _says(value: Any) -> bool:
    return (
        bool(value.strip()) if isinstance(value, str) else value is not None and value not in ([], {}, False)
    )
