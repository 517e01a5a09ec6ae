"""Rows to conversations: which columns make one, and what a sound one looks like."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from align.dataset.messages.beside import check_beside
from align.dataset.messages.oasst import best_path
from align.dataset.messages.said import Said, said
from align.dataset.messages.turns import ROLES, check_text, is_empty, turns_of
from align.errors import DataError
from align.types import Message

FORMS: tuple[tuple[str, ...], ...] = (
    ("messages",),
    ("conversations",),
    ("prompt", "completion"),
    ("instruction", "input", "output"),
)
"""The columns that make a conversation. Of several forms in one row the first counts, but for one that the
recipe maps."""
_NEEDED = {"completion", "output"}
OF_REWARDS = ("history", "context", "reasoning_content", "reasoning", "thinking")
"""Columns that a prompt's row may have for its rewards."""


def conversation_of(
    row: Mapping[str, Any], *, system: str | None = None, mapped: Collection[str] = ()
) -> tuple[Message, ...]:
    """The whole conversation of a row that is to be learnt.

    From the column ``messages`` or ``conversations``; else ``prompt`` (text or messages) and ``completion``;
    else ``instruction``, ``input`` (may be empty or absent) and ``output``, behind the pairs of ``history``;
    else a tree of OpenAssistant's. A conversation without a system message takes that of the column
    ``system``.

    Args:
        row: its columns.
        system: system message for a conversation that has none.
        mapped: columns that the recipe itself makes; the form they belong to goes before all others.

    Raises:
        DataError: none of these columns; one beside them would not be read (``beside``); a message that
            cannot be read (``turns``); unknown or misplaced roles; an empty turn; no assistant turn at
            the end.
    """
    form = form_of(row, mapped)
    own = _read(row, form)
    check_beside(row, own, form, mapped=mapped)
    messages = with_system(own, system_of(row, system))
    check(messages, said(row, form, mapped))
    if messages[-1]["role"] != "assistant":
        raise DataError(
            f"the conversation ends with a turn of {messages[-1]['role']!r}, so there is nothing to learn",
            remedy="end every conversation with an assistant turn",
        )
    return tuple(messages)


def form_of(row: Mapping[str, Any], mapped: Collection[str] = ()) -> tuple[str, ...]:
    """The columns that make the row's conversation; none for a tree.

    Raises:
        DataError: there are none.
    """
    for form in FORMS:
        if any(column in mapped for column in form if column != "input"):
            missing = [column for column in form if column not in row and column != "input"]
            if missing:
                raise DataError(
                    f"columns maps {', '.join(column for column in form if column in mapped)}, and there is "
                    f"no {', '.join(missing)}",
                    remedy=f"map {', '.join(missing)} too; columns: {', '.join(map(str, row))}",
                )
            return form
    if _is_tree(row.get("prompt")):
        return ()
    for form in FORMS:
        if row.get(form[0]) is not None and all(column in row for column in form if column in _NEEDED):
            return form
    raise DataError(
        f"no conversation in the columns {', '.join(map(str, row))}",
        remedy="map columns to messages, or prompt and completion, or instruction and output",
    )


def _read(row: Mapping[str, Any], form: tuple[str, ...]) -> list[Message]:
    if not form:
        return best_path(row["prompt"])
    if form[0] == "prompt":
        return [
            *turns_of(row["prompt"], "prompt", "user"),
            *turns_of(row["completion"], "completion", "assistant"),
        ]
    if form[0] == "instruction":
        question = str(row["instruction"])
        check_text(row.get("input"), "input")
        if row.get("input"):
            question += f"\n\n{row['input']}"
        return [
            *_history(row.get("history")),
            *turns_of(question, "instruction", "user"),
            *turns_of(row["output"], "output", "assistant"),
        ]
    if isinstance(row[form[0]], str):
        raise DataError(
            f"{form[0]} is text, not a list of messages",
            remedy=f"columns: {{messages: {form[0]} | from_json}}, or for 'Human: … Assistant: …' "
            f"{form[0]} | transcript",
        )
    return turns_of(row[form[0]], form[0], "assistant")


def _history(value: Any) -> list[Message]:
    """Pairs of a question and its answer that go before an instruction."""
    if not value:
        return []
    if not isinstance(value, Sequence) or not all(
        isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2 for pair in value
    ):
        raise DataError(
            "history is no list of pairs [question, answer]",
            remedy="map it, or have none: columns: {history: none}",
        )
    return [
        turn
        for question, answer in value
        for turn in (
            *turns_of(question, "history: a pair", "user"),
            *turns_of(answer, "history: a pair", "assistant"),
        )
    ]


