"""The tokens of one conversation, and of the two sides of a pair cut alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from align.chat.render import conversation_ids
from align.dataset.messages.kept import check_kept
from align.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, keep: str | None = None
) -> list[int]:
    """Token ids of a whole conversation as the chat template writes it, [L] ints.

    Args:
        tokenizer: with its template set.
        messages: the conversation.
        keep: as ``kept.check_kept`` takes it.

    Raises:
        ModelError: the template refuses the conversation.
        DataError: the template leaves out what a turn has (``kept``).
    """
    named = {} if keep is None else {"keep": keep}
    check_kept(tokenizer, messages, earlier_reasoning=True, **named)
    return conversation_ids(tokenizer, messages)


def shared_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences have in common from the start."""
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place
    return min(len(one), len(other))


def cut(sides: Sequence[Sequence[int]], limit: int, bos: int | None) -> list[list[int]]:
    """Each sequence's last ``limit`` tokens; a begin-of-sequence token stays in front.

    What the sides have in common is cut at the same place first, so that both keep the same context.
    """
    shared = shared_prefix(sides[0], sides[-1])
    excess = max(0, min(max(map(len, sides)) - limit, shared - 1))
    cuts = []
    for ids in sides:
        start = max(excess, len(ids) - limit)
        head = [bos] if start and ids[0] == bos else []
        cuts.append([*head, *ids[start + len(head) :]])
    return cuts
