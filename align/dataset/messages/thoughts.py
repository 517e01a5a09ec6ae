"""Reasoning inside an answer's text, where the template writes a block of reasoning itself."""

from __future__ import annotations

from collections.abc import Sequence

from align.errors import DataError
from align.types import Message

OPEN, CLOSE = "<think>", "</think>"


def check_thoughts(messages: Sequence[Message], template: str, *, whole: bool) -> None:
    """Refuse answers whose reasoning the template would write twice, or leave open.

    Args:
        messages: the conversation.
        template: its source; one without ``</think>`` writes every text as it is.
        whole: refuse open blocks too. Answers to be compared may have been cut off.

    Raises:
        DataError: naming the turn.
    """
    for number, message in enumerate(messages, 1):
        if message["role"] != "assistant":
            continue
        said, thought = message["content"], message.get("reasoning_content")
        if thought and (CLOSE in said or said.lstrip().startswith(OPEN)):
            raise DataError(
                f"turn {number} has reasoning_content, and a {OPEN} block in its content",
                remedy="keep one of them: take the block out of the content, or the key out of the message",
            )
        if CLOSE not in template:
            continue
        if thought and (OPEN in thought or CLOSE in thought):
            raise DataError(
                f"turn {number} has {OPEN} or {CLOSE} inside its reasoning_content, which the chat template "
                "puts between these two itself",
                remedy="take them out of the data, or drop such rows with where:",
            )
        before = said.partition(CLOSE)[0]
        if CLOSE in said and before.partition(OPEN)[0].strip() and OPEN in before:
            raise DataError(
                f"turn {number} says something before its {OPEN}, which the chat template does not write",
                remedy="let the answer begin with its reasoning, or drop such rows with where:",
            )
        if whole and said.rfind(OPEN) > said.rfind(CLOSE):
            raise DataError(
                f"turn {number} has a {OPEN} that is not closed",
                remedy=f"drop such rows with where:, or close it with {CLOSE} before the answer",
            )