def system_of(row: Mapping[str, Any], default: str | None) -> str | None:
    """The row's own system message, its column ``system``, where it has one."""
    own = row.get("system")
    if own is None or own == "":
        return default
    if not isinstance(own, str):
        raise DataError(
            f"system is {type(own).__name__}, not text",
            remedy="map the text, as in columns: {system: 'system[0]'}, or columns: {system: none}",
        )
    if not own.strip():
        return default
    check_text(own, "system")
    return own


def prompt_of(
    row: Mapping[str, Any], *, system: str | None = None, mapped: Collection[str] = ()
) -> tuple[Message, ...]:
    """The conversation up to the turn that the policy is to write, from the column ``prompt``.

    Of a tree of OpenAssistant's, that is its root. Weights mean nothing here and are left out.

    Args:
        row: its columns.
        system: system message for a conversation that has none.
        mapped: columns that the recipe itself makes.

    Raises:
        DataError: no such column; a column beside it would not be read (``beside``); a message that cannot
            be read (``turns``); unknown or misplaced roles; an empty turn; an assistant turn at the end.
    """
    if row.get("prompt") is None:
        known = next((name for name in ("messages", "conversations") if row.get(name) is not None), None)
        example = f"'{known}[:-1]'" if known else "question"
        raise DataError(
            f"no prompt in the columns {', '.join(map(str, row))}",
            remedy=f"make it from another column, for example columns: {{prompt: {example}}}",
        )
    prompt = best_path(row["prompt"])[:1] if _is_tree(row["prompt"]) else row["prompt"]
    own = turns_of(prompt, "prompt", "user")
    check_beside(row, own, ("prompt",), mapped=(*mapped, *OF_REWARDS))
    messages = with_system(own, system_of(row, system))
    check(messages, said(row, ("prompt",), mapped))
    if messages[-1]["role"] not in ("user", "tool"):
        raise DataError(
            f"the prompt ends with a turn of {messages[-1]['role']!r}, not with the user's",
            remedy=f"leave the answer out: columns: {{prompt: '{_mapped_from(mapped, 'prompt')}[:-1]'}}",
        )
    return tuple(without_weights(messages))


def check_trained(messages: Sequence[Message]) -> None:
    """Refuse a conversation of which nothing is to be learnt.

    Raises:
        DataError: every turn of the assistant has weight 0.
    """
    if all(message.get("weight") == 0 for message in messages if message["role"] == "assistant"):
        raise DataError(
            "no turn of the conversation is to be trained: all have weight 0",
            remedy="drop such rows with where:, or leave the weights out of the messages by "
            "keep('role', 'content')",
        )


def without_weights(messages: Sequence[Message]) -> list[Message]:
    """The same messages; which of them are to be trained is not said."""
    return [{key: value for key, value in turn.items() if key != "weight"} for turn in messages]


def _is_tree(value: Any) -> bool:
    return isinstance(value, Mapping) and "replies" in value


def with_system(messages: list[Message], system: str | None) -> list[Message]:
    if system is None or (messages and messages[0]["role"] in ("system", "developer")):
        return messages
    return [{"role": "system", "content": system}, *messages]


def _mapped_from(mapped: Collection[str], column: str) -> str:
    made = mapped.get(column, column) if isinstance(mapped, Mapping) else column
    return made if made.isidentifier() else f"({made})"


def check(messages: Sequence[Message], source: Said) -> None:
    """An optional system message, then user and assistant in turn, none of them empty.

    Behind an assistant's turn there may be any number of a tool's, which the assistant goes on from.

    Args:
        messages: the conversation.
        source: where it was read, for remedies.

    Raises:
        DataError: it is not so.
    """
    if not messages:
        raise DataError("the conversation has no turns", remedy=source.any_turns)
    for number, message in enumerate(messages, 1):
        if message["role"] not in ROLES:
            raise DataError(
                f"turn {number} has the role {message['role']!r}", remedy=f"use {', '.join(ROLES)}"
            )
        if is_empty(message):
            raise DataError(f"turn {number} ({message['role']}) is empty", remedy=source.not_empty)
    start = int(messages[0]["role"] in ("system", "developer"))
    before = "assistant"
    for number, message in enumerate(messages[start:], start + 1):
        role = message["role"]
        expected = "user" if before == "assistant" else "assistant"
        answered = before == "tool" or (before == "assistant" and number > start + 1)
        if role != expected and not (role == "tool" and answered):
            raise DataError(
                f"turn {number} is the {role}'s where the {expected}'s is expected",
                remedy="user and assistant take turns, the user first, after at most one system message; "
                "a tool's turns stand between two of the assistant's",
            )
        before = role
    if len(messages) == start:
        raise DataError("the conversation has nothing but a system message", remedy="add a user turn")
