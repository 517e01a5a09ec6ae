"""Rows to conversations: which columns make one, and what a sound one looks like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from align.errors import DataError
from align.types import Message

_ROLES = ("system", "user", "assistant")
_NO_EMPTY = "drop such rows with where: \"'' not in messages | map(attribute='content') | map('trim')\""


def conversation_of(row: Mapping[str, Any], *, system: str | None = None) -> tuple[Message, ...]:
    """The whole conversation of a row that is to be learnt.

    From the column ``messages``; else ``prompt`` (text or messages) and ``completion``; else
    ``instruction``, ``input`` (may be empty or absent) and ``output``.

    Args:
        row: its columns.
        system: system message for a conversation that has none.

    Raises:
        DataError: none of these columns; unknown or misplaced roles; an empty turn; no assistant
            turn at the end.
    """
    if row.get("messages") is not None:
        messages = _turns(row["messages"], "messages", "assistant")
    elif row.get("prompt") is not None and "completion" in row:
        messages = [
            *_turns(row["prompt"], "prompt", "user"),
            *_turns(row["completion"], "completion", "assistant"),
        ]
    elif row.get("instruction") is not None and "output" in row:
        question = str(row["instruction"])
        if row.get("input"):
            question += f"\n\n{row['input']}"
        messages = [*_turns(question, "instruction", "user"), *_turns(row["output"], "output", "assistant")]
    else:
        raise DataError(
            f"no conversation in the columns {', '.join(map(str, row))}",
            remedy="map columns to messages, or prompt and completion, or instruction and output",
        )
    messages = _with_system(messages, system)
    _check(messages)
    if messages[-1]["role"] != "assistant":
        raise DataError(
            f"the conversation ends with a turn of {messages[-1]['role']!r}, so there is nothing to learn",
            remedy="end every conversation with an assistant turn",
        )
    return tuple(messages)


def prompt_of(row: Mapping[str, Any], *, system: str | None = None) -> tuple[Message, ...]:
    """The conversation up to the turn that the policy is to write, from the column ``prompt``.

    Raises:
        DataError: no such column; unknown or misplaced roles; an empty turn; an assistant turn at
            the end.
    """
    if row.get("prompt") is None:
        raise DataError(
            f"no prompt in the columns {', '.join(map(str, row))}",
            remedy="make it from another column, for example columns: {prompt: question}",
        )
    messages = _with_system(_turns(row["prompt"], "prompt", "user"), system)
    _check(messages)
    if messages[-1]["role"] != "user":
        raise DataError(
            f"the prompt ends with a turn of {messages[-1]['role']!r}, not with the user's",
            remedy="leave the answer out: columns: {prompt: 'messages[:-1]'}",
        )
    return tuple(messages)


def _turns(value: Any, column: str, role: str) -> list[Message]:
    """A text as one turn of ``role``, or a list of messages as it is."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if not isinstance(value, Sequence):
        raise DataError(
            f"{column} is {type(value).__name__}, not text or a list of messages",
            remedy=f"make it text: columns: {{{column}: '{column} | string'}}",
        )
    turns: list[Message] = []
    for number, turn in enumerate(value, 1):
        if (
            not isinstance(turn, Mapping)
            or not isinstance(turn.get("role"), str)
            or not isinstance(turn.get("content"), str)
        ):
            raise DataError(
                f"{column}: turn {number} is not a message",
                remedy='a message is {"role": "user", "content": "text"}',
            )
        turns.append({"role": turn["role"], "content": turn["content"]})
    return turns


def _with_system(messages: list[Message], system: str | None) -> list[Message]:
    if system is None or (messages and messages[0]["role"] == "system"):
        return messages
    return [{"role": "system", "content": system}, *messages]


def _check(messages: Sequence[Message]) -> None:
    """An optional system message, then user and assistant in turn, none of them empty."""
    if not messages:
        raise DataError("the conversation has no turns", remedy="drop such rows with where: messages")
    for number, message in enumerate(messages, 1):
        if message["role"] not in _ROLES:
            raise DataError(
                f"turn {number} has the role {message['role']!r}", remedy=f"use {', '.join(_ROLES)}"
            )
        if not message["content"].strip():
            raise DataError(f"turn {number} ({message['role']}) is empty", remedy=_NO_EMPTY)
    talk = messages[1:] if messages[0]["role"] == "system" else messages
    offset = 1 + len(messages) - len(talk)
    for place, message in enumerate(talk):
        expected = ("user", "assistant")[place % 2]
        if message["role"] != expected:
            raise DataError(
                f"turn {place + offset} is the {message['role']}'s where the {expected}'s is expected",
                remedy="user and assistant take turns, the user first, after at most one system message",
            )
    if not talk:
        raise DataError("the conversation has nothing but a system message", remedy="add a user turn")
