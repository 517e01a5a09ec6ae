"""Whether a ``prompt`` beside a whole conversation is that conversation's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from align.dataset.messages.turns import plain, turns_of
from align.errors import DataError
from align.types import Message


def check_same_prompt(prompt: Any, turns: Sequence[Message], column: str) -> None:
    """Refuse a prompt that says something else than the conversation beside it.

    Data sets repeat the first question there, or the last, or all turns before the answer, as messages or
    as a transcript; a system message may be missing on either side.

    Args:
        prompt: the row's, text or messages.
        turns: the whole conversation.
        column: what it was read from, for the message.

    Raises:
        DataError: it does.
    """
    asked = [turn["content"].strip() for turn in turns if turn["role"] == "user"]
    if isinstance(prompt, str):
        same = prompt.strip() in asked or all(text in prompt for text in asked)
    else:
        same = _begins(turns, turns_of(prompt, "prompt", "user"))
    if not same:
        raise DataError(
            f"prompt is another than that of {column}, which is a whole conversation",
            remedy="mend the row, or leave the prompt out: columns: {prompt: none}",
        )


def _begins(turns: Sequence[Message], prompt: Sequence[Message]) -> bool:
    heads = [_head(each) for each in (turns, prompt)]
    if all(heads) and heads[0] != heads[1]:
        return False
    whole, asked = _talk(turns), _talk(prompt)
    return whole[: len(asked)] == asked


def _talk(turns: Sequence[Message]) -> list[tuple[str, ...]]:
    return [plain(turn) for turn in turns if turn["role"] not in ("system", "developer")]


def _head(turns: Sequence[Message]) -> str | None:
    first = turns[0] if turns else {"role": ""}
    return first["content"].strip() if first["role"] in ("system", "developer") else None
